"""The scenario ``fragments``: from a form posted to a backend of ``deploy/live`` to another open page."""

import http.client
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from playwright.sync_api import Browser, sync_playwright

from bench.idle import rounds_of, spread
from bench.nats import Nats
from bench.options import Options
from bench.proc import START_SECONDS, Cores, ServerProcess
from bench.scenarios import Figures
from bench.servers.base import free_port
from bench.servers.gateway import API_KEY, SECRET, Gateway
from bench.wire import LoadError

NOTES: Final = 200
WARM_UP: Final = 10
APPEAR_SECONDS: Final = 10.0

_ROOT: Final = Path(__file__).parents[1]
_BACKENDS: Final = {
    "FastAPI": "uvicorn deploy.live.fastapi_app:app --log-level=warning --port={port}",
    "Django": "deploy.live.django_app runserver --noreload 127.0.0.1:{port}",
}
_RULE: Final = """
[[channels]]
pattern = "notes"
history = { messages = 100, seconds = 3600 }
"""
_NOTICE: Final = """
window.shown = {};
new MutationObserver(() => requestAnimationFrame(() => {
  for (const { id } of document.querySelectorAll("#list li")) shown[id] ??= Date.now();
})).observe(document, { childList: true, subtree: true });
"""
_CSRF: Final = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


def run(cores: Cores, options: Options) -> str:
    """Measure how long it takes; returns the table."""
    notes = 20 if options.quick else NOTES
    rounds = rounds_of(options, "fragments", lambda: fragments(cores, notes))
    rows = "".join(
        f"| {name} | {spread(rounds, f'{name} median', '.1f')} | {spread(rounds, f'{name} 99', '.1f')} |\n"
        for name in _BACKENDS
    )
    return (
        "| backend | ms from the form's POST to the frame that shows it, median | lowest | highest "
        "| 99 % | lowest | highest |\n|---|--:|--:|--:|--:|--:|--:|\n"
        f"{rows}\n{notes} notes, one after another; the page is on one of two replicas, and the backend "
        f"publishes to the other; medians of {len(rounds)} {'round' if len(rounds) == 1 else 'rounds'}, and "
        "their lowest and highest.\n"
    )


def fragments(cores: Cores, notes: int) -> Figures:
    """For each backend ``<name> median`` and ``<name> 99``, in ms."""
    figures: Figures = {}
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("bench: a browser is missing, for example: apt-get install chromium")
    with Nats(cores.load) as nats, sync_playwright() as playwright:
        shown, asked = (_Gateway(nats.url, sections=_RULE) for _ in range(2))
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with ServerProcess(shown, cores), ServerProcess(asked, cores):
            for name, command in _BACKENDS.items():
                with _backend(command, shown, asked) as url:
                    times = _times(browser, url, WARM_UP + notes)[WARM_UP:]
                figures[f"{name} median"] = median(times)
                figures[f"{name} 99"] = quantiles(times, n=100)[-1]
        browser.close()
    return figures


class _Gateway(Gateway):
    """A replica that lets pages of backends in."""

    def environment(self) -> dict[str, str]:
        return super().environment() | {"GATEWAY_SERVER__ALLOWED_ORIGINS": '["*"]'}


@contextmanager
def _backend(command: str, shown: Gateway, asked: Gateway) -> Iterator[str]:
    """Run a backend; its URL."""
    url = f"http://127.0.0.1:{(port := free_port())}/"
    told = {
        "GATEWAY_URL": f"http://127.0.0.1:{shown.port}",
        "GATEWAY_APIS": f"http://127.0.0.1:{asked.publish_port}",
        "GATEWAY_API_KEY": API_KEY,
        "GATEWAY_TOKEN_SECRET": SECRET,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", *command.format(port=port).split()],
        cwd=_ROOT,
        env=os.environ | told,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the backend does not start") from None
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()


def _times(browser: Browser, url: str, notes: int) -> list[float]:
    """Post notes, each when the one before is shown; how long each took, in ms."""
    page = browser.new_page()
    page.add_init_script(_NOTICE)
    page.goto(url)
    page.wait_for_selector("html[data-live-state=connected]")
    form = {}
    if found := _CSRF.search(page.content()):
        form["csrfmiddlewaretoken"] = found[1]
    cookie = "; ".join(f"{each['name']}={each['value']}" for each in page.context.cookies())
    headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
    times = []
    for number in range(1, notes + 1):
        body = urllib.parse.urlencode(form | {"text": f"note {number}"}).encode()
        started = time.time()
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc)
        connection.request("POST", "/notes", body, headers)
        answer = connection.getresponse()
        connection.close()
        if answer.status not in {302, 303}:
            raise LoadError(f"the form was answered {answer.status}")
        at = page.wait_for_function(f"shown['note-{number}']", timeout=APPEAR_SECONDS * 1e3)
        times.append(at.json_value() - started * 1e3)
    page.close()
    return times
