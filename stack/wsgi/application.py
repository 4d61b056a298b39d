"""Finds the app by its import string, `module:callable`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def load(text: str) -> Callable[..., Any]:
    """Import the app; whatever its import raises goes through.

    Raises:
        TypeError: it is there, but not callable.
    """
    module, _, path = text.partition(":")
    found: Any = import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    if not callable(found):
        raise TypeError(f"{text} is not callable: {found!r}")
    return found  # type: ignore[no-any-return]
