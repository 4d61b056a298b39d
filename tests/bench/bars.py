"""What the bundled server is to reach, as ratios of medians of one run: the fewer the better. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from stack.operations.bench import Report
from stack.operations.bench.figures import Series

__all__ = ["Bar", "bars", "one"]

FEW, MANY = 16, 64  # connections
RAW = {"uwsgi": (0.75, 0.60)}
PEERS = {  # the most that a request to Flask may cost, beside that of the peer; and what would be better still
    "uwsgi": (0.95, 0.85),
    "granian": (0.90, 0.80),
    "gunicorn-gthread": (0.50, 0.40),
    "waitress": (0.55, 0.40),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """`ratio` of what ours measured to what `than` did; `most` is the bar, None where there is only a `stretch`."""

    what: str
    than: str
    ratio: float
    most: float | None
    stretch: float | None = None

    @property
    def is_missed(self) -> bool:
        """As it is printed: to two digits."""
        return self.most is not None and round(self.ratio, 2) > self.most

    @property
    def is_stretched(self) -> bool:
        """Whether even that is reached."""
        return self.stretch is not None and round(self.ratio, 2) <= self.stretch


def one(report: Report, server: str, path: str = "") -> Series:
    """The series of that server, at that path or the only one."""
    return next(each for each in report.series if each.server == server and path in ("", each.path))


def bars(reports: Mapping[str, Report], in_process: float) -> Iterator[Bar]:
    """The bars of the workloads that were run. `in_process`: seconds of CPU for a call of the Flask app by itself."""
    for name, found in SECTIONS.items():
        if name in reports:
            yield from found(reports[name])
    if "hello-close" in reports:
        servers = (one(reports["hello-close"], each) for each in ("bundled", "uwsgi"))
        ours, theirs = (each.figures["server_each"].median - in_process for each in servers)
        yield Bar("Flask hello: server CPU above that of the app", "uwsgi", ours / theirs, 0.85, 0.60)


def _compared(says: str, peers: Mapping[str, tuple[float, float]], connections: int, report: Report) -> Iterator[Bar]:
    """At saturation; CPU time for the smaller number of connections only, as it is the same for all."""
    for peer, bar in peers.items():
        if connections == FEW:
            yield Bar(f"{says}: CPU per request", peer, _ratio(report, "both_each", peer), *bar)
        rate = one(report, peer).ratio("per_second", one(report, "bundled"))
        yield Bar(f"{says}, {connections} connections: the other's requests/s", peer, rate, *bar)


def _close(report: Report) -> Iterator[Bar]:
    hop = _ratio(report, "both_each", "uwsgi", "bundled-uwsgi")
    yield Bar("Flask hello, both over uwsgi: CPU per request", "uwsgi", hop, 1.05, 0.95)
    log = _ratio(report, "both_each", "bundled", "bundled-logging")
    yield Bar("Flask hello, with the server's own access log: CPU per request", "bundled without", log, 1.05)


def _bodies(report: Report) -> Iterator[Bar]:
    for path, says in (("/download", "1 MB download"), ("POST /upload", "10 KB upload"), ("/stream", "100 chunks")):
        ratio = _ratio(report, "both_each", "uwsgi", path=path)
        yield Bar(f"{says}: CPU per request", "uwsgi", ratio, 1.0, 0.9)


def _mixed(report: Report) -> Iterator[Bar]:
    peers = [each for each in report.series if each.server != "bundled"]
    best = min(peers, key=lambda each: each.figures["p99"].median)
    ratio = one(report, "bundled").ratio("p99", best)
    yield Bar("mixed load: p99 of those that do not sleep", f"{best.server}, the best", ratio, 1.05, 0.9)


def _memory(report: Report) -> Iterator[Bar]:
    for peer, most in (("uwsgi", 1.1), ("gunicorn-gthread", 0.95)):
        yield Bar("memory, 8 workers", peer, _ratio(report, "memory", peer), most)
    for peer in ("uwsgi", "gunicorn-gthread"):
        ratio = _ratio(report, "memory", peer, "bundled-preload")
        yield Bar("memory, 8 workers, ours with --preload", peer, ratio, None, 0.5)


def _ratio(report: Report, measure: str, peer: str, ours: str = "bundled", path: str = "") -> float:
    return one(report, ours, path).ratio(measure, one(report, peer, path))


SECTIONS: dict[str, Callable[[Report], Iterator[Bar]]] = {
    "raw": partial(_compared, "raw WSGI callable", RAW, FEW),
    "raw-64": partial(_compared, "raw WSGI callable", RAW, MANY),
    "hello": partial(_compared, "Flask hello", PEERS, FEW),
    "hello-close": _close,
    "hello-64": partial(_compared, "Flask hello", PEERS, MANY),
    "mixed": _mixed,
    "bodies": _bodies,
    "memory": _memory,
}
