"""What a bench has measured: a table for a terminal, and JSON for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from stack.cli.show import coloured
from stack.operations.bench import Report
from stack.operations.bench.figures import MEASURES, Figure, Measure, Series, doubts, others

__all__ = ["amount", "as_json", "facts", "heading", "table"]

NAME = 17  # columns of a name; each figure has 9, so that a line has 80
COLUMN = 9
TITLES = {
    "per_second": "req/s",
    "p50": "p50 ms",
    "p99": "p99 ms",
    "server_each": "server",
    "web_each": "nginx",
    "both_each": "CPU us",
    "memory": "MB",
}


def table(report: Report) -> str:
    """For each path a table: two lines for each app server, its medians and how many times the first one's they are."""
    lines = list(facts(report))
    for path, group in groupby(report.series, key=lambda each: each.path):
        found = list(group)
        titles = "".join(f"{TITLES[each.name]:>{COLUMN}}" for each in MEASURES)
        lines += ["", f"{path:{NAME}}{titles}"] if len(path) < NAME else ["", path, f"{'':{NAME}}{titles}"]
        for each in found:
            lines.append(f"{each.server:{NAME}}" + "".join(f"{amount(m, each):>{COLUMN}}" for m in MEASURES))
            if each is not found[0]:
                ratios = "".join(_ratio(m, each, found[0]) for m in MEASURES)
                lines.append(f"{f'  to {found[0].server}':{NAME}}" + ratios)
    return "\n".join(lines)


def amount(measure: Measure, series: Series) -> str:
    """The median, in the measure's unit."""
    value = series.figures[measure.name].median / measure.size
    return f"{value:.0f}" if measure.name == "per_second" else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _ratio(measure: Measure, series: Series, first: Series) -> str:
    """Green where it is better than the first one's, red where it is worse."""
    ratio = series.ratio(measure.name, first)
    text = f"{f'x{ratio:.2f}':>{COLUMN}}"
    if f"{ratio:.2f}" == "1.00":
        return text
    return coloured("32" if (ratio > 1) == measure.more_is_better else "31", text)


def heading(report: Report) -> str:
    """What was done."""
    wanted = report.wanted
    return (
        f"{report.workers} workers of {report.threads} threads, {wanted.connections} connections, "
        f"{wanted.rounds} {'round' if wanted.rounds == 1 else 'rounds'} of {wanted.seconds} s"
    )


def facts(report: Report) -> Iterator[str]:
    """What was measured, with what, and how quiet it was; each a line of at most 80 columns."""
    yield f"{report.name}: {heading(report)}"
    line = ""
    for each in (
        *(f"{each.name} {each.version} ({each.protocol})" for each in report.contenders),
        *(f"{name} {value}" for name, value in report.machine.items()),
    ):
        if line and len(line) + len(each) + 2 > NAME + COLUMN * len(MEASURES):
            yield line
            line = ""
        line += f", {each}" if line else each
    yield line
    apart = max(each.figures[name].spread for each in report.series for name in ("per_second", "both_each"))
    rounds = f"rounds lie up to {apart:.0%} apart; " if report.wanted.rounds > 1 else ""
    yield f"{rounds}other programs had {others(report.series):.0%} of the CPUs"


def as_json(report: Report) -> dict[str, Any]:
    """As JSON types, as docs/commands.md describes them; times in seconds, memory in bytes."""
    wanted = report.wanted
    first = {each.path: each for each in reversed(report.series)}
    return {
        "name": report.name,
        "workers": report.workers,
        "threads": report.threads,
        "connections": wanted.connections,
        "seconds": wanted.seconds,
        "rounds": wanted.rounds,
        "bare": wanted.bare,
        "machine": dict(report.machine),
        "others": round(others(report.series), 4),
        "servers": [
            {"name": each.name, "version": each.version, "protocol": each.protocol} for each in report.contenders
        ],
        "results": [_result(each, first[each.path]) for each in report.series],
        "doubts": list(doubts(report.series)),
    }


def _result(series: Series, first: Series) -> dict[str, Any]:
    return {
        "server": series.server,
        "path": series.path,
        "requests": sum(each.requests for each in series.turns),
        **{
            name: _figure(figure, series.ratio(name, first), [getattr(turn, name) for turn in series.turns])
            for name, figure in series.figures.items()
        },
    }


def _figure(figure: Figure, ratio: float, rounds: list[float]) -> dict[str, Any]:
    return {
        "median": _rounded(figure.median),
        "spread": round(figure.spread, 4),
        "ratio": round(ratio, 4),
        "rounds": [_rounded(each) for each in rounds],
    }


def _rounded(value: float) -> float:
    """To 6 digits that count: no more is known."""
    return float(f"{value:.6g}")
