"""Local fan-out: which sockets of this replica are members of which topic, and messages to all of them."""
