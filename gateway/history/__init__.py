"""What topics keep: positions, resuming, the log of a subscribed topic, and the stores behind it."""
