"""`systemd-unit`: the units under which systemd keeps a stack, as text. What is in them follows from the plan."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stack.desired import Plan
from stack.errors import ConfigError
from stack.facts import Facts
from stack.render import render

__all__ = ["program", "service", "socket"]

SPARE = 60  # seconds for what has no limit of its own in a plan, such as `nginx -t` and a disk that is slow after boot
STOP_SPARE = 10  # seconds for killing what did not stop, and for clearing up
FIRST_OF_ALL = 1024  # the first port that is everybody's, unless a sysctl says otherwise
READ_ONLY = ("/usr", "/boot", "/efi", "/etc")  # by ProtectSystem=full


def program() -> tuple[str, ...]:
    """The command that runs this stackctl, from anywhere."""
    script = Path(sys.executable).with_name("stackctl")
    return (str(script),) if script.is_file() else (sys.executable, "-P", "-m", "stack")


def service(plan: Plan, facts: Facts, command: Sequence[str], *, for_user: bool) -> str:
    """The service unit: of the machine, or one `for_user`, of the user's own systemd. `command` is that of stackctl.

    Raises:
        ConfigError: a path has a control character.
    """
    ports = [int(each.address.rpartition(":")[2]) for each in plan.listeners]
    as_other = not facts.is_root and not for_user
    return render(
        "systemd/service.j2",
        **_common(plan, facts, command, "systemd-unit", for_user=for_user),
        user=facts.user,
        project=plan.project,
        command=(*command, "--project", plan.project),
        settings=_settings(plan),
        run_as=facts.user if as_other else "",
        privileged=as_other and any(port < FIRST_OF_ALL for port in ports),
        virtual_env=_virtual_env(facts),
        start_within=start_within(plan),
        stop_within=stop_within(plan),
        tiers=" + ".join(f"{each:g} s" for each in _stop_tiers(plan)),
        writable=[each for each in dict.fromkeys((plan.project, plan.state_dir)) if _is_read_only(each)],
    )


def socket(plan: Plan, facts: Facts, command: Sequence[str], *, for_user: bool) -> str:
    """The socket unit beside it.

    Raises:
        ConfigError: the stack has no public sockets, or a path has a control character.
    """
    if not plan.listeners:
        raise ConfigError(
            "the stack has no public sockets: the web server that faces the clients is not ours",
            "Its own unit holds them.",
        )
    common = _common(plan, facts, command, "systemd-unit --socket", for_user=for_user)
    return render("systemd/socket.j2", **common, listeners=plan.listeners)


def start_within(plan: Plan) -> int:
    """Seconds in which a start has ended, one way or the other; a reload too.

    Each app is imported aside, each service started, each hop tried: at worst one after the other.
    """
    imports = sum(each.start_within for each in plan.services if each.link)
    starts = sum(each.start_within for each in plan.services)
    return math.ceil(imports + starts + sum(each.within for each in plan.probes) + SPARE)


def stop_within(plan: Plan) -> int:
    """Seconds in which a stop has ended: the tiers one after the other, the services of a tier together."""
    return math.ceil(sum(_stop_tiers(plan)) + STOP_SPARE)


def _stop_tiers(plan: Plan) -> Iterable[float]:
    """The longest that each tier may take, in the order in which they stop."""
    for tier in sorted({each.tier for each in plan.services}, reverse=True):
        yield max(each.stop_within for each in plan.services if each.tier == tier)


def _common(plan: Plan, facts: Facts, command: Sequence[str], printing: str, *, for_user: bool) -> dict[str, Any]:
    sudo = not facts.is_root and not for_user
    words = [*command, "--project", plan.project, *printing.split(), *(["--user"] if for_user else [])]
    words += [word for each in _settings(plan) for word in ("--set", each)]
    for each in words:
        if not each.isprintable():
            raise ConfigError(f"{each!r} has a control character and cannot stand in a unit of systemd", "Rename it.")
    return {
        "name": plan.name,
        "for_user": for_user,
        "sudo": sudo,
        "systemctl": "systemctl --user" if for_user else "sudo systemctl" if sudo else "systemctl",
        "place": "~/.config/systemd/user" if for_user else "/etc/systemd/system",
        "printed_by": shlex.join(words),
    }


def _settings(plan: Plan) -> list[str]:
    """What was set on the command line, or in the environment, which systemd does not know: as `--set` takes it."""
    return [f"{key}={value}" for key, value, _ in plan.overrides]


def _virtual_env(facts: Facts) -> str:
    """The virtual environment of the shell, if it decided which Python runs an app."""
    found = [Path(each.python.path) for each in facts.apps.values() if each.python.origin == "$VIRTUAL_ENV"]
    return str(found[0].parent.parent) if found else ""


def _is_read_only(path: str) -> bool:
    return any(Path(path).is_relative_to(each) for each in READ_ONLY)
