"""stack.toml, the environment and flags become a Config, or a message that says which key is wrong, and where."""

from __future__ import annotations

import json
import string
import tomllib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stack.cli import show
from stack.config import Config, Loaded, environment_overrides, find_project, load, parse_set
from stack.errors import ConfigError, UsageError


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "shop"
    directory.mkdir()
    return directory


def loaded(project: Path, text: str = "", *sets: str) -> Loaded:
    (project / "stack.toml").write_text(text, "utf-8")
    return load(project, [parse_set(each) for each in sets])


def config(project: Path, text: str = "", *sets: str) -> Config:
    return loaded(project, text, *sets).config


def refused(project: Path, text: str, *sets: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        loaded(project, text, *sets)
    return caught.value


# What stands in the file.


def test_a_project_without_a_file_is_served_with_the_defaults(project: Path) -> None:
    found = load(project)
    assert found.file is None
    assert (found.config.project, found.config.name) == (str(project), "shop")
    assert (list(found.config.apps), list(found.config.sites)) == (["app"], ["site"])
    assert found.config.apps["app"].server.workers == "auto"
    assert found.config.state_dir == project / ".stackctl"


def test_the_project_is_absolute(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.parent)
    assert load(Path("shop")).config.project == str(project)


@pytest.mark.parametrize(
    ("directory", "name"),
    [("My Shop!", "my-shop"), ("-_-", "stack"), ("Größe", "gr-e"), ("a" * 40, "a" * 32), ("été", "t"), ("x.y", "x-y")],
)
def test_the_directory_names_the_stack(tmp_path: Path, directory: str, name: str) -> None:
    (tmp_path / directory).mkdir()
    assert load(tmp_path / directory).config.name == name


def test_an_unknown_key_is_named_with_its_file_and_a_guess(project: Path) -> None:
    error = refused(project, "[server]\nwrokers = 4\n")
    assert str(project / "stack.toml") in error.message
    assert "unknown key server.wrokers" in error.message
    assert error.hint == "Did you mean workers?"


def test_an_unknown_key_far_from_all_others_lists_them(project: Path) -> None:
    assert refused(project, "[programs]\nqqqqq = 4\n").hint == "Known here: nginx."
    assert "sites" in refused(project, "qqqqq = 4\n").hint


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("[apps.x.server]\nthreds = 1", "apps.x.server.threds", "Did you mean threads?"),
        ("[app.server]\nthreds = 1", "app.server.threds", "Did you mean threads?"),
        ("[sites.x]\nlisn = 1", "sites.x.lisn", "Did you mean listen?"),
        ("[stak]\nname = 'x'", "stak", "Did you mean stack?"),
    ],
)
def test_an_unknown_key_is_found_in_long_forms_too(project: Path, text: str, key: str, hint: str) -> None:
    error = refused(project, text)
    assert f"unknown key {key}" in error.message
    assert error.hint == hint


