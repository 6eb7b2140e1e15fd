"""Notes that everybody sees at once, in Django: ``python -m deploy.live.django_app runserver``."""

import sys
from pathlib import Path

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import path

from deploy.live.publishing import GATEWAY, TOKEN_SECRET, publish, token

notes: list[str] = []  # stands for your database


def page(request: HttpRequest) -> HttpResponse:
    """The page."""
    context = {"notes": notes, "gateway": GATEWAY, "token": token("ada")}
    return render(request, "page.html", context)


def fragment(request: HttpRequest) -> HttpResponse:
    """What of it changes, for pages that missed too much; a posted note is stored and shown to all."""
    if request.method != "POST":
        return render(request, "notes.html", {"notes": notes})
    notes.append(request.POST["text"])
    html = render_to_string("note.html", {"note": notes[-1], "number": len(notes)})
    publish("notes", "list", "append", html)
    publish("notes", "count", "update", str(len(notes)))
    return redirect("/")


urlpatterns = [path("", page), path("notes", fragment)]

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=TOKEN_SECRET,
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.jinja2.Jinja2",
            "DIRS": [Path(__file__).parent / "templates"],
        }
    ],
)

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
