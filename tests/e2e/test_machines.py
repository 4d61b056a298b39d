"""The scripts that make a machine: accepted by the programs that know best, where those are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .project import ROOT

pytestmark = pytest.mark.e2e


def program(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed: apt install {name}")
    return found


def test_scripts_are_clean_for_shellcheck() -> None:
    shellcheck = program("shellcheck")
    scripts = [ROOT / "deploy" / "packages.sh", ROOT / ".ci" / "run"]
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    inline = re.findall(r'inline: "(.*)"', (ROOT / "Vagrantfile").read_text("utf-8"))
    assert inline
    for each in inline:
        done = subprocess.run([shellcheck, "-s", "bash", "-"], input=each, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_vagrantfile_is_valid(tmp_path: Path) -> None:
    vagrant = program("vagrant")
    shutil.copy(ROOT / "Vagrantfile", tmp_path)  # vagrant leaves files beside it
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns(".stackctl"))
    environment = {**os.environ, "HOME": str(tmp_path), "VAGRANT_CHECKPOINT_DISABLE": "1"}
    argv = [vagrant, "validate", "--ignore-provider"]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Vagrantfile validated successfully" in done.stdout
