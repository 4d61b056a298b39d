"""The command line: text in, Settings out. Every default has its reason beside it."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from .address import OWNER_ONLY, Address, AddressError, backlog_most, parse


@dataclass(frozen=True, slots=True)
class Settings:
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
    max_body: int = 0  # bytes; 0: no limit, because nginx has one
    static: tuple[tuple[str, str], ...] = ()  # URL path and directory; none, because nginx serves them


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
        backlog=backlog_most(found.backlog),
        socket_mode=found.socket_mode,
        max_body=found.max_body,
        static=tuple(found.static),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stack.wsgi", description="Serve a WSGI app over HTTP/1.1 and uwsgi.")
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
        choices=["auto", "http", "uwsgi"],
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
        "--max-body",
        type=_bytes,
        default=default.max_body,
        metavar="BYTES",
        help="a larger request body is answered 413; 0: no limit (%(default)s)",
    )
    parser.add_argument(
        "--static",
        action="append",
        type=_folder,
        default=[],
        metavar="URL=DIRECTORY",
        help="serve the files below DIRECTORY under the path URL, without the app; may be repeated",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _bytes(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


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


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError(text)
    return number
