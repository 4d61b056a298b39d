"""Files below a directory, served in front of the app and without it: a WSGI app around another (PEP 3333).

A request path below a URL (`/static/...`; not `/static` itself) is a file of its directory, as in a `location` of
nginx with an `alias`: what is missing is 404 and never asked of the app, the longest URL wins, symbolic links are
followed wherever they lead, and ETag and types are nginx's, so that a client's cache stays good when the web server
changes. GET and HEAD only. A directory is 404: there are no listings and no index files.

Nothing outside is reached but by those links: the path is taken as it is after percent-decoding, and one with a part
`.` or `..`, or a NUL, is 404 rather than resolved. A backslash is a letter like others.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from calendar import timegm
from email.utils import parsedate
from io import FileIO
from typing import TYPE_CHECKING, Any

from .dates import http_date

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .environ import Environ
    from .response import Headers

OTHER_TYPE = "application/octet-stream"
TYPES = {
    "avif": "image/avif",
    "css": "text/css",
    "csv": "text/csv",
    "gif": "image/gif",
    "gz": "application/gzip",
    "htm": "text/html",
    "html": "text/html",
    "ico": "image/x-icon",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "js": "text/javascript",
    "json": "application/json",
    "m4v": "video/mp4",
    "map": "application/json",
    "md": "text/markdown",
    "mjs": "text/javascript",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "oga": "audio/ogg",
    "ogg": "audio/ogg",
    "otf": "font/otf",
    "pdf": "application/pdf",
    "png": "image/png",
    "svg": "image/svg+xml",
    "svgz": "image/svg+xml",
    "ttf": "font/ttf",
    "txt": "text/plain",
    "wasm": "application/wasm",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webmanifest": "application/manifest+json",
    "webp": "image/webp",
    "woff": "font/woff",
    "woff2": "font/woff2",
    "xml": "application/xml",
    "zip": "application/zip",
}

# RFC 9110 14.1.2: ranges-specifier = "bytes=" range-set, of which one range is understood: int-range or suffix-range
RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)
# RFC 9110 8.8.3: entity-tag = [ "W/" ] DQUOTE *etagc DQUOTE
ENTITY_TAG = re.compile(r'(W/)?("[!\x23-\x7e\x80-\xff]*")')


class Static:
    """Serves files of some directories, and asks the app for the rest. `folders`: URL path and directory of each."""

    def __init__(self, app: Callable[..., Any], folders: Sequence[tuple[str, str]]) -> None:
        self._app = app
        found = [(f"{url}/".encode().decode("latin-1"), os.fsencode(directory)) for url, directory in folders]
        self._folders = sorted(found, key=lambda each: len(each[0]), reverse=True)

    def __call__(self, environ: Environ, start_response: Callable[..., object]) -> Iterable[bytes]:
        """Answer from a folder, or as the app does."""
        path = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
        for prefix, directory in self._folders:
            if path.startswith(prefix):
                return _served(environ, start_response, directory, path[len(prefix) :])
        return self._app(environ, start_response)  # type: ignore[no-any-return]


class _Refused(Exception):  # noqa: N818 - an answer, not a failure of the server
    """A file that is not served, and the status that says so."""

    def __init__(self, status: str, *headers: tuple[str, str]) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers


def _served(environ: Environ, start_response: Callable[..., object], directory: bytes, name: str) -> Iterable[bytes]:
    """The answer to a request for the file of this name."""
    try:
        _check(environ["REQUEST_METHOD"])
        file = _opened(directory, name.encode("latin-1"))
        try:
            status, headers, body = _selected(environ, file, name)
        except BaseException:
            file.close()
            raise
    except _Refused as refused:
        text = f"{refused.status.partition(' ')[2]}\n".encode()
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text))), *refused.headers]
        start_response(refused.status, headers)
        return [text]
    start_response(status, headers)
    if body:
        return environ["wsgi.file_wrapper"](file)  # type: ignore[no-any-return]
    file.close()
    return []


def _check(method: str) -> None:
    """Refuse what files do not know.

    Raises:
        _Refused: 405.
    """
    if method not in {"GET", "HEAD"}:
        raise _Refused("405 Method Not Allowed", ("Allow", "GET, HEAD"))


def _opened(directory: bytes, name: bytes) -> FileIO:
    """The file of this name below the directory.

    Raises:
        _Refused: there is none, it is no regular file, or it may not be read.
    """
    parts = name.split(b"/")
    if b"\0" in name or b".." in parts or b"." in parts:
        raise _Refused("404 Not Found")
    try:
        # Not blocking: opening a FIFO would wait for its writer.
        fd = os.open(directory + b"/" + name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except PermissionError:
        raise _Refused("403 Forbidden") from None
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO}:
            raise _Refused("404 Not Found") from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _Refused("404 Not Found")
    return FileIO(fd)


def _selected(environ: Environ, file: FileIO, name: str) -> tuple[str, Headers, bool]:
    """Status, headers, and whether the file follows, from its position on.

    Raises:
        _Refused: 412 or 416.
    """
    status = os.fstat(file.fileno())
    size, modified = status.st_size, status.st_mtime_ns // 1_000_000_000
    tag = f'"{modified:x}-{size:x}"'
    date = http_date(modified)
    headers = [("Last-Modified", date), ("ETag", tag)]
    if not _wanted(environ, tag, modified):
        return "304 Not Modified", headers, False
    headers.append(("Content-Type", _type(name)))
    part = _part(environ, size, tag, date)
    if part is None:
        return "200 OK", [*headers, ("Content-Length", str(size)), ("Accept-Ranges", "bytes")], True
    first, last = part
    file.seek(first)
    length = ("Content-Length", str(last - first + 1))
    return "206 Partial Content", [*headers, ("Content-Range", f"bytes {first}-{last}/{size}"), length], True


def _type(name: str) -> str:
    """The media type by the name's extension; `.profile` has none."""
    stem, _, extension = name.rpartition("/")[2].rpartition(".")
    return TYPES.get(extension.lower(), OTHER_TYPE) if stem else OTHER_TYPE


