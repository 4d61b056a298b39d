"""What is said to somebody who made a mistake: looked at, and recorded for docs/mistakes.md (see tests/mistakes.py)."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from .project import ROOT, STACKCTL, Project

RECORD = "E2E_MISTAKES"  # the variable that names the file to append to
# What is another thing in every run, and what stands for it.
CHANGING = (
    (r"/(run|tmp)/stackctl(-\d+)?/[\w-]+-[0-9a-f]{8}", "/run/stackctl/shop"),
    (r"(A free port|Use another one)(: | \()--listen \S+?:\d+", r"\1\2--listen 127.0.0.1:8001"),
    (r"\bpid \d+", "pid 4711"),
    (r"\b(wsgi|app|nginx|stack)\[\d+", r"\g<1>[4711"),
    (r"\d+#\d+: (\*\d+ )?", "4711#4711: "),
    (r"\(request [0-9a-f]{32}\)", "(request 5c0a3e1f9d2b4c6a8e7f0b1d3a5c7e90)"),
    (r"\d{4}([-/])\d\d[-/]\d\d \d\d:\d\d:\d\d", r"2026\g<1>01\g<1>31 12:00:00"),
)


@dataclass(frozen=True)
class Record:
    """A mistake, the text that helped, the exit code; `cause` and `fix` are the words in it that tell each."""

    place: int
    mistake: str
    said: str
    code: int | None
    cause: str
    fix: str
    first_hour: bool


class Mistakes:
    """The mistakes of one test, which begins at `place` in its file."""

    def __init__(self, place: int) -> None:
        self._place = place

    def refused(
        self,
        project: Project,
        mistake: str,
        *arguments: str,
        code: int,
        cause: str,
        fix: str,
        first_hour: bool = False,
        broken_file: bool = False,
        env: dict[str, str] | None = None,
    ) -> str:
        """An `up` that fails with this code, says both, shows no traceback of ours and leaves nothing.

        A stack.toml that cannot be read is removed, to look for what is left.
        """
        before = project.files()
        done = project.up(*arguments, code=code, env=env)
        assert done.out == ""
        if broken_file:
            (project.directory / "stack.toml").unlink()
        project.nothing_is_left()
        assert project.files() - before <= {project.state / ".gitignore", project.state / "log" / "stack.log"} | {
            project.state / each for each in project.rendered()
        }
        assert not [*project.state.glob("check-*"), *project.state.rglob(".*-*")]
        self.note(project, mistake, done.err, code, cause=cause, fix=fix, first_hour=first_hour)
        return done.err

    def note(
        self,
        project: Project,
        mistake: str,
        said: str,
        code: int | None,
        *,
        cause: str,
        fix: str,
        first_hour: bool = False,
    ) -> None:
        """What was said, in whichever way; `code` None: no command has ended."""
        assert cause in said, said
        assert fix in said, said
        assert str(ROOT / "stack") not in said, said
        said = said[max(0, said.find("stackctl: ")) :].rstrip()
        record = Record(
            self._place, mistake, same(project, said), code, same(project, cause), same(project, fix), first_hour
        )
        if file := os.environ.get(RECORD):
            with Path(file).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(record)) + "\n")


def same(project: Project, text: str) -> str:
    """The text as it would be of a project in /srv/shop on port 8000, whoever runs the tests wherever."""
    python = os.path.realpath(sys.executable)
    for found, stands in (
        (str(project.directory), "/srv/shop"),
        (str(project.place), "/srv"),
        (project.address, "127.0.0.1:8000"),
        (str(project.port), "8000"),
        (" ".join(STACKCTL), "stackctl"),
        (sys.executable, "/opt/stackctl/bin/python"),
        (str(Path(sys.executable).with_name("python3")), "/opt/stackctl/bin/python"),
        (python, "/usr/bin/python3.11"),
    ):
        text = text.replace(found, stands)
    for pattern, stands in CHANGING:
        text = re.sub(pattern, stands, text)
    return text


@pytest.fixture
def mistakes(request: pytest.FixtureRequest) -> Mistakes:
    return Mistakes(request.node.location[1] or 0)
