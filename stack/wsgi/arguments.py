"""The command line: text in, Settings out. Every default has its reason beside it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import NamedTuple

from . import access
from .address import OWNER_ONLY, Address, AddressError, parse
from .connection import HEAD_WITHIN
from .http import HEAD_LIMIT
from .peers import NOBODY, UNIX, Peers, peers
from .protocol import Protocol

MOST_HEAD = 1 << 20  # bytes
WIDTH = 80  # columns of --help


class Settings(NamedTuple):
    """What the server was asked to do. Durations are seconds."""

    app: str
    addresses: tuple[Address, ...]
    workers: int = 2  # one more than one: a request that holds the interpreter's lock does not stop all others
    threads: int = 4  # most requests wait for a database or another service
    timeout: float = 60.0  # as long as nginx waits for an answer by default; 0: for ever
    stop_within: float = 30.0  # less than the 90 s after which systemd kills
    pythonpath: tuple[str, ...] = ()
    protocol: str = "auto"
    backlog: int = 2048  # connections that wait in the kernel; it allows no more than its somaxconn
    socket_mode: int = OWNER_ONLY  # the web server mostly runs as the same user
    max_head: int = HEAD_LIMIT  # bytes: what a uwsgi packet holds, and twice what nginx lets in by default
    head_within: float = HEAD_WITHIN  # heads come at once, but over the worst of lines; it costs no thread
    max_body: int = 0  # bytes; 0: no limit, because nginx has one
    forwarded_from: Peers = NOBODY  # a client's own X-Forwarded-For must not become its address
    static: tuple[tuple[str, str], ...] = ()  # URL path and directory; none, because nginx serves them
    access_log: str = ""  # a file, or - for stdout; none, because nginx has one
    access_format: str = "combined"  # what nginx and Apache write unless told otherwise, so that tools know it
    log_file: str = ""  # stderr, which whoever starts a server collects
    max_requests: int = 0  # requests after which a worker is replaced; 0: never, for it would only hide a leak
    max_requests_jitter: int = 0  # so many more at most, by chance, so that not all workers are due at once
    max_memory: int = 0  # bytes of memory above which a worker is replaced; 0: never, for the same reason
    state: str = ""  # a socket that tells the state; none: only those who ask for it need it
    preload: bool = False  # apps may open connections and start threads on import, and neither survives a fork
    preload_anyway: bool = False


def settings(arguments: list[str]) -> Settings:
    """The settings that these arguments mean; exits with 2 and a message where they mean none."""
    parser = _parser()
    found = parser.parse_args(arguments)
    module, colon, name = found.app.partition(":")
    if not module or not colon or not name:
        parser.error(f"MODULE:CALLABLE wanted, as in wsgi:app, not: {found.app}")
    try:
        addresses = tuple(parse(each) for each in found.bind)
    except AddressError as error:
        parser.error(str(error))
    return Settings(
        app=found.app,
        addresses=addresses,
        workers=found.workers,
        threads=found.threads,
        timeout=found.timeout,
        stop_within=found.stop_within,
        pythonpath=tuple(found.pythonpath),
        protocol=found.protocol,
        backlog=found.backlog,
        socket_mode=found.socket_mode,
        max_head=found.max_head,
        head_within=found.head_within,
        max_body=found.max_body,
        forwarded_from=peers(found.forwarded_from),
        static=tuple(found.static),
        access_log=found.access_log,
        access_format=found.access_format,
        log_file=found.log_file,
        max_requests=found.max_requests,
        max_requests_jitter=found.max_requests_jitter,
        max_memory=found.max_memory,
        state=found.state,
        preload=found.preload or found.preload_anyway,
        preload_anyway=found.preload_anyway,
    )


def _help(prog: str) -> argparse.HelpFormatter:
    """Of a width: to find out the terminal's, argparse would load what packs archives, at each start of the server."""
    return argparse.HelpFormatter(prog, width=WIDTH)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stack.wsgi",
        description="Serve a WSGI app over HTTP/1.1, uwsgi, FastCGI and SCGI.",
        formatter_class=_help,
    )
    default = Settings("", ())
    parser.add_argument("app", metavar="MODULE:CALLABLE", help="where the app is, as in wsgi:app")
    parser.add_argument(
        "--bind",
        action="append",
        required=True,
        metavar="ADDRESS",
        help="unix:PATH, HOST:PORT, [IPV6]:PORT or fd://N; may be repeated",
    )
    parser.add_argument(
        "--workers", type=_positive, default=default.workers, metavar="N", help="processes (%(default)s)"
    )
    parser.add_argument("--threads", type=_positive, default=default.threads, metavar="N", help="of each (%(default)s)")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=default.timeout,
        metavar="S",
        help="seconds that a request may go without reading or sending anything; then its stack is "
        "logged and its worker replaced; 0: no limit (%(default)g)",
    )
    parser.add_argument(
        "--stop-within",
        type=_seconds,
        default=default.stop_within,
        metavar="S",
        help="seconds that requests in hand may take after SIGTERM (%(default)g)",
    )
    parser.add_argument(
        "--pythonpath", action="append", default=[], metavar="DIR", help="to import from first; may be repeated"
    )
    parser.add_argument(
        "--protocol",
        choices=["auto", *(each.value for each in Protocol)],
        default=default.protocol,
        help="auto: on unix sockets by a connection's first byte, on TCP HTTP only (%(default)s)",
    )
    parser.add_argument(
        "--backlog",
        type=_positive,
        default=default.backlog,
        metavar="N",
        help="connections that may queue (%(default)s)",
    )
    parser.add_argument(
        "--socket-mode",
        type=_mode,
        default=default.socket_mode,
        metavar="MODE",
        help=f"permissions of the unix sockets that are made, in octal, none of them for others ({OWNER_ONLY:o})",
    )
    parser.add_argument(
        "--forwarded-from",
        action="append",
        type=_peer,
        default=[],
        metavar="PEER",
        help="whose X-Forwarded-For and -Proto are believed, beside those on unix sockets that keep others out: an "
        "address, a network (10.0.0.0/8), or unix, for an inherited unix socket that is open to all; may be repeated",
    )
    parser.add_argument(
        "--static",
        action="append",
        type=_folder,
        default=[],
        metavar="URL=DIRECTORY",
        help="serve the files below DIRECTORY under the path URL, without the app; may be repeated",
    )
    _add_limits(parser, default)
    _add_logs(parser, default)
    _add_replacing(parser, default)
    return parser


