"""What one client's socket does: channels, pushes, callbacks and credentials, whatever carries its bytes."""
