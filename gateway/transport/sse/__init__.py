"""The transport for clients that only listen: Server-Sent Events."""
