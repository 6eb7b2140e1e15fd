"""The page of ``gateway serve --dev``: a laptop and a phone of one user, on the real protocol."""

from functools import partial
from pathlib import Path

from aiohttp import web


def add_to(app: web.Application) -> None:
    """Serve the page at ``/`` and ``/demo``; nothing of it exists outside of dev mode."""
    for path, name in (("/", "demo.html"), ("/demo", "demo.html"), ("/demo.js", "demo.js")):
        app.router.add_get(path, partial(_file, name))


async def _file(name: str, _: web.Request) -> web.FileResponse:
    return web.FileResponse(Path(__file__).parent / name)
