"""How something that was asked of the supervisor ended."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

__all__ = ["Outcome"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How something ended: well if there is no `message`; else what was wrong, what was said about it, what to do.

    `exit_code` is what a command that asked for it should end with.
    """

    message: str = ""
    detail: str = ""
    hint: str = ""
    exit_code: int = 0
    changes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The outcome as JSON types, with `ok`."""
        return {"ok": not self.message, **dataclasses.asdict(self)}
