"""The units of systemd: as reviewed, accepted by systemd itself whatever a project is called, and patient enough."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from stack.config import Override
from stack.desired import Plan
from stack.errors import ConfigError
from stack.facts import Facts
from stack.operations import unit
from tests.golden.rewrite import UNITS, VARIANTS, config, facts, planned, units

COMMAND = ("/opt/stackctl/bin/stackctl",)
WITHIN = 60.0  # seconds: a deadline for what should take one


def found(*overrides: Override, user: str = "", **changes: Any) -> tuple[Plan, Facts]:
    """A plan and its facts, changed in these things; by root unless somebody else is named."""
    name = "minimal"
    known = dataclasses.replace(facts(config(name), VARIANTS[name]), user=user or "root", is_root=not user)
    return dataclasses.replace(planned(name, *overrides), **changes), known


def lines(text: str) -> list[str]:
    return [each for each in text.splitlines() if each and not each.startswith("#")]


def values(text: str, key: str) -> list[str]:
    return [each.partition("=")[2] for each in lines(text) if each.startswith(f"{key}=")]


@pytest.mark.parametrize("name", ["shop.service", "shop.socket"])
def test_ready_made_units_are_those_that_are_printed(name: str) -> None:
    assert {each.name for each in UNITS.iterdir()} == set(units())
    assert (UNITS / name).read_text("utf-8") == units()[name], "run: python tests/golden/rewrite.py"


@pytest.mark.parametrize("for_user", [False, True])
@pytest.mark.parametrize("user", ["", "ana"])
def test_no_line_is_ragged(user: str, for_user: bool) -> None:  # noqa: FBT001
    plan, known = found(user=user)
    for text in (
        unit.service(plan, known, COMMAND, for_user=for_user),
        unit.socket(plan, known, COMMAND, for_user=for_user),
    ):
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
        assert "\n\n\n" not in text
        assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_what_was_set_for_the_stack_is_set_by_the_unit() -> None:
    plan, known = found(Override("server.workers", "4", "--workers"), Override("app.env.A", "50% of $HOME", "--set"))
    text = unit.service(plan, known, COMMAND, for_user=False)
    start = '/opt/stackctl/bin/stackctl --project /srv/shop up --set server.workers=4 --set "app.env.A=50%% of $$HOME"'
    assert values(text, "ExecStart") == [start]
    assert values(text, "ExecReload") == ["/opt/stackctl/bin/stackctl --project /srv/shop reload"]
    assert "systemd-unit --set server.workers=4 --set 'app.env.A=50% of $HOME' > /etc/systemd/system/" in text


def test_a_unit_runs_as_whoever_printed_it() -> None:
    plan, known = found()
    assert not values(unit.service(plan, known, COMMAND, for_user=False), "User")
    plan, known = found(user="ana")
    text = unit.service(plan, known, COMMAND, for_user=False)
    assert values(text, "User") == ["ana"]
    assert values(text, "WantedBy") == ["multi-user.target"]
    assert "| sudo tee /etc/systemd/system/" in text
    text = unit.service(plan, known, COMMAND, for_user=True)
    assert not values(text, "User")
    assert values(text, "WantedBy") == ["default.target"]
    assert "systemctl --user enable --now" in text
    assert "enable-linger ana" in text


@pytest.mark.parametrize(("port", "user", "for_user", "granted"), [
    ("80", "ana", False, ["CAP_NET_BIND_SERVICE"]),
    ("8000", "ana", False, []),
    ("80", "", False, []),
    ("80", "ana", True, []),
])  # fmt: skip
def test_the_right_to_a_low_port_is_given_where_it_is_needed_and_can_be(
    port: str, user: str, for_user: bool, granted: list[str]  # noqa: FBT001
) -> None:  # fmt: skip
    plan, known = found(Override("site.listen", port, "--listen"), user=user)
    assert values(unit.service(plan, known, COMMAND, for_user=for_user), "AmbientCapabilities") == granted


def test_a_virtual_environment_of_the_shell_is_the_units_too() -> None:
    plan, known = found()
    assert not values(unit.service(plan, known, COMMAND, for_user=False), "Environment")
    app = known.apps["app"]
    python = dataclasses.replace(app.python, path="/home/ana/my env/bin/python", origin="$VIRTUAL_ENV")
    known = dataclasses.replace(known, apps={"app": dataclasses.replace(app, python=python)})
    text = unit.service(plan, known, COMMAND, for_user=False)
    assert values(text, "Environment") == ['"VIRTUAL_ENV=/home/ana/my env"']


def test_a_project_where_systemd_would_let_nobody_write_stays_writable() -> None:
    plan, known = found()
    assert not values(unit.service(plan, known, COMMAND, for_user=False), "ReadWritePaths")
    plan, known = found(project="/usr/local/shop", state_dir="/usr/local/shop/.stackctl")
    text = unit.service(plan, known, COMMAND, for_user=False)
    assert values(text, "ReadWritePaths") == ["/usr/local/shop /usr/local/shop/.stackctl"]


def test_systemd_outwaits_what_stackctl_waits_for() -> None:
    plan, _ = found(Override("server.start_within", "100", "test"), Override("server.stop_within", "200", "test"))
    app, nginx = plan.services
    probes = sum(each.within for each in plan.probes)
    assert unit.start_within(plan) > 100 + app.start_within + nginx.start_within + probes
    assert unit.stop_within(plan) > 200 + nginx.stop_within
    twice = dataclasses.replace(plan, services=(app, dataclasses.replace(app, name="other"), nginx))
    assert unit.stop_within(twice) == unit.stop_within(plan), "services of a tier stop together"
    assert unit.start_within(twice) > unit.start_within(plan)


def test_a_stack_without_public_sockets_has_no_socket_unit() -> None:
    plan, known = found(listeners=())
    with pytest.raises(ConfigError, match="no public sockets"):
        unit.socket(plan, known, COMMAND, for_user=False)


def test_a_name_that_could_end_a_line_is_refused() -> None:
    plan, known = found(project="/srv/a\nExecStartPre=/bin/false")
    for printed in (unit.service, unit.socket):
        with pytest.raises(ConfigError, match="control character"):
            printed(plan, known, COMMAND, for_user=False)


# systemd's own opinion.


@pytest.mark.e2e
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed: apt install systemd")
@pytest.mark.parametrize("name", ["shop", 'a b$c%d"e\\f;g', "# données"])
@pytest.mark.parametrize("for_user", [False, True])
def test_systemd_accepts_the_units_without_a_word(name: str, for_user: bool, tmp_path: Path) -> None:  # noqa: FBT001
    program = tmp_path / "bin dir" / "stackctl"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    plan, known = found(
        Override("app.env.A", name, "test"), project=f"/usr/{name}", state_dir=f"/usr/{name}/.stackctl", user="root"
    )
    made = {"service": unit.service, "socket": unit.socket}
    files = [tmp_path / f"shop.{kind}" for kind in made]
    for file, printed in zip(files, made.values(), strict=True):
        file.write_text(printed(plan, known, (str(program),), for_user=for_user), "utf-8")
    verify = ("systemd-analyze", "verify", "--man=no", *(["--user"] if for_user else []))

    def opinion() -> tuple[int, str]:
        done = subprocess.run(
            [*verify, *map(str, files)],
            env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        return done.returncode, done.stderr + done.stdout

    assert opinion() == (0, "")
    files[0].write_text(files[0].read_text().replace("KillMode=mixed", "KillMode=mild"))
    assert "kill mode" in opinion()[1]
