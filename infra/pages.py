"""Pages for errors that NGINX itself answers with, and for maintenance: HTML for people, JSON for programs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

MAINTENANCE = "maintenance"
MAX_SIZE = 64  # KiB of one; they stand in the stack's state
# https://nginx.org/en/docs/http/ngx_http_ssi_module.html
REQUEST_ID = '<!--# echo var="request_key" -->'


class Page(NamedTuple):
    """What an error is to the one who sees it."""

    status: int
    title: str
    text: str


PAGES = {
    "413": Page(413, "Too large", "What you sent is larger than this site takes."),
    "429": Page(429, "Too many requests", "You asked more often than this site allows. Wait a moment, then try again."),
    "502": Page(502, "No answer", "The application behind this site does not answer. Try again in a moment."),
    "503": Page(503, "Not available", "This site takes no requests right now. Try again in a moment."),
    "504": Page(
        504,
        "No answer in time",
        "The application behind this site took too long. It may have done what you asked for all the same: look before "
        "you try again.",
    ),
    MAINTENANCE: Page(503, "Maintenance", "We are working on this site. It will be back soon."),
}


def files(own: str, html: Callable[[Page], str]) -> dict[str, str]:
    """The pages as files beside the configuration: texts by name.

    Args:
        own: a folder whose pages take the place of those that come with the stack; may be empty.
        html: renders one of the latter.
    """
    found = {}
    for name, page in PAGES.items():
        replacement = Path(own) / f"{name}.html"
        replaced = own and replacement.exists()
        found[f"pages/{name}.html"] = replacement.read_text("utf-8") if replaced else html(page)
        error = json.dumps(page.title)
        found[f"pages/{name}.json"] = f'{{"status":{page.status},"error":{error},"request_id":"{REQUEST_ID}"}}\n'
    return found


def by_status(*, maintenance: bool) -> dict[int, str]:
    """The names of the pages by the status that each is for."""
    names = {page.status: name for name, page in PAGES.items() if name != MAINTENANCE}
    return names | ({PAGES[MAINTENANCE].status: MAINTENANCE} if maintenance else {})


def check(folder: Path) -> None:
    """Looks whether all in `folder` can be pages.

    Raises:
        ValueError: it cannot; the message says why.
    """
    known = [f"{name}.html" for name in PAGES]
    present = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    for path in present:
        if path.name not in known:
            raise ValueError(f"holds {path.name}, which is no page; known are {', '.join(known)}")
        try:
            size = len(path.read_text("utf-8").encode())
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"holds {path.name}, which is no text in UTF-8: {error}") from None
        if size > MAX_SIZE * 1024:
            raise ValueError(f"holds {path.name} of more than {MAX_SIZE} KiB")
    if not present:
        raise ValueError(f"should hold a page; known are {', '.join(known)}")
