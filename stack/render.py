"""The one Jinja environment, and the only reader of `templates/`.

A template sees exactly what it is given: an unknown name is an error (StrictUndefined). Values reach a file through a
filter that quotes them in the file's own language, or refuses.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stack.errors import ConfigError

__all__ = ["render"]


def render(template: str, **values: Any) -> str:
    """The text of `templates/<template>` with these values.

    Raises:
        ConfigError: a value cannot be written in the file's language.
    """
    return _environment().get_template(template).render(**values)


def templates_directory() -> Path:
    """`stack/templates` in an installed wheel, the top-level `templates` in a checkout."""
    package = Path(__file__).parent
    installed = package / "templates"
    return installed if installed.is_dir() else package.parent / "templates"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(templates_directory()),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - nginx and Python, not HTML; the filters below quote
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"nginx": nginx_quoted, "python": python_quoted, "toml": toml_quoted, "seconds": seconds}
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


def python_quoted(value: str) -> str:
    """A string literal of Python."""
    return json.dumps(value, ensure_ascii=False) if value.isprintable() else ascii(value)


def toml_quoted(value: str) -> str:
    """A basic string of TOML."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def seconds(value: float) -> str:
    """A duration as nginx writes it: whole seconds where it can, else milliseconds."""
    return f"{value:g}s" if float(value).is_integer() else f"{round(value * 1000)}ms"
