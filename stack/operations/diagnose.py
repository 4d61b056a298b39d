"""`health`: every hop from the configuration to the visitor, the innermost first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from stack import config as settings
from stack import health
from stack.config import Override
from stack.errors import StackError
from stack.facts import look
from stack.health import Finding
from stack.health.finding import found
from stack.operations import running
from stack.plan import plan

__all__ = ["diagnose"]


def diagnose(project: Path) -> Iterator[Finding]:
    """One finding a hop, as they come; what lies behind a stack that does not run is not tried."""
    stack, missing = None, ""
    try:
        stack = running.find(project)
    except StackError as error:
        missing = error.message
    overrides = tuple(Override(*each) for each in stack.plan.overrides) if stack else ()
    yield found("config", "configuration", str(project), lambda: _configuration(project, overrides))
    yield found("import", "the code as it is now", "what the next reload would load", lambda: _code(project, overrides))
    if stack is None:
        problem = missing or "no stack of this project is running"
        yield found("process", "supervisor", "its control socket", lambda: ("", problem, "`stackctl up` starts it."))
        return
    yield from health.findings(stack.plan, stack.status)


def _configuration(project: Path, overrides: tuple[Override, ...]) -> tuple[str, str, str]:
    try:
        loaded = settings.load(project, overrides or settings.environment_overrides(os.environ))
    except StackError as error:
        return "", error.message, error.hint
    return str(loaded.file or "no stack.toml: the defaults"), "", ""


def _code(project: Path, overrides: tuple[Override, ...]) -> tuple[str, str, str]:
    try:
        loaded = settings.load(project, overrides or settings.environment_overrides(os.environ))
        facts = look(loaded.config, os.environ)
        plan(loaded.config, facts)
    except StackError as error:
        return "", error.message, error.hint
    return ", ".join(f"{each.framework} {each.module}:{each.expression}" for each in facts.apps.values()), "", ""
