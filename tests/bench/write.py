"""`make bench`: runs the workloads, says which bars are met, writes docs/bench.md and its picture.

BENCH_SECONDS and BENCH_ROUNDS say how long; BENCH_ONLY names workloads, and then nothing is written.
"""

# ruff: noqa: T201

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from stack.cli import picture, standings  # noqa: E402 - it is found only now
from stack.operations.bench import Report  # noqa: E402
from stack.operations.bench.figures import doubts  # noqa: E402
from tests.bench.bars import bars  # noqa: E402
from tests.bench.page import line, page  # noqa: E402
from tests.bench.workloads import CLOSE, WORKLOADS, in_process, profile  # noqa: E402

PAGE, PICTURE = ROOT / "docs" / "bench.md", ROOT / "docs" / "bench.svg"
DRAWN = ("raw", "hello", "bodies")


def _whole(name: str, usual: int) -> int:
    """The number that a variable of the environment tells."""
    told = os.environ.get(name) or str(usual)
    if not told.isdecimal() or not int(told):
        raise ValueError(f"{name}: {told!r} is not a whole number from 1 on")
    return int(told)


def main() -> int:
    """Measures; 1 if a bar is missed."""
    try:
        seconds, rounds = _whole("BENCH_SECONDS", 3), _whole("BENCH_ROUNDS", 5)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    only = os.environ.get("BENCH_ONLY", "").replace(",", " ").split()
    if unknown := [each for each in only if each not in WORKLOADS]:
        print(f"BENCH_ONLY: there is no {unknown[0]}, but {', '.join(WORKLOADS)}", file=sys.stderr)
        return 2
    began = time.monotonic()
    reports: dict[str, Report] = {}
    calls: list[float] = []
    for name in only or WORKLOADS:
        say(f"{name}:")
        between = (lambda: calls.append(in_process())) if name == CLOSE else (lambda: None)
        reports[name] = WORKLOADS[name].run(seconds, rounds, say, between)
        print(f"\n{standings.table(reports[name])}", flush=True)
        for each in doubts(reports[name].series):
            say(f"warning: {each}")
    each_call = statistics.median(calls or [0.0])
    found = list(bars(reports, each_call))
    print("\n" + "\n".join(map(line, found)))
    missed = [each for each in found if each.is_missed]
    print(f"{len(missed)} missed, in {time.monotonic() - began:.0f} s")
    if not only:
        PAGE.write_text(page(reports, found, each_call, profile(seconds, say)), "utf-8")
        PICTURE.write_text(picture.drawn(drawn(reports)), "utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)} and {PICTURE.relative_to(ROOT)}")
    return 1 if missed else 0


def drawn(reports: dict[str, Report]) -> Report:
    """What the picture shows, as one report."""
    first = reports[DRAWN[0]]
    series = tuple(
        dataclasses.replace(each, path=reports[name].name if each.path == "/" else each.path.rpartition("/")[2])
        for name in DRAWN
        for each in reports[name].series
    )
    return dataclasses.replace(first, name="behind the same nginx", series=series)


def say(text: str) -> None:
    """To whoever waits."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
