"""CGI variables (RFC 3875 4.1), as uwsgi, FastCGI and SCGI carry them: which pass, and the length of the body."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .http import LENGTH
from .protocol import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable

_DROPPED = frozenset({"HTTP_PROXY", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"})
_known: dict[str, bool] = {}


def passed(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The variables that an app may see. A repeated header is joined; of anything else, the last counts.

    Dropped: `UWSGI_*` (uWSGI loads files at their word), whatever has not the form of a CGI variable (`wsgi.input`),
    HTTP_PROXY (CVE-2016-5385), and the twins HTTP_CONTENT_TYPE, HTTP_CONTENT_LENGTH and HTTP_TRANSFER_ENCODING.
    """
    found: dict[str, str] = {}
    get = _known.get
    for name, value in pairs:
        known = get(name)
        if known is None:
            known = _know(name)
        if known:
            if name in found and name.startswith("HTTP_"):
                found[name] += ("; " if name == "HTTP_COOKIE" else ",") + value
            else:
                found[name] = value
    return found


def length(found: dict[str, str]) -> int | None:
    """The size of the body, in bytes. None if there is no CONTENT_LENGTH, or an empty one.

    Raises:
        ProtocolError: 400, it is not a number.
    """
    text = found.get("CONTENT_LENGTH")
    if not text:
        return None
    if not LENGTH.fullmatch(text):
        raise ProtocolError(400, "a malformed CONTENT_LENGTH")
    return int(text)


def _know(name: str) -> bool:
    """Whether a variable is passed on: capital letters, digits, underscores, and none of the dropped."""
    plain = name.isascii() and name.replace("_", "A").isalnum() and name == name.upper()
    known = plain and name not in _DROPPED and not name.startswith("UWSGI_")
    if len(_known) < 1024:  # header names come from clients: no more than can be honest
        _known[name] = known
    return known