def test_pyproject_is_the_file_that_a_message_names(project: Path) -> None:
    (project / "pyproject.toml").write_text("[tool.stackctl.server]\nwrokers = 4\n")
    with pytest.raises(ConfigError, match=r"pyproject\.toml: unknown key server.wrokers"):
        load(project)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[server]\nworkers = 0", "server.workers"),
        ("[server]\nworkers = -1", "server.workers"),
        ("[server]\nworkers = 'lots'", "server.workers"),
        ("[server]\nworkers = 1.5", "server.workers"),
        ("[server]\nthreads = true", "server.threads"),
        ("[server]\ntimeout = '30'", "server.timeout"),
        ("[server]\ntimeout = 0", "server.timeout"),
        ("[server]\ntimeout = inf", "server.timeout"),
        ("[server]\ntimeout = nan", "server.timeout"),
        ("[server]\nbacklog = 65536", "server.backlog"),
        ("server = 1", "server"),
        ("[app]\ntarget = 1", "app.target"),
        ("[apps.shop]\ntarget = 1", "apps.shop.target"),
        ("[app]\nhealth = 'healthz'", "app.health"),
        ("[app]\nhealth = '/a?b'", "app.health"),
        ("[app]\nhealth = '/../etc'", "app.health"),
        ("[app.env]\nA = true", "app.env"),
        ("[app.env]\n'A=B' = 'x'", "app.env"),
        ("[app.env]\n'' = 'x'", "app.env"),
        ("[app.env]\n\"A\\nB\" = 'x'", "app.env"),
        ("[apps.'X Y']\ntarget = 'a:b'", "apps.X Y"),
        ("[stack]\nname = 'UP'", "stack.name"),
        ("[site]\nstatic = 'atuo'", "site.static"),
        ("[site]\nstatic = { static = 'x' }", "site.static"),
        ("[site]\nstatic = { '/' = 'x' }", "site.static"),
        ("[site]\nstatic = { '/a' = 'x', '/a/' = 'y' }", "site.static"),
        ("[site]\nmax_body = '1.5m'", "site.max_body"),
        ("[site]\nmax_body = 0", "site.max_body"),
        ("[site]\nmax_body = true", "site.max_body"),
        ("[site]\nmax_body = '9999999999g'", "site.max_body"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(project: Path, text: str, key: str) -> None:
    error = refused(project, text)
    assert error.message.startswith(f"{project / 'stack.toml'}: {key} ")
    assert error.exit_code == 3


def test_the_others_that_are_wrong_are_said_below(project: Path) -> None:
    error = refused(project, "[server]\nworkers = 0\nthreads = 0\n")
    assert "server.workers" in error.message
    assert error.detail.splitlines() == [f"also: {project}/stack.toml: server.threads {TOO_SMALL} (it is 0)"]


TOO_SMALL = "input should be greater than or equal to 1"


def test_a_wrong_value_says_what_the_key_is_for(project: Path) -> None:
    assert refused(project, "[server]\nworkers = 0\n").hint.startswith("workers: processes")


def test_a_folder_map_is_told_of_its_own_fault(project: Path) -> None:
    assert "'static' is not the path of a URL" in refused(project, "[site]\nstatic = { static = 'x' }").message


@pytest.mark.parametrize("text", ["[a\nx = 1", "bad = = x", "[app]\ntarget = app:app\n", "\n\nx"])
def test_bad_toml_shows_its_line(project: Path, text: str) -> None:
    error = refused(project, text)
    assert "is not TOML" in error.message
    number, _, line = error.detail.partition(" | ")
    assert line.partition("\n")[0] == text.splitlines()[int(number) - 1]


def test_a_file_that_is_not_utf_8_is_refused(project: Path) -> None:
    (project / "stack.toml").write_bytes(b"[app]\ntarget = '\xff'\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(project)


def test_two_files_for_one_project_are_refused(project: Path) -> None:
    (project / "pyproject.toml").write_text("[tool.stackctl]\n")
    assert "both configure this project" in refused(project, "").message


def test_pyproject_alone_is_read(project: Path) -> None:
    (project / "pyproject.toml").write_text("[tool.stackctl.server]\nthreads = 9\n")
    found = load(project)
    assert found.config.apps["app"].server.threads == 9
    assert found.origin("server.threads") == "pyproject.toml"


@pytest.mark.parametrize("text", ["[tool.other]\n", "not toml", "[tool]\nstackctl = 1\n"])
def test_somebody_elses_pyproject_is_left_alone(project: Path, text: str) -> None:
    (project / "pyproject.toml").write_text(text)
    assert load(project).file is None


def test_the_project_is_found_from_below(project: Path) -> None:
    below = project / "a" / "b"
    below.mkdir(parents=True)
    assert find_project(below) == below
    (project / "pyproject.toml").write_text("[tool.stackctl]\n")
    assert find_project(below) == project
    (project / "a" / "stack.toml").write_text("")
    assert find_project(below) == project / "a"


# Short and long forms.


def test_each_app_starts_from_the_common_server(project: Path) -> None:
    text = "[server]\nthreads = 8\ntimeout = 9\n[apps.a]\n[apps.b.server]\nthreads = 2\n[site]\napp = 'a'\n"
    apps = config(project, text).apps
    assert [(app.server.threads, app.server.timeout) for app in apps.values()] == [(8, 9.0), (2, 9.0)]


def test_an_apps_own_default_value_covers_the_common_one(project: Path) -> None:
    text = "[server]\nworkers = 8\n[apps.a.server]\nworkers = 'auto'\n"
    assert config(project, text).apps["a"].server.workers == "auto"


def test_short_and_long_forms_do_not_mix(project: Path) -> None:
    assert "[app] is the short form" in refused(project, "[app]\ntarget = 'x'\n[apps.a]\ntarget = 'y'\n").message
    assert "[site] is the short form" in refused(project, "[site]\nweb = 'x'\n[sites.a]\nweb = 'y'\n").message


def test_a_flag_for_the_one_site_is_refused_where_there_are_several(project: Path) -> None:
    error = refused(project, "[sites.a]\nlisten = 1\n", "site.listen=9000")
    assert error.message.startswith("--set site.listen: [site] is the short form")


def test_a_site_among_several_apps_must_choose(project: Path) -> None:
    error = refused(project, "[apps.a]\n[apps.b]\n")
    assert (error.message, error.hint) == ("[sites.site] must say which app answers", "app = one of: a, b")


def test_a_site_of_an_app_that_is_not_there_is_refused(project: Path) -> None:
    error = refused(project, "[apps.shop]\n[site]\napp = 'shpo'\n")
    assert (error.message, error.hint) == ("[sites.site] app = 'shpo': there is no such app", "Did you mean shop?")


def test_the_only_app_answers(project: Path) -> None:
    found = config(project, "[apps.shop]\n")
    assert found.app_of(found.sites["site"]) == "shop"


# Addresses, sizes, names.


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("8000", ("0.0.0.0:8000",)),
        ("'8000'", ("0.0.0.0:8000",)),
        ("':80'", ("0.0.0.0:80",)),
        ("'*:80'", ("0.0.0.0:80",)),
        ("'localhost:80'", ("127.0.0.1:80",)),
        ("'127.0.0.1:08000'", ("127.0.0.1:8000",)),
        ("['80', '[::]:80', 81]", ("0.0.0.0:80", "[::]:80", "0.0.0.0:81")),
        ("['80', '*:80', '0.0.0.0:80']", ("0.0.0.0:80",)),
        ("'[0:0:0:0:0:0:0:1]:80'", ("[::1]:80",)),
    ],
)
def test_an_address_may_be_short(project: Path, written: str, meant: tuple[str, ...]) -> None:
    assert config(project, f"[site]\nlisten = {written}\n").sites["site"].listen == meant


