"""deploy/example/stack.toml is the reference: every key of the models, once, with its default and a reason."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from stack.config import App, Logs, Programs, Server, Site, Smoke, Stack, load

FILE = Path(__file__).resolve().parents[2] / "deploy" / "example" / "stack.toml"
TABLES: dict[str, type[BaseModel]] = {
    "app": App,
    "server": Server,
    "site": Site,
    "stack": Stack,
    "logs": Logs,
    "programs": Programs,
    "smoke": Smoke,
}
LISTS = {"smoke": 'path = "/"\n'}  # written [[smoke]], and what each of them must say
HEAD = re.compile(r"(\[+)([a-z]+)\]+")
LINE = re.compile(r"(?P<off># )?(?P<key>[a-z_]+) = (?P<rest>.+)")
ON_PURPOSE = {  # what this one project sets
    ("app", "target"),
    ("app", "health"),
    ("site", "private"),
    ("smoke", "path"),
    ("smoke", "header"),
    ("smoke", "text"),
}


def reference(text: str) -> list[str]:
    """The lines without the further tables of a list: they show what one may write, the first says why."""
    seen: set[str] = set()
    kept, further = [], False
    for line in text.splitlines():
        if head := HEAD.match(line):
            further = head[2] in seen
            seen.add(head[2])
        if not further:
            kept.append(line)
    return kept


TEXT = FILE.read_text("utf-8")


def described(text: str) -> Iterator[tuple[str, str, bool, Any, str]]:
    """Table, key, whether it is commented out, value, and the comment behind it."""
    table = ""
    for line in reference(text):
        if head := HEAD.match(line):
            table = head[2]
        elif table and (found := LINE.fullmatch(line)):
            written, _, comment = found["rest"].partition("  # ")
            value = tomllib.loads(f"{found['key']} = {written}")[found["key"]]
            yield table, found["key"], bool(found["off"]), value, comment


SETTINGS = list(described(TEXT))


def keys(table: str) -> list[str]:
    return [key for key in TABLES[table].model_fields if (table, key) != ("app", "server")]


def test_every_line_of_the_file_is_understood_by_this_test() -> None:
    settings = [line for line in reference(TEXT) if " = " in line.partition("  #")[0]]
    assert len(settings) == len(SETTINGS)


@pytest.mark.parametrize("table", TABLES)
def test_every_key_of_a_table_stands_there_once_and_no_other(table: str) -> None:
    assert sorted(key for where, key, *_ in SETTINGS if where == table) == sorted(keys(table))


def test_there_is_no_other_table() -> None:
    heads = re.findall(r"^(\[+)([^\]]+)\]+", TEXT, re.MULTILINE)
    assert list(dict.fromkeys(name for _, name in heads)) == list(TABLES)
    assert all((brackets == "[[") == (name in LISTS) for brackets, name in heads)


@pytest.mark.parametrize(
    ("table", "key", "off", "value", "comment"), SETTINGS, ids=[f"{s[0]}.{s[1]}" for s in SETTINGS]
)
def test_what_is_commented_out_is_the_default(
    *, table: str, key: str, off: bool, value: object, comment: str, tmp_path: Path
) -> None:
    assert comment, "a key without its reason"
    assert off == ((table, key) not in ON_PURPOSE)
    if not off:
        return
    head = f"[[{table}]]\n{LISTS[table]}" if table in LISTS else f"[{table}]\n"
    file = tmp_path / "stack.toml"
    file.write_text(head, "utf-8")
    default = load(tmp_path).config
    file.write_text(f"{head}{key} = {written(value)}\n", "utf-8")
    assert load(tmp_path).config == default


def written(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {written(each)}' for key, each in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


def test_what_is_set_differs_from_the_default() -> None:
    for table, key, off, value, _ in SETTINGS:
        assert off or value != TABLES[table].model_fields[key].get_default()


def test_every_key_has_a_description_for_messages() -> None:
    for table, model in TABLES.items():
        for key in keys(table):
            assert model.model_fields[key].description


def test_the_file_loads() -> None:
    loaded = load(FILE.parent)
    assert loaded.file == FILE
    assert loaded.config.apps["app"].target == "app:app"