def _wanted(environ: Environ, tag: str, modified: int) -> bool:
    """RFC 9110 13.2.2: whether the client wants the file, or has it already.

    Raises:
        _Refused: 412, it is not the file that the client means.
    """
    match, none_match = environ.get("HTTP_IF_MATCH"), environ.get("HTTP_IF_NONE_MATCH")
    if match is not None:
        if match != "*" and not any(not weak and each == tag for weak, each in ENTITY_TAG.findall(match)):
            raise _Refused("412 Precondition Failed")
    else:
        unless = _moment(environ.get("HTTP_IF_UNMODIFIED_SINCE"))
        if unless is not None and modified > unless:
            raise _Refused("412 Precondition Failed")
    if none_match is not None:
        return none_match != "*" and all(each != tag for _, each in ENTITY_TAG.findall(none_match))
    since = _moment(environ.get("HTTP_IF_MODIFIED_SINCE"))
    return since is None or modified > since


def _moment(text: str | None) -> int | None:
    """The seconds since 1970 of an HTTP date (RFC 9110 5.6.7); None of what is none, which is to be ignored."""
    try:
        parsed = parsedate(text) if text is not None else None
        return timegm(parsed) if parsed is not None else None
    except (ValueError, OverflowError, IndexError):
        return None


def _part(environ: Environ, size: int, tag: str, date: str) -> tuple[int, int] | None:
    """The first and last byte that the client wants; None if it wants all, or what is not understood (several parts).

    Raises:
        _Refused: 416, the file has no such part (RFC 9110 15.5.17).
    """
    found = RANGE.fullmatch(environ.get("HTTP_RANGE", ""))
    if found is None or environ["REQUEST_METHOD"] != "GET":  # RFC 9110 14.2: defined for GET only
        return None
    if environ.get("HTTP_IF_RANGE", tag) not in {tag, date}:  # RFC 9110 13.1.5: the strong comparison
        return None
    first, last = found.groups()
    if not first:
        if not last or (int(last) and not size):
            return None
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last or size), size - 1)
        if last and int(last) < start:
            return None
    if start >= size:
        raise _Refused("416 Range Not Satisfiable", ("Content-Range", f"bytes */{size}"))
    return start, end