@pytest.mark.parametrize(
    "written",
    ["'x'", "''", "[]", "0", "65536", "true", "8000.0", "'unix:/x'", "'999.1.1.1:80'", "'[zz]:80'", "'[:]:80'",
     "'::1:80'", "'80;'", "'80 ssl'", "'1.2.3:80'", '"80\\n"', "'-1'", "'٣'"],
)  # fmt: skip
def test_what_is_no_address_is_refused(project: Path, written: str) -> None:
    assert "site.listen" in refused(project, f"[site]\nlisten = {written}\n").message


@pytest.mark.parametrize(
    ("written", "count"), [("1", 1), ("'1'", 1), ("'2k'", 2048), ("'3M'", 3 * 2**20), ("'1g'", 2**30), ("5_000", 5000)]
)
def test_sizes_have_units(project: Path, written: str, count: int) -> None:
    assert config(project, f"[site]\nmax_body = {written}\n").sites["site"].max_body == count


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "a;b",
        "a{",
        "a}",
        '"a"',
        "'",
        "$host",
        "~^a",
        "a\\nb",
        "a\\n",
        "",
        "*",
        "*.",
        "-a",
        "a-",
        "é.org",
        "a#",
        ".a",
    ],
)
def test_a_server_name_cannot_break_out(project: Path, name: str) -> None:
    text = json.dumps(name).replace("\\\\n", "\\n")
    assert "site.server_names" in refused(project, f"[site]\nserver_names = ['ok.org', {text}]\n").message


