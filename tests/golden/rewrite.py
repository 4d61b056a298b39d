"""Renders every variant of tests/golden: a stack.toml, and facts that are fixed here, become files.

Run as a script it writes them, to be reviewed as a diff. The units in deploy/systemd are those of one of them.
"""

from __future__ import annotations

import os.path
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from stack.config import Config, Override, load
from stack.desired import Plan
from stack.facts import AppFacts, Facts, Interpreter, Nginx, ServerProgram, Static
from stack.operations import unit
from stack.plan import plan

HERE = Path(__file__).resolve().parent
UNITS = HERE.parents[1] / "deploy" / "systemd"
PROJECT = "/srv/shop"
PYTHON = Interpreter(f"{PROJECT}/.venv/bin/python", (3, 11, 7), ".venv")
ALL = ("http_fastcgi_module", "http_proxy_module", "http_scgi_module", "http_uwsgi_module")
DEBIAN = Nginx("/usr/sbin/nginx", (1, 22, 1), ALL)


@dataclass(frozen=True, slots=True)
class Variant:
    """What the machine is like. `apps` are module and expression by the app's name; `user` makes stackctl root."""

    apps: Mapping[str, tuple[str, str]] = field(default_factory=lambda: {"app": ("app", "app")})
    nginx: Nginx = DEBIAN
    user: str = ""
    group: str = ""
    server: ServerProgram | None = None


VARIANTS = {
    "minimal": Variant(),
    "public": Variant(),  # several addresses and names, a large body
    "http": Variant(),  # the other protocols
    "fastcgi": Variant(),
    "scgi": Variant(),
    "uwsgi": Variant(server=ServerProgram(f"{PROJECT}/.venv/bin/uwsgi", "2.0.31")),
    "uwsgi-http": Variant(server=ServerProgram("/usr/bin/uwsgi", "2.0.21-debian", f"{PROJECT}/.venv")),
    "gunicorn": Variant(server=ServerProgram(f"{PROJECT}/.venv/bin/gunicorn", "27.0.1")),
    "folders": Variant(),  # blanks, quotes, dollars, backslashes, accents
    "two-apps": Variant(
        {"shop": ("shop.web", "create_app('prod', debug=False)"), "admin-area": ("class.2nd", "admin.app")}
    ),
    "names-with-dashes": Variant({"web-app": ("shop", "app")}),
    "as-root": Variant(user="shop", group="users"),
    "old-nginx": Variant(nginx=Nginx("/usr/sbin/nginx", (1, 18, 0), ("http_proxy_module", "http_uwsgi_module"))),
    "new-nginx": Variant(nginx=Nginx("/opt/nginx/sbin/nginx", (1, 31, 3), ALL)),
}


def config(name: str, *overrides: Override) -> Config:
    """The variant's stack.toml, as if it were in /srv/shop."""
    return load(HERE / name, overrides).config.model_copy(update={"project": PROJECT})


def facts(found: Config, variant: Variant) -> Facts:
    """A machine on which everything is where it should be."""
    return Facts(
        user="root" if variant.user else "ana",
        is_root=bool(variant.user),
        cpus=4,
        somaxconn=4096,
        runtime_dir=f"/run/stackctl/{found.name}",
        nginx=variant.nginx,
        nginx_looked=("PATH",),
        apps={name: app(module, expression, variant) for name, (module, expression) in variant.apps.items()},
        statics={name: (*statics(site.static), *private(site.private)) for name, site in found.sites.items()},
        servers=dict.fromkeys(variant.apps, variant.server),
    )


def app(module: str, expression: str, variant: Variant) -> AppFacts:
    return AppFacts(
        python=PYTHON,
        directory=PROJECT,
        search_path=PROJECT,
        module=module,
        expression=expression,
        found_by="[app] target",
        framework="Flask",
        static_url="/static",
        static_folder=f"{PROJECT}/static",
        user=variant.user,
        group=variant.group,
    )


def statics(configured: Mapping[str, str] | str) -> tuple[Static, ...]:
    folders = {"/static": "static"} if isinstance(configured, str) else configured
    return tuple(
        Static(url, os.path.normpath(Path(PROJECT, folder)), exists=True, sample=f"{url}/a.css")
        for url, folder in folders.items()
    )


def private(configured: Mapping[str, str]) -> Iterator[Static]:
    for url, folder in configured.items():
        yield Static(url, os.path.normpath(Path(PROJECT, folder)), exists=True, sample="", private=True)


def planned(name: str, *overrides: Override) -> Plan:
    found = config(name, *overrides)
    return plan(found, facts(found, VARIANTS[name]), overrides)


def units() -> dict[str, str]:
    """The ready-made units: of the machine, as root prints them."""
    name = "as-root"
    made, known = replace(planned(name), name="shop"), facts(config(name), VARIANTS[name])
    command = ("/opt/stackctl/bin/stackctl",)
    return {
        f"{made.name}.service": unit.service(made, known, command, for_user=False),
        f"{made.name}.socket": unit.socket(made, known, command, for_user=False),
    }


def expected(path: str) -> str:
    """Where a file of the plan is kept here. Rendered Python is not ours to lint."""
    return f"expected/{path}".replace(".py", ".py.txt")


def main() -> None:
    for name in VARIANTS:
        shutil.rmtree(HERE / name / "expected", ignore_errors=True)
        for file in planned(name).files:
            path = HERE / name / expected(file.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text, "utf-8")
            sys.stderr.write(f"{path}\n")

    UNITS.mkdir(exist_ok=True)
    for unit_name, text in units().items():
        (UNITS / unit_name).write_text(text, "utf-8")
        sys.stderr.write(f"{UNITS / unit_name}\n")


if __name__ == "__main__":
    main()
