"""The beginning of most stories: load the config, look at the machine, plan, check the rules."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stack import config as settings
from stack import rules
from stack.config import Loaded, Override
from stack.desired import Plan
from stack.facts import Facts, look
from stack.plan import plan

__all__ = ["Prepared", "load", "prepare", "prepare_loaded"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan that keeps the rules, what it came from, and the warnings."""

    loaded: Loaded
    facts: Facts
    plan: Plan
    warnings: tuple[rules.Problem, ...]


def load(project: Path, flags: Sequence[Override] = ()) -> Loaded:
    """The project's settings: file, then environment, then flags. Raises ConfigError."""
    return settings.load(project, (*settings.environment_overrides(os.environ), *flags))


def prepare(project: Path, flags: Sequence[Override] = ()) -> Prepared:
    """A plan for the project.

    Raises:
        StackError: something of it is wrong or missing; nothing was touched.
    """
    return prepare_loaded(load(project, flags))


def prepare_loaded(loaded: Loaded) -> Prepared:
    """The same, from settings that are loaded already."""
    facts = look(loaded.config, os.environ)
    found = plan(loaded.config, facts, loaded.overrides)
    warnings = rules.check(loaded.config, facts, found)
    return Prepared(loaded, facts, found, tuple(warnings))
