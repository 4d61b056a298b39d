"""Lines that programs write to their logs: which matter, and what to do about them, with the setting's name."""

from __future__ import annotations

import re

__all__ = ["SHORT", "hint", "telling"]

SHORT = 30  # lines that people read to their end
TRACEBACK = "Traceback (most recent call last)"

# nginx says who speaks at the line's beginning; what follows the message may be the client's own words.
NGINX = r"^[\d/]+ [\d:]+ \[\w+\] \d+#\d+: (?:\*\d+ )?"
KNOWN = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (
            NGINX + "client intended to send too large body",
            "answered 413. Larger uploads: [site] max_body, then `stackctl reload`",
        ),
        (
            NGINX + r"upstream prematurely closed connection",
            "answered 502: the app server gave this request up, and says why. Time without progress: [server] timeout",
        ),
        (
            NGINX + r"upstream timed out",
            "answered 504: the app server did not answer within [server] timeout",
        ),
        (
            NGINX + r"connect\(\) to unix:\S+ failed \(11: ",
            "answered 502: more requests waited than [server] backlog, or there are too few [server] workers",
        ),
    )
)


def hint(line: str) -> str:
    """What to do about a line that a service wrote; "" if it needs no word of ours."""
    return next((words for pattern, words in KNOWN if pattern.match(line)), "")


def telling(lines: list[str]) -> list[str]:
    """What matters of somebody's last words: if they are many, the first traceback, or else the end.

    gunicorn says the same one for each worker, and one of its own; uWSGI talks a lot about itself.
    """
    if len(lines) <= SHORT:
        return lines
    begins = next((at for at, line in enumerate(lines) if line.startswith(TRACEBACK)), None)
    if begins is None:
        return lines[-SHORT:]
    found = _first(lines[begins:])
    if found[-1].startswith(TRACEBACK):  # two workers say the same at once, line by line
        found = _first(list(dict.fromkeys(lines[begins:])))
    return found[-SHORT:]


def _first(lines: list[str]) -> list[str]:
    """The traceback that begins here, with the line that names the error."""
    ends = next((at for at, line in enumerate(lines) if at and not line.startswith(" ")), len(lines) - 1)
    return lines[: ends + 1]
