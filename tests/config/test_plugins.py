"""stackctl's models are its own, whatever is installed beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

METADATA = {
    "METADATA": "Metadata-Version: 2.1\nName: nosy\nVersion: 1\n",
    "entry_points.txt": "[pydantic]\nnosy = nosy:plugin\n",
}


@pytest.mark.parametrize("told", [None, "their_own"])
def test_plugin_of_pydantic_is_not_loaded_and_the_environment_is_as_before(tmp_path: Path, told: str | None) -> None:
    (tmp_path / "nosy.py").write_text("raise SystemExit('a plugin has been loaded')\n")
    about = tmp_path / "nosy-1.dist-info"
    about.mkdir()
    for name, text in METADATA.items():
        (about / name).write_text(text)
    variables = {name: value for name, value in os.environ.items() if name != "PYDANTIC_DISABLE_PLUGINS"}
    variables |= {"PYTHONPATH": str(tmp_path)} | ({"PYDANTIC_DISABLE_PLUGINS": told} if told else {})
    code = "import os, stack.config; print(os.environ.get('PYDANTIC_DISABLE_PLUGINS'))"
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{told}\n", "")
