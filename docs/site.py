"""Lays out the pages of the site, from files that are written to be read in the repository: ``make docs``.

What ``docs/`` has goes as it is. A link that leads out of it leads to a copy below ``repository/``: the site
has all that its pages refer to, and asks no other server for anything.
"""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = Path("docs")
OUTSIDE: Final = Path("repository")

FOLDER: Final = re.compile(r"\[([^\]]+)\]\(([^)#:\s]+)\)")
LINK: Final = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")
FOREIGN: Final = re.compile(
    r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=\"?(?:https?:)?//[^>]*"
)


def resolved(source: Path, target: str) -> Path:
    """The file that a link means, from the root of the repository."""
    return Path(os.path.normpath(source.parent / target))


def place(path: Path) -> Path:
    """Where a file of the repository is on the site."""
    return path.relative_to(DOCS) if path.is_relative_to(DOCS) else OUTSIDE / path


def page(source: Path) -> str:
    """A page, its links leading where their files are on the site; a folder is none, so its name remains."""
    here = place(source).parent

    def named(link: re.Match[str]) -> str:
        return link[1] if (ROOT / resolved(source, link[2])).is_dir() else link[0]

    def rewritten(link: re.Match[str]) -> str:
        there = place(resolved(source, link[2]))
        return link[1] + Path(os.path.relpath(there, here)).as_posix() + link[3]

    return LINK.sub(rewritten, FOLDER.sub(named, (ROOT / source).read_text()))


def lay_out(target: Path) -> None:
    """Write all pages, and what they link to, into an empty folder."""
    shutil.rmtree(target, ignore_errors=True)
    pending = {
        path.relative_to(ROOT)
        for path in (ROOT / DOCS).rglob("*.*")
        if path.suffix in {".md", ".svg"}
    }
    written: set[Path] = set()
    while pending:
        source = pending.pop()
        written.add(source)
        copy = target / place(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix != ".md":
            shutil.copy(ROOT / source, copy)
            continue
        copy.write_text(page(source))
        linked = {resolved(source, link[1]) for link in LINK.findall((ROOT / source).read_text())}
        pending |= {path for path in linked - written if (ROOT / path).is_file()}


def requests(site: Path) -> list[str]:
    """What pages of a site that was built would ask other servers for."""
    return [
        f"{path.relative_to(site)}: {found}"
        for path in sorted(site.rglob("*.html"))
        for found in FOREIGN.findall(path.read_text())
    ]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["lay-out", folder]:
            lay_out(Path(folder))
        case ["check", folder]:
            sys.exit("\n".join(requests(Path(folder))) or None)