def test_server_names_are_one_or_several_and_each_once(project: Path) -> None:
    assert config(project, "[site]\nserver_names = 'a.org'\n").sites["site"].server_names == ("a.org",)
    text = "[site]\nserver_names = ['*.a.org', '_', 'x', '*.a.org']\n"
    assert config(project, text).sites["site"].server_names == ("*.a.org", "_", "x")


def test_numbers_in_env_are_their_digits(project: Path) -> None:
    assert config(project, "[app.env]\nPORT = 80\nRATE = 0.5\n").apps["app"].env == {"PORT": "80", "RATE": "0.5"}


def test_a_config_is_frozen(project: Path) -> None:
    found = config(project)
    for table, key in ((found, "project"), (found.stack, "name"), (found.apps["app"].server, "workers")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(table, key, "other")


# Layers.


def test_flag_covers_environment_covers_file_covers_default(project: Path) -> None:
    text = "[server]\nworkers = 2\nthreads = 2\ntimeout = 2\n"
    (project / "stack.toml").write_text(text)
    environment = environment_overrides({"STACKCTL_SERVER_THREADS": "3", "STACKCTL_SERVER_TIMEOUT": "3", "HOME": "/x"})
    found = load(project, (*environment, parse_set("server.timeout=4")))
    server = found.config.apps["app"].server
    assert (server.workers, server.threads, server.timeout, server.backlog) == (2, 3, 4.0, "auto")
    assert [found.origin(f"server.{key}") for key in ("workers", "threads", "timeout", "backlog")] == [
        "stack.toml",
        "environment STACKCTL_SERVER_THREADS",
        "--set server.timeout",
        "default",
    ]


def test_a_message_names_the_layer_that_is_wrong(project: Path) -> None:
    text = "[server]\nworkers = 2\n"
    assert refused(project, text, "server.workers=many").message.startswith("--set server.workers: server.workers ")
    (project / "stack.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"environment STACKCTL_SERVER_WORKERS: server.workers"):
        load(project, environment_overrides({"STACKCTL_SERVER_WORKERS": "0"}))


def test_the_workers_flag_overrules_what_the_file_says_for_one_app(project: Path) -> None:
    text = "[apps.a.server]\nworkers = 2\nthreads = 3\n[apps.b.server]\nworkers = 5\n[site]\napp = 'a'\n"
    found = loaded(project, text, "server.workers=9")
    assert [app.server.workers for app in found.config.apps.values()] == [9, 9]
    assert found.config.apps["a"].server.threads == 3
    assert found.origin("apps.a.server.workers", "server.workers") == "--set server.workers"
    assert config(project, "[app.server]\nworkers = 2\n", "server.workers=9").apps["app"].server.workers == 9


def test_a_flag_for_one_app_alone_is_for_it_alone(project: Path) -> None:
    text = "[apps.a]\n[apps.b]\n[site]\napp = 'a'\n"
    apps = config(project, text, "server.workers=9", "apps.b.server.workers=3").apps
    assert [app.server.workers for app in apps.values()] == [9, 3]


@pytest.mark.parametrize("text", ["", "[app.server]\nthreads = 3\n"])
def test_a_value_where_a_table_belongs_is_refused_from_a_flag_too(project: Path, text: str) -> None:
    assert refused(project, text, "server=4").message.startswith("--set server: server ")


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ('app.target="a:b"', "a:b"),
        ("app.target=a:b", "a:b"),
        ("app.target=shop:create_app('x')", "shop:create_app('x')"),
        ("app.target = a:b ", "a:b"),
        ("app.target=", ""),
        ("app.target=a=b", "a=b"),
    ],
)
def test_set_takes_toml_or_a_bare_string(project: Path, given: str, target: str) -> None:
    assert config(project, "", given).apps["app"].target == target


