"""What the turns of a bench come to: medians, how far they lie apart, ratios. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["MEASURES", "Figure", "Measure", "Series", "Turn", "doubts", "others", "series"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One app server under load for a while. Times in seconds, `memory` in bytes (PSS, once the load has ended).

    `server_cpu` and `web_cpu` are what the processes of the app server and of the web server used meanwhile; `others`
    the share of the machine's CPUs that went to nobody of the bench.
    """

    server: str
    path: str
    requests: int
    seconds: float
    p50: float
    p99: float
    server_cpu: float
    web_cpu: float
    memory: int
    others: float

    @property
    def per_second(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    @property
    def server_each(self) -> float:
        """Seconds of CPU that the app server used for a request."""
        return self.server_cpu / self.requests

    @property
    def web_each(self) -> float:
        """The same of the web server."""
        return self.web_cpu / self.requests

    @property
    def both_each(self) -> float:
        """The same of both."""
        return self.server_each + self.web_each


@dataclass(frozen=True, slots=True)
class Measure:
    """What is looked at: a property of `Turn`; how it is called, in which unit, and what a unit is of `Turn`'s."""

    name: str
    title: str
    unit: str
    size: float
    more_is_better: bool = False


MEASURES = (
    Measure("per_second", "requests/s", "/s", 1, more_is_better=True),
    Measure("p50", "p50", "ms", 1e-3),
    Measure("p99", "p99", "ms", 1e-3),
    Measure("server_each", "server CPU per request", "us", 1e-6),
    Measure("web_each", "nginx CPU per request", "us", 1e-6),
    Measure("both_each", "CPU per request", "us", 1e-6),
    Measure("memory", "memory", "MB", 1024**2),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A measure over all rounds: its median; `spread`, from the least to the most, as a share of the median."""

    median: float
    least: float
    most: float

    @property
    def spread(self) -> float:
        """How far the rounds lie apart."""
        return (self.most - self.least) / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True)
class Series:
    """The turns of one app server at one path, a round each, and their figures by the names of the measures."""

    server: str
    path: str
    turns: tuple[Turn, ...]
    figures: dict[str, Figure]

    def ratio(self, name: str, to: Series) -> float:
        """Of the medians."""
        other = to.figures[name].median
        return self.figures[name].median / other if other else 0.0


def series(turns: Sequence[Turn]) -> tuple[Series, ...]:
    """The turns put together: path by path, the app servers in the order in which they came."""
    keys = dict.fromkeys((each.path, each.server) for each in turns)
    paths = list(dict.fromkeys(path for path, _ in keys))
    found = []
    for path, server in sorted(keys, key=lambda key: paths.index(key[0])):  # stable: the servers keep their order
        own = tuple(each for each in turns if (each.path, each.server) == (path, server))
        found.append(Series(server, path, own, {each.name: _figure(own, each.name) for each in MEASURES}))
    return tuple(found)


def _figure(turns: Sequence[Turn], name: str) -> Figure:
    values = [float(getattr(each, name)) for each in turns]
    return Figure(median(values), min(values), max(values))


SPREAD_MOST = 0.15
"""Of requests/s or of CPU per request: beyond it a difference of some percent means nothing."""
OTHERS_MOST = 0.10
"""Of the machine's CPUs."""
ROUNDS_LEAST = 3
"""With fewer, the median is no better than its worst round."""


def others(found: Sequence[Series]) -> float:
    """The share of the machine's CPUs that other programs had, in the median turn."""
    return median(turn.others for each in found for turn in each.turns)


def doubts(found: Sequence[Series]) -> Iterator[str]:
    """Why not to believe it, if there is a reason."""
    if any(len(each.turns) < ROUNDS_LEAST for each in found):
        yield f"fewer than {ROUNDS_LEAST} rounds: how far they lie apart is not known"
    if others(found) > OTHERS_MOST:
        yield f"other programs had {others(found):.0%} of this machine's CPUs meanwhile"
    for each in found:
        for measure in MEASURES:
            spread = each.figures[measure.name].spread
            if measure.name in ("per_second", "both_each") and spread > SPREAD_MOST:
                yield f"{each.server} at {each.path}: {measure.title} lies {spread:.0%} apart from round to round"
