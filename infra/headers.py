"""Headers of answers that NGINX adds where the app does not set them: which, and which it must not."""

import re
from collections.abc import Mapping

# What is safe for a site that nobody has looked at, of the list of OWASP's Secure Headers Project:
# https://owasp.org/www-project-secure-headers/ci/headers_add.json. A site may be framed by itself, and says to others
# which site its visitors come from, as https://cheatsheetseries.owasp.org/cheatsheets/HTTP_Headers_Cheat_Sheet.html has
# it. Left out is what only the app can know: where its scripts, styles and images come from (Content-Security-Policy,
# Cross-Origin-Embedder-Policy), and whether other sites may show them (Cross-Origin-Resource-Policy).
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), hid=(), microphone=(), midi=(), payment=(), "
    "serial=(), usb=()",
    "X-Permitted-Cross-Domain-Policies": "none",
}

MAX_NAME = 100  # characters
MAX_VALUE = 4000  # characters of one as it stands in NGINX's configuration, where 4,096 are too many

# https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
_OF_A_CONNECTION = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authentication-info", "proxy-authorization"),
    *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
}
_OF_ONE_ANSWER = {
    *("accept-ranges", "age", "allow", "content-encoding", "content-length", "content-location", "content-range"),
    *("content-type", "date", "etag", "last-modified", "location", "retry-after", "server", "set-cookie", "status"),
    *("vary", "www-authenticate"),
}
_OF_THE_STACK = {
    "strict-transport-security": "is said with tls.hsts",
    "x-cache": "is NGINX's own",
    "x-request-id": "is NGINX's own",
}


def check(name: str, value: str) -> None:
    """Looks at a header that somebody wants added to all answers.

    Raises:
        ValueError: it is none, or answers do not all have the same.
    """
    # Hyphens, and no underscores, in which two names would look alike to NGINX ($upstream_http_…).
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*", name) or len(name) > MAX_NAME:
        raise ValueError(f"{name!r} is no header's name: letters, digits and single hyphens are, up to {MAX_NAME}")
    known = name.lower()
    if known in _OF_A_CONNECTION:
        raise ValueError(f"the header {name} is of one connection, which is NGINX's to say")
    if known in _OF_ONE_ANSWER or known.startswith("x-accel-"):
        raise ValueError(f"the header {name} is of one answer, and cannot be the same in all")
    if known in _OF_THE_STACK:
        raise ValueError(f"the header {name} {_OF_THE_STACK[known]}")
    # https://www.rfc-editor.org/rfc/rfc9110#section-5.5
    if not re.fullmatch(r"[ -~]*", value) or value != value.strip():
        raise ValueError(f"the value of {name} should have printable ASCII characters alone, and no space at its ends")
    if len(quoted(value)) > MAX_VALUE:
        raise ValueError(f"the value of {name} is too long: NGINX takes some {MAX_VALUE} characters")


def added(*, security: bool, own: Mapping[str, str]) -> dict[str, str]:
    """Values by name; one that is empty takes a header of `SECURITY` away."""
    names = {name.lower(): name for name in (*SECURITY, *own)}
    values = {name.lower(): value for name, value in SECURITY.items() if security}
    values |= {name.lower(): value for name, value in own.items()}
    return {names[known]: value for known, value in values.items() if value}


def quoted(value: str) -> str:
    """A value as NGINX's configuration takes it to be itself; `$dollar` has what cannot be escaped there."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("$", "${dollar}") + '"'
