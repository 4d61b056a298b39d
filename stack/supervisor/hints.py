"""Lines that programs write to their logs, and what to do about them in our own words, with the setting's name."""

from __future__ import annotations

import re

__all__ = ["hint"]

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
