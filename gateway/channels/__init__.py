"""What one client's socket does: its channels, pushes, callbacks and credentials, whatever carries its bytes."""
