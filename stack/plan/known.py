"""Names in the config that stand for modules of ours."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

from stack.errors import ConfigError

__all__ = ["known"]

Module = TypeVar("Module")


def known(name: str, modules: Mapping[str, Module], setting: str) -> Module:
    """The module of that name; ConfigError, with what was meant perhaps, if there is none."""
    if name not in modules:
        near = difflib.get_close_matches(name, modules, n=1)
        known = f"There is: {', '.join(modules)}."
        raise ConfigError(
            f"{setting} = {name!r}: stackctl has none of that name", f"Did you mean {near[0]}?" if near else known
        )
    return modules[name]