def test_set_takes_lists_and_tables(project: Path) -> None:
    found = config(project, "[app.env]\nA = 'file'\n", 'site.listen=["80", 81]', "app.env={B = 'x'}", "app.env.C=1")
    assert found.sites["site"].listen == ("0.0.0.0:80", "0.0.0.0:81")
    assert found.apps["app"].env == {"A": "file", "B": "x", "C": "1"}


@pytest.mark.parametrize("text", ["workers", "=4", "a..b=1", "a b=1", "", "a.=1"])
def test_set_that_is_no_key_and_value_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="this is not key=value"):
        parse_set(text)


def test_an_unknown_variable_of_ours_is_refused() -> None:
    with pytest.raises(ConfigError, match="STACKCTL_SERVER_WROKERS is not a setting") as caught:
        environment_overrides({"STACKCTL_SERVER_WROKERS": "4"})
    assert caught.value.hint == "Did you mean STACKCTL_SERVER_WORKERS?"


def test_nginx_has_a_short_variable() -> None:
    (found,) = environment_overrides({"STACKCTL_NGINX": "/x/nginx", "NGINX": "no"})
    assert (found.key, found.value) == ("programs.nginx", "/x/nginx")


def test_a_table_has_the_origin_of_what_is_in_it(project: Path) -> None:
    found = loaded(project, "[app.env]\nA = 'x'\n[site.static]\n'/a' = 'x'\n")
    assert found.origin("app.env") == "stack.toml"
    assert found.origin("site.static") == "stack.toml"
    assert found.origin("app.envi") == "default"


def test_bytes_of_the_environment_that_are_no_text_are_refused(project: Path) -> None:
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load(project, environment_overrides({"STACKCTL_APP_TARGET": "caf\udce9:app"}))


def test_what_is_shown_is_toml_and_says_the_same(project: Path) -> None:
    text = "[apps.a]\nenv = { A = 'x\"y' }\n[apps.b]\n[site]\napp = 'a'\nstatic = { '/m' = 'é \\' }\n"
    found = loaded(project, text)
    shown = tomllib.loads(show.config(found, origin=True))
    shown["apps"]["a"]["server"]["timeout"] = float(shown["apps"]["a"]["server"]["timeout"])
    assert shown["apps"]["a"]["env"] == {"A": 'x"y'}
    (project / "stack.toml").write_text(show.config(found, origin=False), "utf-8")
    assert load(project).config == found.config


# Whatever is written, no control character gets into a config.

STRING_KEYS = (
    "stack.name",
    "stack.state_dir",
    "stack.runtime_dir",
    "programs.nginx",
    "server.engine",
    "server.protocol",
    "app.target",
    "app.directory",
    "app.python",
    "app.env_file",
    "app.user",
    "app.health",
    "app.env.A",
    "site.web",
    "site.listen",
    "site.server_names",
    "site.static",
    "site.app",
)
DIRTY = st.text(st.sampled_from(string.ascii_lowercase + "/:.*[]1 é\x00\n\r\t\x1b\x7f\x85\x9b"), min_size=1, max_size=8)


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from texts(key)
            yield from texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from texts(each)


@given(key=st.sampled_from(STRING_KEYS), value=DIRTY, shape=st.sampled_from(["plain", "list", "value", "key"]))
def test_no_control_character_gets_in(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: str, shape: str
) -> None:
    project = tmp_path_factory.getbasetemp()  # it has no stack.toml
    quoted = json.dumps(value).replace("\x7f", "\\u007f")
    written = {
        "plain": quoted,
        "list": f"[{quoted}]",
        "value": f'{{"/a" = {quoted}}}',
        "key": f"{{{quoted} = 'x'}}",
    }[shape]
    try:
        found = load(project, [parse_set(f"{key}={written}")]).config
    except ConfigError as error:
        assert "\n" not in error.message  # noqa: PT017 - either way is fine; a message stays on its line
        return
    assert not [each for each in texts(found.model_dump()) if any(unicodedata.category(c) == "Cc" for c in each)]
