"""The errors that stackctl means: each says what and where, and the next step. Raised low, caught once in the CLI.

Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = ["ConfigError", "MissingProgramError", "StackError", "UnhealthyError", "UsageError", "told"]


class StackError(Exception):
    """Something could not be done (exit code 1).

    `message` says what and where; `hint` the next step; `detail` is shown as it is, between the two (a traceback, a
    program's own words, the lines of a log).
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail


class UsageError(StackError):
    """The command line asks for something that makes no sense (exit code 2)."""

    exit_code = 2


class ConfigError(StackError):
    """The configuration, or what it points at, is wrong (exit code 3)."""

    exit_code = 3


class UnhealthyError(StackError):
    """A hop of the running stack does not work (exit code 4)."""

    exit_code = 4


class MissingProgramError(StackError):
    """A program that the plan needs is not on this machine (exit code 5)."""

    exit_code = 5


def told(message: str, detail: str = "", hint: str = "") -> str:
    """An error as a terminal shows it: what, what was said about it, what to do."""
    indented = "\n".join(f"    {line}" for line in detail.splitlines())
    parts = (f"stackctl: {message}", indented, "\n".join(f"  -> {line}" for line in hint.splitlines()))
    return "\n".join(part for part in parts if part)
