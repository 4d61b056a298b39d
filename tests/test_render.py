"""Values in the languages of the files that they go to, and errors as a terminal shows them."""

from __future__ import annotations

import ast
import json
import shlex
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from stack import errors
from stack.errors import ConfigError, StackError, told
from stack.render import nginx_quoted, python_quoted, render, seconds, systemd_quoted, templates_directory, toml_quoted

CHARACTERS = st.characters(exclude_categories=["Cs"])


def nginx_read(text: str) -> str:
    """A quoted word as nginx's ngx_conf_read_token takes it: a backslash before a quote or a backslash falls away."""
    assert text[0] == text[-1] == '"'
    read, rest = "", text[1:-1]
    while rest:
        if rest[0] == "\\":
            assert rest[1] in '"\\'
            rest = rest[1:]
        else:
            assert rest[0] != '"'
        read, rest = read + rest[0], rest[1:]
    return read


@given(st.text(CHARACTERS))
def test_nginx_reads_what_was_meant_or_it_is_refused(text: str) -> None:
    if any(ord(each) < 32 or ord(each) == 127 for each in text):
        with pytest.raises(ConfigError) as caught:
            nginx_quoted(text)
        assert "\n" not in caught.value.message
    else:
        assert "\n" not in nginx_quoted(text)
        assert nginx_read(nginx_quoted(text)) == text


def test_a_dollar_becomes_the_variable_that_holds_one() -> None:
    assert nginx_quoted("$a$", "d") == '"${d}a${d}"'
    assert nginx_quoted("$a$") == '"$a$"'


def systemd_read(text: str, *, command: bool) -> str:
    """A word as systemd takes it: unquoted and unescaped (extract-word.c), without specifiers, then variables."""
    (word,) = shlex.split(text)  # the same, for a word in double quotes with no escapes but those of \ and "
    plain = word.replace("%%", "%")
    assert "%" not in word.replace("%%", "")
    if not command:
        return plain
    assert "$" not in plain.replace("$$", "")
    return plain.replace("$$", "$")


@given(st.text(CHARACTERS))
def test_systemd_reads_what_was_meant_or_it_is_refused(text: str) -> None:
    if any(ord(each) < 32 or ord(each) == 127 for each in text):
        with pytest.raises(ConfigError):
            systemd_quoted(text)
    else:
        assert systemd_read(systemd_quoted(text), command=False) == text
        assert systemd_read(systemd_quoted(text, "$$"), command=True) == text


@given(st.text())
def test_python_reads_what_was_meant(text: str) -> None:
    quoted = python_quoted(text)
    assert ast.literal_eval(quoted) == text
    assert quoted.isprintable()


@given(st.text(CHARACTERS))
def test_toml_reads_what_was_meant(text: str) -> None:
    assert tomllib.loads(f"x = {toml_quoted(text)}") == {"x": text}


@pytest.mark.parametrize(
    ("value", "text"), [(30.0, "30s"), (30, "30s"), (86405.0, "86405s"), (0.5, "500ms"), (1.0005, "1000ms")]
)
def test_durations_are_whole_seconds_or_milliseconds(value: float, text: str) -> None:
    assert seconds(value) == text


def test_an_unknown_name_in_a_template_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("nginx/site.conf.j2", name="x")


def test_the_entry_file_quotes_what_it_is_given() -> None:
    path = 'a"b\n\\'
    names = {"name": "x", "module": "a", "expression": "b", "expression_name": "b"}
    text = render("app/entry.py.j2", search_path=path, flask=True, plain=True, **names)
    assert path in [each.value for each in ast.walk(ast.parse(text)) if isinstance(each, ast.Constant)]


def test_the_first_stack_toml_has_only_defaults_and_what_was_found() -> None:
    text = render("init/stack.toml.j2", name="shop", target='shop:create_app("x")', env_file=".env")
    found = tomllib.loads(text)
    assert found["app"] == {"target": 'shop:create_app("x")', "env_file": ".env"}
    assert tomllib.loads(render("init/stack.toml.j2", name="shop", target="", env_file=""))["app"] == {}


def test_there_are_templates() -> None:
    assert (templates_directory() / "nginx" / "site.conf.j2").is_file()


# Errors.


def test_an_error_is_told_with_its_detail_and_the_next_step() -> None:
    assert told("it broke", "line 1\nline 2", "do this\nor that") == (
        "stackctl: it broke\n    line 1\n    line 2\n  -> do this\n  -> or that"
    )
    assert told("it broke") == "stackctl: it broke"


def test_each_kind_has_an_exit_code_of_its_own() -> None:
    kinds = [getattr(errors, name) for name in errors.__all__ if name != "told"]
    assert sorted(kind.exit_code for kind in kinds) == [1, 2, 3, 4, 5]
    assert all(issubclass(kind, StackError) for kind in kinds)


def test_an_error_is_its_message() -> None:
    error = StackError("what", "next", "said")
    assert (str(error), error.hint, error.detail) == ("what", "next", "said")
    assert json.dumps(str(error)) == '"what"'
