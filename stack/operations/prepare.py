"""The beginning of most stories: load the config, look at the machine, plan, check the rules.

To import an app takes longest. It begins as early as it can, and whatever comes after it is loaded meanwhile.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stack import config as settings
from stack import render
from stack.config import Loaded, Override
from stack.desired import Plan
from stack.facts import Facts, look

if TYPE_CHECKING:
    from stack import rules

__all__ = ["Prepared", "load", "prepare", "prepare_loaded"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan that keeps the rules, what it came from, and the warnings."""

    loaded: Loaded
    facts: Facts
    plan: Plan
    warnings: tuple[rules.Problem, ...]

    def site_file(self) -> str:
        """The site as the web server's configuration. Raises ConfigError where there is no web server."""
        from stack.plan import front, web_server

        web = web_server(self.loaded.config)
        return web.site_file(front(self.loaded.config, self.facts), self.facts)


def load(project: Path, flags: Sequence[Override] = ()) -> Loaded:
    """The project's settings: file, then environment, then flags. Raises ConfigError."""
    return settings.load(project, (*settings.environment_overrides(os.environ), *flags))


def prepare(project: Path, flags: Sequence[Override] = (), *, for_here: bool = True) -> Prepared:
    """A plan for the project; not `for_here`, what this machine lacks is a warning: the plan may be for another one.

    Raises:
        StackError: something of it is wrong or missing; nothing was touched.
    """
    return prepare_loaded(load(project, flags), for_here=for_here)


def prepare_loaded(loaded: Loaded, *, for_here: bool = True, with_peers: bool = False) -> Prepared:
    """The same, from settings that are loaded already. `with_peers` as for `rules.check`."""
    facts = look(loaded.config, os.environ, meanwhile=_load_the_rest)
    from stack import rules
    from stack.plan import plan

    found = plan(loaded.config, facts, loaded.overrides)
    of = (loaded.config, facts, found)
    warnings = rules.check(*of, with_peers=with_peers) if for_here else list(rules.problems(*of))
    return Prepared(loaded, facts, found, tuple(warnings))


def _load_the_rest() -> None:
    for each in ("stack.plan", "stack.rules"):
        importlib.import_module(each)
    render.load("app/", "nginx/")  # what nearly every plan has
