"""Where settings come from, and how the later layer covers the earlier: file < environment < flag. No validation."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack.config.complaints import did_you_mean
from stack.config.document import App, Logs, Programs, Server, Site, Stack
from stack.errors import ConfigError, UsageError

__all__ = ["FILE", "Override", "environment_overrides", "find_project", "lay_over", "parse_set", "read"]

FILE = "stack.toml"
ENVIRONMENT = "STACKCTL_"


@dataclass(frozen=True, slots=True)
class Override:
    """A setting given from outside the file: dotted key, TOML value (or a bare string), and what gave it."""

    key: str
    value: str
    origin: str


def find_project(start: Path) -> Path:
    """The nearest directory from `start` upwards that has a stack.toml or a `[tool.stackctl]`; `start` if none has."""
    for directory in (start, *start.parents):
        if (directory / FILE).is_file() or _tool_table(directory) is not None:
            return directory
    return start


def parse_set(text: str, origin: str = "--set") -> Override:
    """An override from `key=value`.

    Raises:
        UsageError: it has no `=`, or the key is not dotted words.
    """
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", key.strip()):
        raise UsageError(f"{origin} {text}: this is not key=value", "For example: --set server.workers=4")
    return Override(key.strip(), value.strip(), f"{origin} {key.strip()}" if origin == "--set" else origin)


def environment_overrides(environ: Mapping[str, str]) -> tuple[Override, ...]:
    """The settings among the `STACKCTL_*` variables: STACKCTL_SERVER_WORKERS is server.workers, and so on.

    STACKCTL_NGINX is short for programs.nginx.

    Raises:
        ConfigError: a variable with our prefix names no setting.
    """
    names = {ENVIRONMENT + key.replace(".", "_").upper(): key for key in _scalar_keys()}
    names[ENVIRONMENT + "NGINX"] = "programs.nginx"
    found = []
    for variable in sorted(each for each in environ if each.startswith(ENVIRONMENT)):
        if variable not in names:
            raise ConfigError(
                f"the environment variable {variable} is not a setting of stackctl",
                did_you_mean(variable, names) or "Unset it. `stackctl config --origin` lists the settings.",
            )
        found.append(Override(names[variable], environ[variable], f"environment {variable}"))
    return tuple(found)


def read(project: Path) -> tuple[Path | None, dict[str, Any]]:
    """The settings in the project's file, and which file that is; nothing if there is none. Raises ConfigError."""
    file, tool = project / FILE, _tool_table(project)
    if not file.is_file():
        return (None, {}) if tool is None else (project / "pyproject.toml", tool)
    if tool is not None:
        raise ConfigError(
            f"{file} and [tool.stackctl] in pyproject.toml both configure this project", "Keep one of the two."
        )
    return file, _toml(file)


def _tool_table(directory: Path) -> dict[str, Any] | None:
    file = directory / "pyproject.toml"
    if not file.is_file():
        return None
    try:
        found = tomllib.loads(file.read_text("utf-8")).get("tool", {}).get("stackctl")
    except (OSError, ValueError):
        return None  # somebody else's file: not ours to complain about
    return found if isinstance(found, dict) else None


def _toml(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        lines = text.splitlines()
        number = min(int(found[1]) if found else len(lines), len(lines))
        shown = f"{number:4} | {lines[number - 1]}" if lines else ""
        if found and (column := re.search(r"column (\d+)", str(error))):
            shown += "\n" + " " * (len(f"{number:4} | ") + int(column[1]) - 1) + "^"
        raise ConfigError(f"{file} is not TOML: {error}", "Strings want quotes, tables [brackets].", shown) from None


def lay_over(merged: dict[str, Any], override: Override, origins: dict[str, str]) -> None:
    """Puts an override over what is there."""
    layer = _assignment(override)
    _clear_overruled(merged, layer, origins)
    merge(merged, layer, origins, override.origin)


def _assignment(override: Override) -> dict[str, Any]:
    """`a.b = value` as a nested table; a value that is not TOML is a string."""
    if "\n" not in override.value:
        try:
            return tomllib.loads(f"{override.key} = {override.value}")
        except tomllib.TOMLDecodeError:
            pass
    table: Any = override.value
    for part in reversed(override.key.split(".")):
        table = {part: table}
    return dict(table)


def merge(into: dict[str, Any], layer: dict[str, Any], origins: dict[str, str], origin: str, prefix: str = "") -> None:
    """Puts a layer over what is there, table into table, and notes who decided each value."""
    for key, value in layer.items():
        dotted = prefix + key
        if isinstance(value, dict):
            if not isinstance(into.get(key), dict):
                into[key] = {}
                origins.pop(dotted, None)
            merge(into[key], value, origins, origin, dotted + ".")
        else:
            into[key] = value
            origins[dotted] = origin


def _clear_overruled(merged: dict[str, Any], layer: dict[str, Any], origins: dict[str, str]) -> None:
    """`--workers 8` means every app: it overrules what the file says for one app alone."""
    server = layer.get("server")
    if not isinstance(server, dict):
        return
    tables = [("app", merged.get("app"))]
    apps = merged.get("apps")
    tables += [(f"apps.{name}", table) for name, table in apps.items()] if isinstance(apps, dict) else []
    for prefix, table in tables:
        own = table.get("server") if isinstance(table, dict) else None
        if not isinstance(own, dict):
            continue
        for key in server:
            own.pop(key, None)
            origins.pop(f"{prefix}.server.{key}", None)


def _scalar_keys() -> list[str]:
    """Every dotted key of the short forms that holds one value."""
    found = []
    tables: dict[str, Any] = {
        "stack": Stack,
        "logs": Logs,
        "programs": Programs,
        "app": App,
        "server": Server,
        "site": Site,
    }
    for table, model in tables.items():
        found += [f"{table}.{key}" for key in model.model_fields if key not in ("server", "env")]
    return found
