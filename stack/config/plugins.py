"""pydantic's plugins, of which stackctl uses none.

One that the project has for its own models has no business in ours. And to find some, pydantic reads the metadata of
everything that is installed, for each command anew: 14 ms where 64 distributions are.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["none_of_pydantic"]

VARIABLE = "PYDANTIC_DISABLE_PLUGINS"


@contextlib.contextmanager
def none_of_pydantic() -> Iterator[None]:
    """Models that are made meanwhile have none. The app, which inherits our environment, may have its own."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "__all__"
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
