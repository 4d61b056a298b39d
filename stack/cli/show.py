"""Results as text for a terminal, at most 80 columns where it is ours to choose; colour only where it is seen."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stack.config import App, Config, Loaded, Server, Site
from stack.desired import Plan

if TYPE_CHECKING:
    from stack.health import Finding
    from stack.limits import Limit
    from stack.operations.explain import Explained

__all__ = ["coloured", "config", "config_json", "explained", "finding", "server_conf", "settings", "status"]


WIDTH = 80


def status(found: dict[str, Any]) -> str:
    """The running stack: a line about it, one for each service, one for each generation."""
    lines = [f"{found['name']}  {found['url']}  pid {found['pid']}, up {_ago(found['since'])}"]
    for service in found["services"]:
        restarts = f"{service['restarts']} restarts, the last: {service['last_end']}" if service["restarts"] else ""
        good = service["state"] == "serving"
        lines.append(f"{coloured('32' if good else '31', service['state']):8} {service['name']:12} {restarts}".rstrip())
        for each in service["generations"]:
            since = _ago(each["since"]) if each["since"] else "?"
            lines.append(f"           generation {each['number']}  pid {each['pid']}  {each['state']}  {since}")
            if each.get("workers"):
                lines.append(f"             {_workers(each['workers'])}")
    return "\n".join(lines)


def _workers(found: list[dict[str, Any]]) -> str:
    """What the workers of a generation do, in all."""
    busy, requests, errors = (sum(each[key] for each in found) for key in ("busy", "requests", "errors"))
    rate, memory = sum(each["requests_per_second"] for each in found), sum(each["pss"] or each["rss"] for each in found)
    return (
        f"{len(found)} workers, {busy} threads busy, {requests} requests ({rate:.1f}/s, {errors} errors), "
        f"{memory >> 20} MB"
    )


def finding(found: Finding) -> str:
    """One hop: whether it works, how long it took, what was tried and seen, and what to do."""
    word = coloured("32", "ok  ") if found.passed else coloured("31", "FAIL")
    lines = [f"{word} {found.seconds * 1000:7.1f} ms  {found.title}"]
    if found.passed:
        lines.append(f"                 {found.tried}: {found.saw}")
    else:
        lines += [f"                 {found.tried}", f"                 {found.problem}"]
        lines += [f"              -> {line}" for line in found.hint.splitlines()]
    return "\n".join(lines)


def server_conf(plan: Plan, apps: tuple[str, ...]) -> str:
    """Every app's entry file and command."""
    parts = []
    for name in apps:
        service = plan.service(name)
        if service is None:
            continue
        parts += [f"# {file.path}\n{file.text}" for file in plan.files if file.path.startswith(f"apps/{name}/")]
        names = [f"#   {each} (from [app] env)" for each in service.env]
        names += [f"#   what {service.env_file} says" if service.env_file else ""]
        environment = "\n".join(each for each in names if each)
        parts.append(
            f"# command of {name}, in {service.cwd}\n{environment}\n".replace("\n\n", "\n") + shlex.join(service.argv)
        )
    return "\n".join(parts)


def config(loaded: Loaded, *, origin: bool) -> str:
    """Every setting as a line of TOML, `key = value`, with its origin as a comment if wanted."""
    rows = [(f"{key} = {_toml(value)}", loaded.origin(*keys)) for key, keys, value in settings(loaded.config)]
    width = min(44, max(len(line) for line, _ in rows))
    return "\n".join(f"{line:{width}}  # {where}" if origin else line for line, where in rows)


def config_json(loaded: Loaded) -> str:
    """The settings as one JSON object."""
    return json.dumps(loaded.config.model_dump(mode="json"), indent=2, ensure_ascii=False)


def explained(found: Iterable[Explained]) -> str:
    """Every chain of limits: its rule, then for each link the value, who enforces it, its origin, and why."""
    parts = []
    for each in found:
        broken = "" if each.chain.holds else coloured("31", "  CONTRADICTED")
        parts.append(f"{each.chain.topic} of {each.chain.of}{broken}\n  {each.chain.rule}")
        parts += [_link(limit, by) for limit, by in zip(each.chain.limits, each.decided_by, strict=True)]
    return "\n".join(parts)


def _link(limit: Limit, decided_by: str) -> str:
    origin = limit.origin + (f" ({decided_by})" if decided_by else "")
    indent = " " * 11
    line = f"{_amount(limit):>9}  {limit.program + ' ' + limit.key}"
    together = f"{line:45} {origin}"
    first = together if len(together) <= WIDTH else f"{line}\n{indent}{origin}"
    return f"{first}\n{indent}{limit.why}"


def _amount(limit: Limit) -> str:
    """The value as nginx writes it, and as a person reads it."""
    if limit.unit != "bytes":
        return f"{limit.value:g} s" if limit.unit == "s" else f"{limit.value:.0f}"
    for unit, size in (("MB", 1024**2), ("KB", 1024)):
        if limit.value and limit.value % size == 0:
            return f"{limit.value / size:.0f} {unit}"
    return f"{limit.value:.0f} B"


def settings(found: Config) -> list[tuple[str, tuple[str, ...], Any]]:
    """Every setting: key to show, keys that may have decided it, value."""
    rows: list[tuple[str, tuple[str, ...], Any]] = []
    for table in ("stack", "logs", "programs"):
        model = getattr(found, table)
        rows += [(f"{table}.{key}", (f"{table}.{key}",), getattr(model, key)) for key in type(model).model_fields]
    single = len(found.apps) == 1 and "app" in found.apps
    for name, app in found.apps.items():
        prefix = "app" if single else f"apps.{name}"
        rows += [
            (f"{prefix}.{key}", _keys(prefix, key), getattr(app, key)) for key in App.model_fields if key != "server"
        ]
        for key in Server.model_fields:
            own = f"{prefix}.server.{key}"
            rows.append((f"server.{key}" if single else own, (own, f"server.{key}"), getattr(app.server, key)))
    for name, site in found.sites.items():
        prefix = "site" if len(found.sites) == 1 and name == "site" else f"sites.{name}"
        rows += [(f"{prefix}.{key}", _keys(prefix, key), getattr(site, key)) for key in Site.model_fields]
    rows.append(("smoke", ("smoke",), [each.model_dump(exclude_unset=True) for each in found.smoke]))
    return rows


def _keys(prefix: str, key: str) -> tuple[str, ...]:
    return (f"{prefix}.{key}",)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _ago(since: float) -> str:
    seconds = max(0, int(time.time() - since))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def coloured(code: str, text: str) -> str:
    """The text in a colour of ECMA-48 where a person sees it, else as it is."""
    return f"\x1b[{code}m{text}\x1b[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text
