"""`check`: all that `up` would find wrong, and nothing started."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from stack import files
from stack.config import Override
from stack.desired import Listener
from stack.errors import ConfigError, StackError
from stack.operations import ports, running
from stack.operations.prepare import Prepared, prepare
from stack.rules import Problem

__all__ = ["check"]


def check(project: Path, flags: Sequence[Override]) -> Prepared:
    """A plan that keeps the rules, that the programs accept, at addresses that are ours to use.

    One that is taken is a warning: it may be free by then.

    Raises:
        StackError: something of it is wrong or missing; nothing was touched.
    """
    prepared = prepare(project, flags)
    files.validate(prepared.plan)
    taken = _taken(project, prepared.plan.listeners)
    return dataclasses.replace(prepared, warnings=(*prepared.warnings, *taken))


def _taken(project: Path, listeners: Sequence[Listener]) -> Iterator[Problem]:
    """Addresses that somebody else has; those of the running stack, which may have more rights than we, are fine."""
    for each in listeners:
        try:
            ports.listening(each.address, each.backlog).close()
        except StackError as error:
            found = running.find(project)
            if found and each in found.plan.listeners:
                continue
            if isinstance(error, ConfigError):
                raise
            yield Problem("address-is-free", error.message, error.hint, None)
