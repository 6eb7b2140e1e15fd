"""Users and their devices across all replicas: sessions, their limits, and presence on topics."""
