"""The code blocks of a page, in order."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]*)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One block.

    Attributes:
        title: The file it is the content of, or the terminal it is typed in; often empty.
    """

    language: str
    title: str
    text: str


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page, all or those of some languages."""
    found = FENCE.finditer(page.read_text())
    every = [Block(each["language"], each["title"] or "", each["text"]) for each in found]
    return [block for block in every if not languages or block.language in languages]
