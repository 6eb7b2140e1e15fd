"""The page of ``gateway serve --dev``: a laptop and a phone of one user, on the real protocol."""

from pathlib import Path

from aiohttp import web

_FILES = Path(__file__).parent


def add_to(app: web.Application) -> None:
    """Serve the page at ``/`` and ``/demo``; nothing of it exists outside of dev mode."""

    async def page(_: web.Request) -> web.FileResponse:
        return web.FileResponse(_FILES / "demo.html")

    async def script(_: web.Request) -> web.FileResponse:
        return web.FileResponse(_FILES / "demo.js")

    app.add_routes(
        [web.get("/", page), web.get("/demo", page), web.get("/demo.js", script)],
    )
