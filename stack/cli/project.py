"""Which project a command is about, its plan to print, and what is said to a person on stderr."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stack.config import Override
    from stack.operations.prepare import Prepared

__all__ = ["choose", "existing", "find", "introduce", "prepared_for", "talk", "usage_error", "warn"]

_chosen: list[Path] = []


def choose(path: Path | None) -> None:
    """The project is there; None: it is looked for."""
    _chosen[:] = [path] if path else []


def find() -> Path:
    """The project's directory."""
    from stack.config import find_project

    return existing(_chosen[0]) if _chosen else find_project(Path.cwd())


def existing(path: Path) -> Path:
    """The path, absolute. Raises UsageError if it is not a directory."""
    if not path.is_dir():
        raise usage_error(f"{path} is not a directory")
    return path.absolute()


def usage_error(message: str, hint: str = "") -> Exception:
    """To be raised."""
    from stack.errors import UsageError

    return UsageError(message, hint)


def prepared_for(flags: list[Override]) -> Prepared:
    """A plan to print: with what the running stack was started with, if one runs; for this machine or another."""
    from stack.operations import prepare, running

    project = find()
    found = running.find(project)
    prepared = (
        running.replan(project, found, flags, for_here=False)
        if found
        else prepare.prepare(project, flags, for_here=False)
    )
    for each in prepared.warnings:
        if each.kind is not None:
            talk(f"warning: `up` would refuse this here: {each.message}\n  -> {each.hint}")
    return prepared


def introduce(prepared: Prepared) -> None:
    """Says what is about to be started."""
    warn(prepared)
    names = ", ".join(f"{each.module}:{each.expression}" for each in prepared.facts.apps.values())
    talk(f"starting {prepared.plan.name} ({names}) ...")


def warn(prepared: Prepared) -> None:
    """Says what is not as it should be, and lived with."""
    for each in prepared.warnings:
        talk(f"warning: {each.message}\n  -> {each.hint}")


def talk(text: str) -> None:
    """To a person."""
    print(text, file=sys.stderr, flush=True)
