"""A config by `load`, and a machine as values: no process, no disk but the project's own stack.toml."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from stack.config import Config, load, parse_set
from stack.facts import AppFacts, Facts, Interpreter, Nginx, Static
from stack.plan import plan
from stack.rules import Problem, problems

MODULES = ("http_fastcgi_module", "http_proxy_module", "http_scgi_module", "http_uwsgi_module")
NGINX = Nginx("/usr/sbin/nginx", (1, 22, 1), MODULES)


def config(project: Path, text: str = "", *sets: str) -> Config:
    (project / "stack.toml").write_text(text, "utf-8")
    return load(project, [parse_set(each) for each in sets]).config


def facts(found: Config, **changes: Any) -> Facts:
    """A machine on which all is well, changed in these things."""
    app = AppFacts(
        python=Interpreter("/srv/shop/.venv/bin/python", (3, 12, 1), ".venv"),
        directory="/srv/shop",
        search_path="/srv/shop",
        module="shop.web",
        expression="app",
        found_by="app.py",
        framework="Flask",
        static_url="/static",
        static_folder="/srv/shop/static",
        user="",
    )
    static = Static("/static", "/srv/shop/static", exists=True, sample="/static/a%20b.css")
    made = Facts(
        user="ana",
        is_root=False,
        cpus=4,
        somaxconn=4096,
        runtime_dir="/run/stackctl/shop",
        nginx=NGINX,
        nginx_looked=("PATH",),
        apps=dict.fromkeys(found.apps, app),
        statics=dict.fromkeys(found.sites, (static,)),
    )
    return dataclasses.replace(made, **changes)


def broken(found: Config, **changes: Any) -> list[Problem]:
    """The rules that do not hold."""
    machine = facts(found, **changes)
    return list(problems(found, machine, plan(found, machine)))
