"""Projects for the tests, each with a stack of its own, of which nothing may be left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .installed import stackctl, venvs
from .mistake import Mistakes, mistakes
from .project import APPS, EXAMPLE, Project

__all__ = ["Mistakes", "mistakes", "stackctl", "venvs"]  # fixtures: pytest finds them here

Copy = Callable[..., Project]


@pytest.fixture
def copy() -> Iterator[Copy]:
    """Copies of projects: a directory, and where the copy shall be."""
    with ExitStack() as ends:

        def made(source: Path | None, name: str = "site", under: str = "") -> Project:
            project = Project(source, name, under)
            ends.callback(project.end)
            return project

        yield made


@pytest.fixture(scope="module")
def served() -> Iterator[Project]:
    """The app that waits for files, served once for those tests of a module that leave it as it was."""
    project = Project(APPS / "steered")
    try:
        project.up()
        yield project
    finally:
        project.end()


@pytest.fixture
def example(copy: Copy) -> Project:
    """The example project."""
    return copy(EXAMPLE)


@pytest.fixture
def steered(copy: Copy) -> Project:
    """The app that waits for files which the test makes."""
    return copy(APPS / "steered")
