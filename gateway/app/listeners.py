"""Opens and closes the two HTTP listeners, the public and the internal one."""

import ssl

import structlog
from aiohttp import web

from gateway.config.address import parse_address
from gateway.transport.listener import BACKLOG, open_listener

REQUEST_SECONDS = 15
"""
How long a connection may wait before its request is whole, the first or the next.

aiohttp's default is an hour, for which a client that sends half a header would keep a descriptor.
"""

_log = structlog.get_logger(__name__)


async def listen(
    app: web.Application,
    address: str,
    *,
    public: bool,
    reuse_port: bool = False,
    tls: ssl.SSLContext | None = None,
) -> web.AppRunner:
    """Serve an application.

    Raises:
        OSError: The address cannot be listened on.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=1,
        keepalive_timeout=REQUEST_SECONDS,
        auto_decompress=not public,  # what anybody may send costs no more than its bytes
    )
    await runner.setup()
    host, port = parse_address(address)
    listener = open_listener(host, port, reuse_port=reuse_port)
    await web.SockSite(runner, listener, ssl_context=tls, backlog=BACKLOG).start()
    _log.info("listening", address=address, public=public)
    return runner


def tls_context(certificate: str, key: str) -> ssl.SSLContext | None:
    """What the public listener encrypts with; None without a certificate."""
    if not certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def stop_listening(runner: web.AppRunner) -> None:
    """Take no new connections; those there are stay."""
    for site in list(runner.sites):
        await site.stop()


async def hide_server(_: web.Request, response: web.StreamResponse) -> None:
    """Versions of Python and aiohttp are nobody's business on the public port."""
    response.headers.popall("Server", None)