def _add_limits(parser: argparse.ArgumentParser, default: Settings) -> None:
    parser.add_argument(
        "--max-head",
        type=_head,
        default=default.max_head,
        metavar="BYTES",
        help="a larger request head is answered 431, or 414 if the request line alone is (%(default)s)",
    )
    parser.add_argument(
        "--head-within",
        type=_some_seconds,
        default=default.head_within,
        metavar="S",
        help="seconds until a request's head must be complete; then it is answered 408 (%(default)g)",
    )
    parser.add_argument(
        "--max-body",
        type=_bytes,
        default=default.max_body,
        metavar="BYTES",
        help="a larger request body is answered 413; 0: no limit (%(default)s)",
    )


def _add_logs(parser: argparse.ArgumentParser, default: Settings) -> None:
    parser.add_argument(
        "--access-log", default=default.access_log, metavar="PATH", help="a line for each request; -: to stdout (none)"
    )
    parser.add_argument(
        "--access-format",
        choices=access.FORMATS,
        default=default.access_format,
        help="how those lines look (%(default)s)",
    )
    parser.add_argument(
        "--log-file",
        default=default.log_file,
        metavar="PATH",
        help="errors, instead of to stderr; as the access log opened again on SIGUSR1",
    )
    parser.add_argument(
        "--state",
        default=default.state,
        metavar="PATH",
        help="a unix socket, the owner's, that tells what the workers do, as JSON: python -m stack.wsgi.status PATH",
    )


def _add_replacing(parser: argparse.ArgumentParser, default: Settings) -> None:
    parser.add_argument(
        "--max-requests",
        type=_bytes,
        default=default.max_requests,
        metavar="N",
        help="a worker that has had so many is replaced; 0: never (%(default)s)",
    )
    parser.add_argument(
        "--max-requests-jitter",
        type=_bytes,
        default=default.max_requests_jitter,
        metavar="N",
        help="up to so many more, by chance (%(default)s)",
    )
    parser.add_argument(
        "--max-memory",
        type=_size,
        default=default.max_memory,
        metavar="SIZE",
        help="a worker that has more memory (RSS) is replaced: 500m, 2g or bytes; 0: never (%(default)s)",
    )
    parser.add_argument(
        "--preload",
        action="store_true",
        help="load the app once, before the workers are forked, so that they share its memory; refused where the app "
        "has started threads or opened connections by then",
    )
    parser.add_argument("--preload-anyway", action="store_true", help="the same, and only say what would be refused")


def _peer(text: str) -> str:
    try:
        peers([text])
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"an address, a network, or {UNIX} wanted: {error}") from None
    return text


def _positive(text: str) -> int:
    return _number(text, 1)


def _bytes(text: str) -> int:
    return _number(text, 0)


def _head(text: str) -> int:
    """A size of heads: one that requests fit into, and that does not hurt where many of them arrive at once."""
    number = _number(text, 1024)
    if number > MOST_HEAD:
        raise argparse.ArgumentTypeError(f"{text} is more than {MOST_HEAD}, which no client sends")
    return number


def _number(text: str, least: int) -> int:
    if not re.fullmatch("[0-9]{1,18}", text) or int(text) < least:
        raise argparse.ArgumentTypeError(f"a whole number from {least} on wanted, not: {text}")
    return int(text)


def _size(text: str) -> int:
    """Bytes, as in 500m."""
    found = re.fullmatch(r"([0-9]+)([kmg]?)", text.lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"a size wanted, as in 500m, 2g or 1048576, not: {text}")
    return int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[found[2]]


def _mode(text: str) -> int:
    """Permissions, in octal."""
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise argparse.ArgumentTypeError(f"permissions in octal wanted, as in 660, not: {text}")
    mode = int(text, 8)
    if mode & 0o007:
        raise argparse.ArgumentTypeError(f"{text} lets everybody on this machine in; 660 lets a group in")
    if mode & OWNER_ONLY != OWNER_ONLY:
        raise argparse.ArgumentTypeError(f"{text} keeps out even the socket's owner")
    return mode


def _folder(text: str) -> tuple[str, str]:
    """A URL path without its last slash, and a directory. It need not exist: its files are then 404."""
    url, equals, directory = text.partition("=")
    url = url.rstrip("/")
    parts = url.split("/")
    if not equals or not directory or parts[0] or len(parts) < 2 or not {"", ".", ".."}.isdisjoint(parts[1:]):
        raise argparse.ArgumentTypeError(f"URL=DIRECTORY wanted, as in /static=shop/static, not: {text}")
    return url, str(Path(directory).absolute())


def _some_seconds(text: str) -> float:
    if not _seconds(text):
        raise argparse.ArgumentTypeError(f"more than no seconds wanted, not: {text}")
    return _seconds(text)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"seconds wanted, as in 30 or 0.5, not: {text}")
    return number
