"""What a shell offers when one presses TAB, asked of the real shells with the script that stackctl gives them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from .project import Project

pytestmark = pytest.mark.e2e

# Sources the script, as `--install-completion` has a new shell do, and prints what is offered for the last word.
BASH = """
source ../completion
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_stackctl_completion stackctl
((${#COMPREPLY[@]} == 0)) || printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
compdef() {}; _files() {}
_arguments() { local offered=${${1#*\\(\\(}%\\)\\)}; print -rl -- ${${(Q)${(z)offered}}%%:*} }
source ../completion
words=("$@"); CURRENT=$#
_stackctl_completion
"""
FISH = """
source ../completion
complete -C "$argv"
"""
SCRIPTS = {"bash": ["-c", BASH, "bash"], "zsh": ["-f", "-c", ZSH, "zsh"], "fish": ["--no-config", "-c", FISH]}
OFFERED = {
    ("re",): ["reload"],
    ("up", "--w"): ["--watch", "--workers"],
    ("up", "--set", "server.en"): ["server.engine=bundled", "server.engine=gunicorn", "server.engine=uwsgi"],
    ("reload", "--set", "site.web"): ["site.web=external", "site.web=nginx", "site.web=none", "site.web_group=auto"],
    ("check", "--set", "server.th"): ["server.threads=7"],
    ("logs", ""): ["access", "blog", "nginx", "shop", "stack"],
    ("run", "--app", "b"): ["blog"],
    ("explain", ""): ["limits"],
}
APPS = '[apps.shop]\n[apps.blog]\n[site]\napp = "shop"\n[server]\nthreads = 7\n'


def environment(project: Project) -> dict[str, str]:
    """In which `stackctl` is a command, and the home is empty."""
    home = project.place / "home"
    home.mkdir(exist_ok=True)
    programs = str(Path(sys.executable).parent)
    return {**project.environment, "HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}"}


def ran(project: Project, shell: str, *arguments: str) -> str:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(
        [shell, *arguments],
        cwd=project.directory, env=environment(project), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "stackctl: " not in done.stderr, "it complains while somebody types"
    assert "Traceback" not in done.stderr
    return done.stdout


def show(project: Project, shell: str) -> None:
    """Keeps the script for this shell; which one it is, stackctl finds out."""
    (project.place / "completion").write_text(ran(project, shell, "-c", "stackctl --show-completion; true"))


def offered(project: Project, shell: str, words: Sequence[str]) -> list[str]:
    """The words that the shell may complete the last one with; what follows a tab explains one."""
    lines = ran(project, shell, *SCRIPTS[shell], *("stackctl", *words)).splitlines()
    return sorted(each.partition("\t")[0] for each in lines)


@pytest.mark.parametrize("shell", SCRIPTS)
def test_commands_options_and_values_are_offered(steered: Project, shell: str) -> None:
    steered.write("stack.toml", APPS)
    show(steered, shell)
    for words, wanted in OFFERED.items():
        assert offered(steered, shell, words) == wanted
    (steered.directory / "stack.toml").unlink()


def test_broken_stack_toml_is_not_complained_of_while_somebody_types(steered: Project) -> None:
    file = steered.write("stack.toml", "[server\n")
    show(steered, "bash")
    assert offered(steered, "bash", ("up", "--set", "server.en")) == []
    assert offered(steered, "bash", ("up", "--set")) == ["--set"]
    file.unlink()


@pytest.mark.parametrize(
    ("shell", "arguments", "shown"),
    [
        ("bash", ("-i", "-c", "complete -p stackctl"), "_stackctl_completion"),
        ("zsh", ("-i", "-c", "print $_comps[stackctl]"), "_stackctl"),
        ("fish", ("-c", 'complete -C "stackctl rel"'), "reload"),
    ],
)  # fmt: skip
def test_installed_completion_is_there_in_the_next_shell(
    steered: Project, shell: str, arguments: tuple[str, ...], shown: str
) -> None:
    said = ran(steered, shell, "-c", "stackctl --install-completion; true")
    assert f"{shell} completion installed in {steered.place}/home/" in said
    assert shown in ran(steered, shell, *arguments)
