"""`[[smoke]]`: what may be asked for, and what is said where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from stack.cli import show
from stack.config import Smoke, load, parse_set
from stack.errors import ConfigError


def smokes(project: Path, text: str, *sets: str) -> tuple[Smoke, ...]:
    (project / "stack.toml").write_text(text, "utf-8")
    return load(project, [parse_set(each) for each in sets]).config.smoke


def refused(project: Path, text: str, *sets: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        smokes(project, text, *sets)
    return caught.value


def test_nothing_is_asked_for_unless_it_is_listed(tmp_path: Path) -> None:
    assert smokes(tmp_path, "") == ()


def test_requests_keep_their_order(tmp_path: Path) -> None:
    found = smokes(tmp_path, '[[smoke]]\npath = "/b?x=1&y=%20"\n[[smoke]]\npath = "/a"\nstatus = 404\n')
    assert [(each.path, each.status) for each in found] == [("/b?x=1&y=%20", "auto"), ("/a", 404)]


def test_a_single_table_is_one_request(tmp_path: Path) -> None:
    assert smokes(tmp_path, '[smoke]\npath = "/a"\n') == (Smoke(path="/a"),)


@pytest.mark.parametrize(
    ("written", "header"),
    [
        ('"Content-Type: text/html; charset=utf-8"', {"Content-Type": "text/html; charset=utf-8"}),
        ('"ETag"', {"ETag": ""}),
        ('"Location: http://a/"', {"Location": "http://a/"}),
        ('{ ETag = "", Vary = "Cookie" }', {"ETag": "", "Vary": "Cookie"}),
    ],
)
def test_a_header_is_a_line_or_a_table(written: str, header: dict[str, str], tmp_path: Path) -> None:
    assert smokes(tmp_path, f'[[smoke]]\npath = "/"\nheader = {written}\n')[0].header == header


def test_a_body_may_have_lines(tmp_path: Path) -> None:
    assert smokes(tmp_path, '[[smoke]]\npath = "/"\nbody = """{\n"a": 1}"""\n')[0].body == '{\n"a": 1}'


@pytest.mark.parametrize(
    ("line", "key", "said"),
    [
        ('status = "ok"', "smoke[1].status", "integer"),
        ("status = 99", "smoke[1].status", "greater"),
        ("status = true", "smoke[1].status", "integer"),
        ('method = "BREW"', "smoke[1].method", "GET"),
        ('header = "no name: x"', "smoke[1].header", "name of a header"),
        ("max_seconds = 0", "smoke[1].max_seconds", "greater"),
        ('text = "a\\nb"', "smoke[1].text", "newline"),
        ('site = "nowhere"', "smoke[1].site", "no such site"),
    ],
)
def test_a_wrong_value_is_named_with_its_table(line: str, key: str, said: str, tmp_path: Path) -> None:
    error = refused(tmp_path, f'[[smoke]]\npath = "/"\n[[smoke]]\npath = "/"\n{line}\n')
    assert key in error.message
    assert said in error.message
    assert error.hint


@pytest.mark.parametrize("path", ["", "a", "/a b", "/a#b", "/a\\u00e9", "/a\\r\\nHost: b", "http://a/"])
def test_what_is_no_path_is_refused(path: str, tmp_path: Path) -> None:
    assert "smoke[0].path" in refused(tmp_path, f'[[smoke]]\npath = "{path}"\n').message


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    assert "smoke[0].path" in refused(tmp_path, "[[smoke]]\nstatus = 404\n").message


def test_an_unknown_key_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    error = refused(tmp_path, '[[smoke]]\npath = "/"\n[[smoke]]\npath = "/"\nmax_secnds = 1\n')
    assert "unknown key smoke[1].max_secnds" in error.message
    assert error.hint == "Did you mean max_seconds?"


def test_a_site_is_one_of_those_that_there_are(tmp_path: Path) -> None:
    sites = '[sites.a]\nserver_names = ["a"]\n[sites.b]\nserver_names = ["b"]\n'
    assert smokes(tmp_path, sites + '[[smoke]]\npath = "/"\nsite = "b"\n')[0].site == "b"
    assert "a, b" in refused(tmp_path, sites + '[[smoke]]\npath = "/"\nsite = "xyz"\n').hint


def test_a_flag_is_named_where_it_is_wrong(tmp_path: Path) -> None:
    assert refused(tmp_path, "", 'smoke=[{path="x"}]').message.startswith("--set smoke: smoke[0].path")
    assert smokes(tmp_path, "", 'smoke=[{path="/x"}]') == (Smoke(path="/x"),)


def test_config_prints_the_list_as_toml_that_is_read_again(tmp_path: Path) -> None:
    text = '[[smoke]]\npath = "/"\nheader = "A: b"\n[[smoke]]\npath = "/x"\nstatus = 404\n'
    first = smokes(tmp_path, text)
    printed = show.config(load(tmp_path), origin=False).splitlines()[-1]
    assert smokes(tmp_path, printed) == first
