"""Who a client is, and which topics that lets it join and push to."""
