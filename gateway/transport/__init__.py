"""How clients connect: Phoenix's WebSocket and long-poll transports."""
