"""The report of a proven reload: for a terminal, and for scripts; and how it goes, while it goes."""

from __future__ import annotations

import contextlib
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

from stack.cli.show import WIDTH, coloured
from stack.operations.prove import PHASES, Handover, Proof
from stack.operations.visitors import Load, Visitors

__all__ = ["as_json", "failures", "progress", "table"]

LOOK_AGAIN = 0.2  # seconds between two looks at how many have been asked
CLEAR = "\r\x1b[K"  # the line, of ECMA-48


def table(proof: Proof) -> str:
    """A line for each phase; then how long it took, and who answered when."""
    lines = ["          requests  failed    p50 ms    p99 ms"]
    lines += [_line(each, proof.loads[each]) for each in PHASES]
    lines.append(f"the reload {'was refused after' if proof.refusal else 'took'} {proof.seconds:.2f} s")
    for name, each in proof.handovers.items():
        lines += textwrap.wrap(f"{name}: {_handed_over(each)}", WIDTH, subsequent_indent="    ")
    if again := sum(each.again for each in proof.loads.values()):
        lines.append(f"kept connections closed by the server between requests: {again}, asked again")
    return "\n".join(lines)


def _line(phase: str, load: Load) -> str:
    failed = coloured("31" if load.failed else "32", f"{load.failed:8}")
    p50, p99 = (load.percentile(each) * 1000 for each in (0.5, 0.99))
    return f"{phase:8}{load.requests:10}{failed}{p50:10.1f}{p99:10.1f}"


def _handed_over(found: Handover) -> str:
    new = "the new code has answered nothing" if found.new_from is None else f"new code from +{found.new_from:.2f} s on"
    if found.old_until is None:
        return f"{new}; the old code has not let go of all its connections yet"
    either = f"; {found.either} answers may be either's" if found.either else ""
    return f"{new}, old code until +{found.old_until:.2f} s{either}"


def failures(proof: Proof) -> str:
    """The first that failed, and in which phase; "" if none did."""
    return "\n".join(
        "\n    ".join([f"{load.failed} of {load.requests} requests failed {phase} the reload:", *load.failures])
        for phase, load in proof.loads.items()
        if load.failed
    )


def as_json(proof: Proof) -> dict[str, Any]:
    """The report as JSON types, as docs/commands.md describes them."""
    return {
        "ok": not proof.exit_code,
        "exit_code": proof.exit_code,
        "refused": proof.refusal.message if proof.refusal else "",
        "began": proof.began,
        "seconds": round(proof.seconds, 6),
        "requests": sum(each.requests for each in proof.loads.values()),
        "failed": proof.failed,
        "changes": list(proof.changes),
        "phases": {phase: _phase(load) for phase, load in proof.loads.items()},
        "apps": {name: _apart(each) for name, each in proof.handovers.items()},
    }


def _apart(found: Handover) -> dict[str, Any]:
    moments = {"new_from": found.new_from, "old_until": found.old_until}
    return {key: each and round(each, 6) for key, each in moments.items()} | {"either": found.either}


def _phase(load: Load) -> dict[str, Any]:
    return {
        "requests": load.requests,
        "failed": load.failed,
        "asked_again": load.again,
        "p50": round(load.percentile(0.5), 6),
        "p99": round(load.percentile(0.99), 6),
        "failures": list(load.failures),
    }


@contextlib.contextmanager
def progress(crowd: Visitors) -> Iterator[None]:
    """How the visitors fare, in one line of a terminal that changes; nothing where nobody sees it."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()

    def show() -> None:
        while not done.wait(LOOK_AGAIN):
            met = crowd.visits()
            phase = met[-1].phase if met else PHASES[0]
            failed = sum(bool(each.problem) for each in met)
            print(
                f"{CLEAR}{phase}: {len(met)} requests, {failed or 'none'} failed", end="", file=sys.stderr, flush=True
            )

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        print(CLEAR, end="", file=sys.stderr, flush=True)
