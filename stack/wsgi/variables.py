"""CGI variables (RFC 3875 4.1), as uwsgi, FastCGI and SCGI carry them: which pass, and the length of the body."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .http import LENGTH
from .protocol import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

_DROPPED = frozenset({"HTTP_PROXY", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"})
_passing: set[str] = set()  # names that have been looked at


def passed(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The variables that an app may see. A repeated header is joined; of anything else, the last counts.

    Dropped: `UWSGI_*` (uWSGI loads files at their word), whatever has not the form of a CGI variable (`wsgi.input`),
    HTTP_PROXY (CVE-2016-5385), and the twins HTTP_CONTENT_TYPE, HTTP_CONTENT_LENGTH and HTTP_TRANSFER_ENCODING.
    """
    found = dict(pairs)
    if len(found) == len(pairs) and found.keys() <= _passing:  # as most are: a third of the time
        return found
    found = {}
    for name, value in pairs:
        if name not in _passing and not _passes(name):
            continue
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


def _passes(name: str) -> bool:
    """Whether a variable is passed on: capital letters, digits, underscores, and none of the dropped."""
    plain = name.isascii() and name.replace("_", "A").isalnum() and name == name.upper()
    passes = plain and name not in _DROPPED and not name.startswith("UWSGI_")
    if passes and len(_passing) < 1024:  # header names come from clients: no more than can be honest
        _passing.add(name)
    return passes
