"""Prints how much longer than a bare interpreter `--help` and `nginx-conf` take. A figure, not a test.

The minimum is the one to compare: whatever else the machine does can only add to it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 20
BARE = ("-c", "pass")
STACKCTL = ("-P", "-m", "stack", "-C", str(ROOT / "deploy" / "example"))
MOST = {"--help": 200, "nginx-conf": 400}  # milliseconds over the bare interpreter, on a quiet machine
# Bytecode is kept, as an installation keeps it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def main() -> None:
    """Runs each in turn, so that a busy moment is shared by all; the first round fills the caches."""
    rounds = [(ran(*BARE), *(ran(*STACKCTL, name) for name in MOST)) for _ in range(ROUNDS + 1)]
    bare, *commands = zip(*rounds[1:], strict=True)
    for (name, most), taken in zip(MOST.items(), commands, strict=True):
        least, middle = min(taken) - min(bare), statistics.median(taken) - statistics.median(bare)
        said = f"at least {least:3.0f} ms, median {middle:3.0f} ms over `python -c pass`"
        sys.stdout.write(f"{name:10}  {said}; at most {most} on a quiet machine\n")


def ran(*words: str) -> float:
    """Milliseconds from the start of Python with these words to its end."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *words], env=ENVIRONMENT, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - begun) * 1000


if __name__ == "__main__":
    main()
