"""The documents, and the commands in them."""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(str(file.relative_to(ROOT)) for file in ROOT.glob("docs/*.md")))
_BLOCK = re.compile(r"^( *)(?:<!-- run by (\S+) -->\n *)?```(\w*)\n(.*?)\n *```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        where: its page and line, such as README.md:12.
        language: what stands behind its fence.
        text: what is in it.
        run_by: what runs it in the place of tests/live/test_docs.py; empty where that does.
    """

    where: str
    language: str
    text: str
    run_by: str


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """All of a page, in order."""
    whole = text(page)
    return [
        Block(
            f"{page}:{whole.count(chr(10), 0, found.start(3)) + 1}", found[3], textwrap.dedent(found[4]), found[2] or ""
        )
        for found in _BLOCK.finditer(whole)
    ]


def commands(page: str) -> list[Block]:
    """Those of a shell."""
    return [block for block in blocks(page) if block.language == "sh"]
