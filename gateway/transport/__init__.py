"""How clients connect: the WebSocket transport of Phoenix Channels, on aiohttp."""
