"""What web frameworks import of the standard library is imported once, by the master, and shared by its workers.

It is half of what Flask's import takes, in time and in memory: a worker is ready sooner, and is smaller. For one or two
workers it would only be done elsewhere.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

WORTH = 3  # workers from which on it is done
FRAMEWORKS = ("bottle", "django", "falcon", "flask", "pyramid", "werkzeug")
# With what these import in turn.
MODULES = (
    "contextvars",
    "decimal",
    "difflib",
    "gettext",
    "hashlib",
    "http.server",
    "importlib.metadata",
    "importlib.resources",
    "inspect",
    "ipaddress",
    "json",
    "logging",
    "pickle",
    "platform",
    "pprint",
    "secrets",
    "unicodedata",
    "uuid",
)


def warm(workers: int) -> None:
    """Import them for so many workers, if there is a framework.

    Not if the app may have one of its own of the same name; nor if there is gevent, which wants to replace ssl before
    anybody has it.
    """
    if workers < WORTH or not any(find_spec(each) for each in FRAMEWORKS):
        return
    if find_spec("gevent") or _is_shadowed():
        return
    for each in MODULES:
        with contextlib.suppress(ImportError):  # a Python that was built without it
            import_module(each)
    gc.collect()
    gc.freeze()  # the collector writes to what it looks at, and what is written to is no longer shared


def _is_shadowed() -> bool:
    """Whether a module is found before that of the standard library."""
    library = str(Path(os.__file__).parent)
    first = sys.path[: sys.path.index(library)] if library in sys.path else sys.path
    names = {each.stem for folder in first if Path(folder).is_dir() for each in Path(folder).iterdir()}
    return not names.isdisjoint(sys.stdlib_module_names)
