"""What to say when a setting is wrong: the file, the key as it is written there, what was meant perhaps."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from stack.config.document import App, Document, Logs, Programs, Server, Site, Smoke, Stack
from stack.errors import ConfigError

__all__ = ["did_you_mean", "explained"]


def explained(error: ValidationError, file: Path | None, origins: Mapping[str, str]) -> ConfigError:
    """The first wrong setting as the message, the others below it."""
    problems = [_problem(each, file, origins) for each in _distinct(error.errors(include_url=False))]
    (message, hint), others = problems[0], problems[1:]
    return ConfigError(message, hint, "\n".join(f"also: {each[0]}" for each in others))


def _distinct(errors: Iterable[Any]) -> Iterator[Any]:
    """A union complains once for each of its members; the first complaint is the useful one."""
    seen = set()
    for each in errors:
        key = _dotted(each["loc"])
        if key not in seen:
            seen.add(key)
            yield each


def _dotted(location: tuple[int | str, ...]) -> str:
    """The key as written in the file: without the parts that pydantic adds for unions and list items.

    The tables of a list are counted from 0: `smoke[1].status`.
    """
    parts: list[str] = []
    table: Any = Document
    for part in location:
        if table is list and isinstance(part, int):
            parts[-1] += f"[{part}]"
            table = Smoke
            continue
        fields = table.model_fields if isinstance(table, type) and issubclass(table, BaseModel) else None
        if (fields is None and table is not dict) or part == "[key]":
            break
        parts.append(str(part))
        table = _table_of(part, fields) if fields is not None else (App if parts[-2] == "apps" else Site)
    return ".".join(parts)


def _table_of(part: int | str, fields: Mapping[str, Any]) -> Any:
    known: dict[str, Any] = {
        "stack": Stack,
        "logs": Logs,
        "programs": Programs,
        "server": Server,
        "app": App,
        "site": Site,
    }
    known |= {"apps": dict, "sites": dict, "smoke": list}
    return known.get(str(part)) if part in fields and not (part == "app" and "web" in fields) else None


def _problem(error: Any, file: Path | None, origins: Mapping[str, str]) -> tuple[str, str]:
    key = _dotted(error["loc"])
    origin = origins.get(key.partition("[")[0]) or next(
        (each for name, each in origins.items() if name.startswith(key + ".")), None
    )
    where = str(file) if file is not None and origin in (None, file.name) else origin or "stack.toml"
    if error["type"] == "extra_forbidden":
        table, _, word = key.rpartition(".")
        known = _keys_of(table)
        return f"{where}: unknown key {key}", did_you_mean(word, known) or f"Known here: {', '.join(known)}."
    said = str(error["msg"]).removeprefix("Value error, ")
    given = error.get("input")
    shown = f" (it is {json.dumps(given, ensure_ascii=False)})" if isinstance(given, str | int | float) else ""
    said = said[0].lower() + said[1:]
    return f"{where}: {key} {said}{'' if repr(given) in said else shown}", _purpose(key)


def _keys_of(table: str) -> list[str]:
    model: Any = Document
    if table.startswith("smoke["):
        return list(Smoke.model_fields)
    for part in table.split(".") if table else ():
        fields = getattr(model, "model_fields", None)
        model = (_table_of(part, fields) if fields is not None else (App if "apps" in table else Site)) or model
    return list(getattr(model, "model_fields", {}))


def _purpose(key: str) -> str:
    table, _, word = key.rpartition(".")
    model: Any = {"stack": Stack, "logs": Logs, "programs": Programs, "server": Server}.get(table.split(".")[-1])
    named = {"app": App, "site": Site, "smoke": Smoke}
    model = model or next((each for name, each in named.items() if table.startswith(name)), None)
    found = model.model_fields.get(word) if model is not None else None
    return f"{word}: {found.description}." if found is not None else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known word; empty if none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else ""
