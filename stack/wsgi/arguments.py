"""The command line: text in, Settings out. Every default has its reason beside it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from .address import Address, AddressError, backlog_most, parse


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
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError(text)
    return number
