"""Real apps, found by real child processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from stack.config import load, parse_set
from stack.errors import ConfigError, StackError
from stack.facts import AppFacts, look
from stack.facts.app import SCRIPT, find_app
from stack.facts.interpreter import find_interpreter

APPS = Path(__file__).parent / "apps" / "discovery"
FLASK = f"Flask {version('flask')}"
PLAIN = "def app(environ, start_response): ...\n"
ENVIRON = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}


def found(project: Path, *settings: str, environ: dict[str, str] | None = None) -> AppFacts:
    """The app of the project. Whom root would take for it, and what else there is to look at, is for test_facts.py."""
    overrides = [parse_set(each) for each in (f"app.python={sys.executable}", "app.user=root", *settings)]
    config, environ = load(project, overrides).config, environ or ENVIRON
    return find_app(config, "app", find_interpreter(config, "app", environ), environ, lambda: None)


def refused(project: Path, *settings: str, environ: dict[str, str] | None = None) -> StackError:
    with pytest.raises(StackError) as caught:
        found(project, *settings, environ=environ)
    return caught.value


def target(text: str) -> str:
    return f"app.target={json.dumps(text)}"


def asked_by_hand(directory: Path, request: dict[str, Any], *options: str) -> dict[str, Any]:
    reading, writing = os.pipe()
    try:
        words = [sys.executable, *options, SCRIPT, json.dumps({"answer": writing, "within": 30, **request})]
        subprocess.run(words, cwd=directory, pass_fds=(writing,), timeout=60, check=True)
        os.close(writing)
        with os.fdopen(reading, "rb", closefd=False) as stream:
            answer = json.loads(stream.read())
    finally:
        os.close(reading)
    assert isinstance(answer, dict)
    return answer


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """Writes a project: files by path, modules by keyword."""

    def written(files: Mapping[str, str] = MappingProxyType({}), **modules: str) -> Path:
        for name, text in {**files, **{f"{each}.py": modules[each] for each in modules}}.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return written


# What Flask would find.


def test_app_py_is_found_without_a_word() -> None:
    app = found(APPS / "plain_flask")
    assert (app.found_by, app.module, app.expression, app.framework) == ("app.py", "app", "app", FLASK)
    assert app.directory == app.search_path == str(APPS / "plain_flask")
    assert (app.static_url, app.static_folder) == ("/static", str(APPS / "plain_flask" / "static"))


def test_wsgi_py_comes_before_app_py() -> None:
    assert found(APPS / "wsgi_first").found_by == "wsgi.py"


def test_a_package_named_app_counts(project: Callable[..., Path]) -> None:
    app = found(project({"app/__init__.py": "def create_app(): return lambda environ, start_response: []\n"}))
    assert (app.found_by, app.module, app.expression) == ("app/__init__.py", "app", "create_app()")


def test_wsgi_py_without_an_app_does_not_hide_app_py(project: Callable[..., Path]) -> None:
    assert found(project(wsgi="x = 1\n", app="from flask import Flask\nsite = Flask('x')\n")).expression == "site"


def test_flask_app_in_the_environment_is_followed() -> None:
    app = found(APPS / "package", environ={**ENVIRON, "FLASK_APP": "src/shop/web.py"})
    assert (app.found_by, app.module, app.expression) == ("FLASK_APP", "shop.web", "site")
    assert app.search_path == str(APPS / "package" / "src")


def test_flask_app_in_the_apps_own_environment_is_followed() -> None:
    assert found(APPS / "plain_factory", "app.env.FLASK_APP=shop").found_by == "FLASK_APP"


def test_env_rules_over_flaskenv_as_in_flask(tmp_path: Path) -> None:
    project = Path(shutil.copytree(APPS / "plain_factory", tmp_path / "copy"))
    (project / ".flaskenv").write_text("FLASK_APP=shop:create_app('flaskenv')\n")
    app = found(project)
    assert (app.found_by, app.expression) == (".flaskenv", "create_app('flaskenv')")
    (project / ".env").write_text("export FLASK_APP=\"shop:create_app('env')\"\n")
    app = found(project)
    assert (app.found_by, app.expression) == (".env", "create_app('env')")


def test_target_rules_over_the_environment() -> None:
    app = found(APPS / "plain_factory", target("shop:create_app"), environ={**ENVIRON, "FLASK_APP": "nonsense"})
    assert (app.found_by, app.module, app.expression) == ("target", "shop", "create_app()")


# What a target may say.


@pytest.mark.parametrize(
    ("project", "text", "expression", "framework"),
    [
        ("factory", "shop", "create_app()", FLASK),
        ("factory", "shop:create_app()", "create_app()", FLASK),
        ("plain_factory", "shop:create_app", "create_app()", "WSGI callable"),
        ("plain_factory", "shop:create_app( 'prod',debug = True )", "create_app('prod', debug=True)", "WSGI callable"),
        ("plain_factory", "shop:make_shop('prod')", "make_shop('prod')", "WSGI callable"),
        ("factory", "shop/__init__.py:create_app", "create_app()", FLASK),
        ("factory", "shop:holder.inner", "holder.inner", FLASK),
        ("factory", "shop:holder.inner.wsgi_app", "holder.inner.wsgi_app", FLASK),
        ("several", "app:admin", "admin", FLASK),
        ("several", "app.py:admin", "admin", FLASK),
        ("package", "src/shop/web:site", "site", FLASK),
        ("callable", "wsgi", "application", "WSGI callable"),
        ("callable", "wsgi:plain", "plain", "WSGI callable"),
        ("callable", "wsgi:factory", "factory()", "WSGI callable"),
        ("callable", "wsgi:instance", "instance", "WSGI callable"),
        ("callable", "wsgi:PerRequest", "PerRequest", "WSGI callable"),
        ("callable", "wsgi:Instance()", "Instance()", "WSGI callable"),
        ("middleware", "wsgi", "application", "WSGI callable"),
        ("middleware", "wsgi:inner", "inner", FLASK),
    ],
)
def test_targets(project: str, text: str, expression: str, framework: str) -> None:
    app = found(APPS / project, target(text))
    assert (app.expression, app.framework) == (expression, framework)


@pytest.mark.parametrize("text", ["shop.web:site", "src/shop/web.py:site"])
def test_what_is_found_can_be_imported_as_the_entry_file_will(text: str) -> None:
    app = found(APPS / "package", target(text), "app.directory=src" if text.startswith("shop") else "app.directory=.")
    path = f"import sys; sys.path.insert(0, {app.search_path!r})"
    entry = f"{path}; from {app.module} import site; print({app.expression}.name)"
    assert subprocess.check_output([app.python.path, "-c", entry], text=True) == "shop\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("shop:create_app(open('x'))", "not literals"),
        ("shop:create_app(**{'stage': 'x'})", "** arguments"),
        ("shop:create_app(*['x'])", "not literals"),
        ("shop:create_app().wsgi_app", "not a name or a call"),
        ("shop:create_app(", "not a Python expression"),
        ("shop:create_app()()", "not a name or a call"),
        ("shop:[create_app]", "not a name or a call"),
        (":create_app", "names no module"),
        ("shop:make_shop", "missing a required argument: 'stage'"),
        ("shop:create_app(1, 2)", "too many positional arguments"),
        ("shop:not_an_app", "not_an_app() is not a WSGI app but of type str"),
        ("shop:Holder", "not a WSGI app but of type type"),
        ("shop:holder", "not a WSGI app but of type Holder"),
    ],
)
def test_targets_that_cannot_be(text: str, says: str) -> None:
    error = refused(APPS / "plain_factory", target(text))
    assert isinstance(error, ConfigError)
    assert says in error.message
    assert error.message.startswith(f"target = {text!r}: ")
    assert error.hint


def test_a_wrong_attribute_has_a_near_one() -> None:
    error = refused(APPS / "plain_factory", target("shop:creat_app"))
    assert error.message == "target = 'shop:creat_app': shop has no creat_app"
    assert error.hint == "Did you mean create_app?"


@pytest.mark.parametrize(
    ("text", "missing", "near"),
    [("shopp", "shopp", "shop"), ("shop.wbe", "shop.wbe", "shop.web"), ("nowhere.py", "nowhere", "")],
)
def test_a_wrong_module_has_a_near_one(project: Callable[..., Path], text: str, missing: str, near: str) -> None:
    directory = project({"src/shop/__init__.py": "", "src/shop/web.py": ""})
    error = refused(directory, target(text), "app.directory=src")
    assert f"there is no module {missing} in {directory / 'src'}" in error.message
    assert near in error.hint
    assert error.hint.startswith("Did you mean") == bool(near)


def test_an_asgi_app_is_told_apart() -> None:
    error = refused(APPS / "callable", target("wsgi:asgi"))
    assert error.message == "target = 'wsgi:asgi': wsgi:asgi is an ASGI app"


# When there is none.


def test_nothing_found_says_where_it_looked_and_what_next() -> None:
    error = refused(APPS / "nothing")
    assert isinstance(error, ConfigError)
    assert error.message == f"no app found in {APPS / 'nothing'}"
    assert error.detail.splitlines()[0] == "wsgi.py: there is none"
    assert error.detail.splitlines()[1].startswith("app.py: app, application, create_app, make_app and Flask instances")
    assert error.hint.startswith("Perhaps it is in main.py.")
    assert '[app] target = "module:callable"' in error.hint
    assert "FLASK_APP" in error.hint


def test_several_are_listed() -> None:
    error = refused(APPS / "several")
    assert error.message == "app has several Flask apps: front, admin"
    assert 'target = "app:front"' in error.hint


def test_a_module_without_an_app_lists_what_it_has() -> None:
    error = refused(APPS / "nothing", target("app"))
    assert error.message == "target = 'app': no app found in app"
    assert error.hint.startswith("It has: ANSWER.")


# When the app is broken.


def test_what_it_raises_is_shown_in_its_own_frames(project: Callable[..., Path]) -> None:
    directory = project(app="import shop\n", shop="def connect():\n    raise KeyError('DATABASE_URL')\nconnect()\n")
    error = refused(directory)
    assert isinstance(error, ConfigError)
    assert error.message == "the app raises KeyError when it is imported: 'DATABASE_URL'"
    lines = [line.strip() for line in error.detail.splitlines() if line.startswith("  File ")]
    names = [(Path(line.split('"')[1]).name, line.rpartition(" in ")[2]) for line in lines]
    assert names == [("app.py", "<module>"), ("shop.py", "<module>"), ("shop.py", "connect")]


def test_a_factory_that_raises_is_the_apps_error(project: Callable[..., Path]) -> None:
    directory = project(app="def create_app():\n    return len(3)\n")
    error = refused(directory)
    assert "the app raises TypeError" in error.message
    assert "in create_app" in error.detail
    assert "discover.py" not in error.detail


def test_a_missing_module_names_the_command(project: Callable[..., Path]) -> None:
    error = refused(project(app="import yaml_that_is_not_there.deep\n"))
    assert (
        f"needs the module yaml_that_is_not_there, and {sys.executable} ([app] python) does not have it"
        in error.message
    )
    assert "pip install" in error.hint
    assert sys.executable in error.hint
    assert error.hint.endswith(" yaml_that_is_not_there")


def test_a_syntax_error_has_file_and_line(project: Callable[..., Path]) -> None:
    directory = project(app="import shop\n", shop="\ndef broken(:\n")
    error = refused(directory)
    assert error.message == f"SyntaxError in {directory / 'shop.py'}, line 2: invalid syntax"
    assert "def broken(:" in error.detail


def test_an_app_that_exits_is_told(project: Callable[..., Path]) -> None:
    assert (
        "ends the process when it is imported (SystemExit: 3)" in refused(project(app="raise SystemExit(3)\n")).message
    )


def test_an_app_that_dies_shows_its_last_words(project: Callable[..., Path]) -> None:
    error = refused(project(app="import os\nprint('last words', flush=True)\nos._exit(7)\n"))
    assert error.message == "importing the app ended its process: it ended with status 7"
    assert error.detail == "last words"


def test_an_app_that_is_killed_names_the_signal(project: Callable[..., Path]) -> None:
    error = refused(project(app="import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"))
    assert error.message == "importing the app ended its process: it was ended by SIGKILL"


def test_an_import_that_takes_too_long_says_where_it_is(project: Callable[..., Path]) -> None:
    directory = project(app="import shop\n", shop="import threading\n\nthreading.Event().wait()\n")
    error = refused(directory, "server.start_within=0.4")
    assert not isinstance(error, ConfigError)
    assert error.message == f"importing the app takes longer than 0.4 s: it is in {directory / 'shop.py'}, line 3"


def test_app_run_on_import_is_named_at_once(project: Callable[..., Path]) -> None:
    error = refused(project(app="from flask import Flask\napp = Flask('x')\napp.run()\n"))
    assert "app.run() when the module is imported blocks for ever" in error.message
    assert ", line 3," in error.detail


# What an app may do while it is imported.


@pytest.mark.parametrize(
    "rudeness",
    [
        "print('{}')",
        "print('x' * 1_000_000)",
        "import sys; sys.stdout.close(); sys.stderr = None",
        "import threading; threading.Thread(target=threading.Event().wait).start()",
        "import os; os.fork() or os.read(os.pipe()[0], 1)",
        "import atexit, os; atexit.register(os.abort)",
        "import sys; assert sys.stdin.read() == ''",
        "import sys; assert len(sys.argv) == 1",
    ],
)
def test_rude_apps_are_found_nevertheless(project: Callable[..., Path], rudeness: str) -> None:
    app = found(project(app=f"{rudeness}\n{PLAIN}"))
    assert (app.expression, app.search_path) == ("app", app.directory)


@pytest.mark.parametrize(
    "rudeness",
    [
        "import json, sys; sys.modules['json'] = None",
        "import os; os.chdir('/')",
        "import sys; sys.path.insert(0, '/nowhere')",
    ],
)
def test_all_is_found_of_apps_that_turn_things_over(project: Callable[..., Path], rudeness: str) -> None:
    app = found(project(app=f"from flask import Flask\napp = Flask('x')\n{rudeness}\n"))
    assert (app.expression, app.search_path, app.framework) == ("app", app.directory, FLASK)


def test_what_can_be_done_meanwhile_is_done_while_the_app_is_imported(project: Callable[..., Path]) -> None:
    directory = project(app=f"open('meeting').close()\n{PLAIN}")
    os.mkfifo(directory / "meeting")
    settings = load(directory, [parse_set(f"app.python={sys.executable}")]).config
    facts = look(settings, ENVIRON, meanwhile=lambda: (directory / "meeting").open("w").close())
    assert facts.apps["app"].expression == "app"


def test_our_own_modules_are_not_in_the_apps_way(project: Callable[..., Path]) -> None:
    directory = project(
        app=f"import nginx, machine, static\nassert nginx.MINE\n{PLAIN}",
        nginx="MINE = True\n",
        machine="",
        static="",
    )
    assert found(directory).module == "app"
    (directory / "nginx.py").unlink()
    assert "needs the module nginx" in refused(directory).message


def test_the_environment_is_the_apps(project: Callable[..., Path]) -> None:
    directory = project(
        app=f"from os import environ\n{PLAIN}"
        "assert not [each for each in environ if each.startswith('STACKCTL_')]\n"
        "assert [environ[each] for each in 'ABC'] == ['environ', 'env', 'file'], dict(environ)\n"
    )
    (directory / "secrets").write_text("C='file'\n# no value:\nD\n")
    environ = {**ENVIRON, "STACKCTL_SERVER_WORKERS": "3", "A": "environ", "B": "environ", "C": "environ"}
    assert (
        found(directory, "app.env.B=env", "app.env.C=env", "app.env_file=secrets", environ=environ).expression == "app"
    )


def test_a_missing_env_file_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path, "app.env_file=secrets")
    assert isinstance(error, ConfigError)
    assert error.message.startswith(f"[app] env_file: {tmp_path / 'secrets'} cannot be read")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert f"there is no directory {tmp_path / 'web'}" in refused(tmp_path, "app.directory=web").message


# Static files.


@pytest.mark.parametrize("text", ["app:app", "app:at_root", "app:none"], ids=["missing", "at the root", "none"])
def test_static_folders_that_nobody_should_serve(text: str) -> None:
    app = found(APPS / "no_static", target(text))
    assert (app.static_url, app.static_folder) == ("", "")


# Bodies.


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("app = Flask('a')\napp.config['MAX_CONTENT_LENGTH'] = 7\n", 7),
        ("inner = Flask('a')\ninner.config['MAX_CONTENT_LENGTH'] = 7\napp = inner.wsgi_app\n", 7),
        ("app = Flask('a')\napp.config['MAX_CONTENT_LENGTH'] = '7'\n", None),
        ("app = Flask('a')\n", None),
        ("def app(environ, start_response): ...\n", None),
    ],
    ids=["set", "set behind its wsgi_app", "no number", "not set", "no Flask app"],
)
def test_the_largest_body_that_an_app_takes(project: Callable[..., Path], text: str, most: int | None) -> None:
    assert found(project(app="from flask import Flask\n" + text)).max_content_length == most


# Without Flask, and in isolation.


@pytest.mark.parametrize(
    ("text", "module"), [("wsgi", "wsgi"), ("wsgi.py:plain", "wsgi"), ("", "wsgi"), ("../callable/wsgi.py", "wsgi")]
)
def test_a_plain_callable_needs_no_flask(text: str, module: str) -> None:
    answer = asked_by_hand(APPS / "callable", {"target": text}, "-S")  # -S: no site-packages, so no Flask
    assert (answer["module"], answer["search_path"]) == (module, str(APPS / "callable"))
    assert answer["framework"] == "WSGI callable"


def test_a_plain_callable_does_not_wait_for_flask(project: Callable[..., Path]) -> None:
    checked = "import sys\ndef create_app():\n    assert 'fla' + 'sk' not in sys.modules\n    return lambda a, b: []\n"
    assert found(project(app=checked)).framework == "WSGI callable"


def test_flask_that_only_the_factory_imports_is_known(project: Callable[..., Path]) -> None:
    app = found(project(app="def create_app():\n    from flask import Flask\n    return Flask(__name__)\n"))
    assert (app.expression, app.framework) == ("create_app()", FLASK)


def test_packages_are_found_whole_without_flask(project: Callable[..., Path]) -> None:
    directory = project({"a/__init__.py": "", "a/b/__init__.py": "", "a/b/web.py": PLAIN})
    for text in ("a/b/web.py", "a.b.web", "a/b/web:app"):
        answer = asked_by_hand(directory, {"target": text}, "-S")
        assert (answer["module"], answer["search_path"]) == ("a.b.web", os.path.realpath(directory))


def test_an_app_that_needs_flask_where_there_is_none_says_so() -> None:
    answer = asked_by_hand(APPS / "plain_flask", {"target": ""}, "-S")
    assert (answer["problem"], answer["missing"]) == ("raised", "flask")
