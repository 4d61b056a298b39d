"""docs/bench.md, from what was measured. Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stack.cli import standings
from stack.operations.bench import Report
from stack.operations.bench.figures import doubts

from .bars import Bar

__all__ = ["line", "page"]

HEAD = """# Bench

How fast the bundled server is, beside others and behind the same nginx. `make bench` makes this page and its picture
from a run (`tests/bench`); nothing in it is written by hand. To measure an app of yours: `stackctl bench`, in
[commands.md](commands.md).

{place}

A turn is one app server alone with nginx and wrk on this machine: started anew, warmed up, measured for {seconds} s.
Turns go A B C A B C, over and over: {rounds} rounds, and more where the servers lie close together. Figures are medians
over the rounds, and ratios are of medians. Each app server loads the app itself, without what stackctl puts between
others and the app (`--bare`). CPU time is what the kernel accounts to the app server's processes and to nginx's, over
the requests that wrk counted.

![CPU time per request and requests per second](bench.svg)

## Bars

What ours measured over what the other did, so that less is better; of requests/s it is the other's over ours.

| what | beside | measured | bar | better still | |
| --- | --- | --- | --- | --- | --- |
{bars}

Calling the Flask app without a server, in the same Python: {in_process:.1f} us of CPU, the median of calls before each
round of hello-close.

## Measured

`server`, `nginx` and `CPU us` are microseconds of CPU time for each request, MB the proportional memory (PSS) of all
the app server's processes once the load has ended.
"""
MIXED = """
Requests come at random times at 70 % of the rate that uWSGI answers if it gets no rest; 5 % of them sleep for 50 ms.
Two wrks at once: one asks what sleeps, one what does not, over {connections} connections of which each waits a random
while (exponentially distributed) before each request. So it is nearly open: who waits for an answer does not ask
meanwhile. Shown are those that do not sleep; requests/s tell whether all of them came through. What those that sleep
pay for it under the bundled server: [server.md](server.md), "Slow requests among quick ones".
"""
PROFILE = """
## Where the time goes

The bundled server's threads on the raw WSGI callable, one worker, as cProfile sees them on each thread's CPU clock:
functions by the time in themselves, for each of {answered} requests. The profiler makes each call dearer than it is, so
these are shares, not times; "calls" tells how often a request comes by.

| function | calls | us | share |
| --- | --- | --- | --- |
{rows}
"""
ROWS = 25
ROOT = Path(__file__).resolve().parents[2]


def page(reports: Mapping[str, Report], bars: Sequence[Bar], in_process: float, profile: Mapping[str, Any]) -> str:
    """The page, in Markdown."""
    first = next(iter(reports.values()))
    versions = {each.name.partition("-")[0]: each.version for report in reports.values() for each in report.contenders}
    place = ", ".join(
        [f"{name} {value}" for name, value in first.machine.items() if name != "app"]
        + [f"{name} {version}" for name, version in versions.items() if name != "bundled"]
    )
    wanted = first.wanted
    rows = "\n".join(f"| {' | '.join(_cells(each))} |" for each in bars)
    head = HEAD.format(
        place=textwrap.fill(f"{place}.", 120),
        seconds=wanted.seconds,
        rounds=wanted.rounds,
        bars=rows,
        in_process=in_process * 1e6,
    )
    parts = [head, *(_section(name, each) for name, each in reports.items())]
    return "\n".join(parts) + PROFILE.format(answered=profile["answered"], rows="\n".join(_profiled(profile)))


def line(bar: Bar) -> str:
    """A bar for a terminal."""
    what, than, ratio, most, stretch, word = _cells(bar)
    goal = f"<= {most}" if most else f"   ({stretch})"
    return f"{word or '-':15} {ratio}  {goal:8}  {what} (to {than})"


def _cells(bar: Bar) -> tuple[str, ...]:
    word = "missed" if bar.is_missed else "" if bar.most is None else "met"
    if bar.is_stretched:
        word = "better still"
    numbers = (f"{each:.2f}" if each is not None else "" for each in (bar.most, bar.stretch))
    return (bar.what, bar.than, f"{bar.ratio:.2f}", *numbers, word)


def _section(name: str, report: Report) -> str:
    _, _, rest = standings.table(report).partition("\n\n")
    said = f"### {name}\n\n{report.name}; {standings.heading(report)}.\n"
    if name == "mixed":
        said += f"{MIXED.format(connections=report.wanted.connections)}"
    doubted = "".join(f"- {each}\n" for each in doubts(report.series))
    return f"{said}\n```\n{rest}\n```\n" + (f"\nNot quiet enough:\n\n{doubted}" if doubted else "")


def _profiled(profile: Mapping[str, Any]) -> Iterator[str]:
    functions: Iterable[tuple[str, int, float]] = profile["functions"]
    answered = profile["answered"]
    whole = sum(seconds for _, _, seconds in functions)
    for where, calls, seconds in sorted(functions, key=lambda each: -each[2])[:ROWS]:
        each = seconds / answered * 1e6
        yield f"| `{_short(where)}` | {calls / answered:.1f} | {each:.1f} | {seconds / whole:.0%} |"


def _short(where: str) -> str:
    """The file below the repository or the library, and no address in memory."""
    place = re.sub(r" at 0x[0-9a-f]+", "", where.replace(f"{ROOT}/", ""))
    return re.sub(r"^/\S*/(?=python3)", "", place)
