"""App servers side by side on an app of tests/apps/bench, for who works on one: `compare.py raw bundled uwsgi`."""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from stack.config import Override
from stack.operations.bench import Wanted, bench
from stack.operations.bench.figures import MEASURES, doubts
from stack.operations.visitors import Request


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("app", help="raw, hello ...")
    arguments.add_argument("servers", nargs="*", default=["bundled", "uwsgi"])
    arguments.add_argument("--python", default=sys.executable, help="the interpreter that has the app servers")
    arguments.add_argument("--path", default="/")
    arguments.add_argument("--protocol", default="")
    for name, default in (("workers", 2), ("threads", 4), ("connections", 16), ("seconds", 4), ("rounds", 3)):
        arguments.add_argument(f"--{name}", type=int, default=default)
    told = arguments.parse_args()
    flags = [
        Override("server.workers", str(told.workers), "--workers"),
        Override("server.threads", str(told.threads), "--threads"),
        Override("app.python", f'"{told.python}"', "--python"),
    ]
    wanted = Wanted(
        [Request("GET", told.path, "", "", 0)],
        told.servers,
        told.protocol,
        told.connections,
        told.seconds,
        told.rounds,
        bare=True,
    )
    project = Path(__file__).parents[1] / "apps" / "bench" / told.app
    report = bench(project, flags, wanted, lambda _: None, lambda text: print(text, file=sys.stderr))
    for measure in MEASURES:
        print(f"{measure.title} ({measure.unit})")
        for each in report.series:
            figure, ratio = each.figures[measure.name], each.ratio(measure.name, report.series[0])
            rounds = " ".join(f"{getattr(turn, measure.name) / measure.size:.1f}" for turn in each.turns)
            print(f"  {each.server:18}{figure.median / measure.size:10.1f}  x{ratio:.2f}   {rounds}")
    others = " ".join(f"{turn.others:.0%}" for each in report.series for turn in each.turns)
    print(f"others had {others}", *doubts(report.series), sep="\n")


if __name__ == "__main__":
    main()
