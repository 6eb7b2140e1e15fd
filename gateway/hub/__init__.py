"""Which local sockets hear a topic, and carrying a message to all of them."""
