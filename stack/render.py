"""The one Jinja environment, and the only reader of `templates/`.

A template sees exactly what it is given: an unknown name is an error (StrictUndefined). Values reach a file through a
filter that quotes them in the file's own language, or refuses.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stack.errors import ConfigError

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["load", "render"]

PLAIN = re.compile(r"[\w@%+=:,./-]+")  # needs no quotes in a unit of systemd


def render(template: str, **values: Any) -> str:
    """The text of `templates/<template>` with these values.

    Raises:
        ConfigError: a value cannot be written in the file's language.
    """
    return _environment().get_template(template).render(**values)


def load(*folders: str) -> None:
    """Compiles the templates in these folders: no later `render` has to, if there is time for it now."""
    for each in _environment().list_templates():
        if each.startswith(folders):
            _environment().get_template(each)


def templates_directory() -> Path:
    """`stack/templates` in an installed wheel, the top-level `templates` in a checkout."""
    package = Path(__file__).parent
    installed = package / "templates"
    return installed if installed.is_dir() else package.parent / "templates"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - most commands render nothing

    environment = Environment(
        loader=FileSystemLoader(templates_directory()),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - nginx and Python, not HTML; the filters below quote
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"nginx": nginx_quoted, "python": python_quoted, "toml": toml_quoted, "seconds": seconds}
    environment.filters |= {"systemd": systemd_quoted, "lua": lua_quoted}
    return environment


def nginx_quoted(text: str, dollar: str = "") -> str:
    """A string for nginx, in double quotes.

    nginx cannot escape a `$` where it looks for variables; there `dollar` names a variable that holds one. Where it
    takes a `$` as it is (upstream addresses, file names at start), leave `dollar` empty.

    Raises:
        ConfigError: a control character, which could end a line.
    """
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ConfigError(f"{text!r} has a control character and cannot stand in an nginx file", "Rename it.")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + (escaped.replace("$", "${" + dollar + "}") if dollar else escaped) + '"'


def systemd_quoted(text: str, dollar: str = "$") -> str:
    """A word for a unit of systemd: quoted, and without specifiers; see systemd.syntax(7).

    Where systemd puts in variables, which is in commands alone, `dollar` is `$$`.

    Raises:
        ConfigError: a control character, which could end a line.
    """
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ConfigError(f"{text!r} has a control character and cannot stand in a unit of systemd", "Rename it.")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", dollar)
    return escaped if PLAIN.fullmatch(text) else f'"{escaped}"'


def python_quoted(value: str) -> str:
    """A string literal of Python."""
    return json.dumps(value, ensure_ascii=False) if value.isprintable() else ascii(value)


def lua_quoted(value: str) -> str:
    """A string of Lua, which knows bytes only."""
    plain = (chr(each) if 32 <= each < 127 and each not in b'"\\' else f"\\{each:03d}" for each in value.encode())
    return '"' + "".join(plain) + '"'


def toml_quoted(value: str) -> str:
    """A basic string of TOML."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def seconds(value: float) -> str:
    """A duration as nginx writes it: whole seconds where it can, else milliseconds."""
    return f"{value:g}s" if float(value).is_integer() else f"{round(value * 1000)}ms"
