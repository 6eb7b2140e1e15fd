"""Notes that everybody sees at once, in FastAPI: ``uvicorn deploy.live.fastapi_app:app``."""

import asyncio
from pathlib import Path
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.templating import Jinja2Templates

from deploy.live.publishing import GATEWAY, publish, token

notes: list[str] = []  # stands for your database
templates = Jinja2Templates(Path(__file__).parent / "templates")
app = FastAPI()


@app.get("/")
def page(request: Request) -> HTMLResponse:
    """The page."""
    context = {"notes": notes, "gateway": GATEWAY, "token": token("ada")}
    return templates.TemplateResponse(request, "page.html", context)


@app.get("/notes")
def fragment(request: Request) -> HTMLResponse:
    """What of it changes, for pages that missed too much."""
    return templates.TemplateResponse(request, "notes.html", {"notes": notes})


@app.post("/notes")
async def add(request: Request) -> RedirectResponse:
    """Store a note, then show it everywhere."""
    notes.append(parse_qs((await request.body()).decode())["text"][0])
    html = templates.get_template("note.html").render(note=notes[-1], number=len(notes))
    await asyncio.to_thread(publish, "notes", "list", "append", html)
    await asyncio.to_thread(publish, "notes", "count", "update", str(len(notes)))
    return RedirectResponse("/", status_code=303)
