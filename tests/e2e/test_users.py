"""Who runs what, and who may reach what: as root, and as an ordinary user who has a right or two."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from .conftest import Copy
from .installed import ONE_PROCESS, python_for_everybody
from .project import APPS, Project, lives, until

ROOT = os.geteuid() == 0
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not ROOT, reason="other users are needed: run the tests as root too"),
]

OWNER, OTHER, SERVING = "games", "daemon", "www-data"  # users that every Debian has
CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
BIND = ("--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service")


@pytest.fixture
def public() -> str:
    """The Python for apps of other users."""
    python = python_for_everybody()
    if not python:
        pytest.skip("there is no Python 3.11 here that every user may run")
    return python


def number(user: str) -> int:
    return pwd.getpwnam(user).pw_uid


def becoming(user: str, *options: str) -> tuple[str, ...]:
    """What makes a command this user's."""
    entry = pwd.getpwnam(user)
    return ("setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", *options)


def owned(project: Project, user: str) -> None:
    for each in (project.directory, *project.directory.rglob("*")):
        shutil.chown(each, user)


def mode(path: Path) -> str:
    """Owner and mode, as `root 0600`."""
    found = path.lstat()
    return f"{pwd.getpwuid(found.st_uid).pw_name} {stat.S_IMODE(found.st_mode):04o}"


def plain(copy: Copy) -> Project:
    """An app that needs nothing but Python."""
    project = copy(None)
    project.write("app.py", (APPS / "wsgi_plain.py").read_text().replace("application", "app"))
    project.write("files/a.txt", "a file\n")
    project.write("stack.toml", '[site.static]\n"/files" = "files"\n')
    return project


# As root.


@pytest.mark.parametrize(
    ("configured", "owner", "runs_as"),
    [(OTHER, OWNER, OTHER), ("", OWNER, OWNER), ("", "root", SERVING)],
    ids=["configured", "the owner", "else www-data"],
)
def test_root_gives_app_and_nginx_workers_away_and_lets_nobody_else_in(
    copy: Copy, public: str, configured: str, owner: str, runs_as: str
) -> None:
    project = plain(copy)
    owned(project, owner)
    project.write(".env.secret", "TOKEN=secret\n").chmod(0o600)
    user = ("--set", f"app.user={configured}") if configured else ()
    project.up(*user, "--set", f"app.python={public}", "--set", "app.env_file=.env.secret")
    uids = {name: psutil.Process(project.pid(name)).uids().real for name in ("app", "nginx")}
    assert uids == {"app": number(runs_as), "nginx": 0}
    for name in ("app", "nginx"):
        assert {psutil.Process(each).uids().real for each in project.workers(name)} == {number(runs_as)}
    assert project.get("/files/a.txt").text == "a file\n"

    # What may be secret, and the sockets.
    run = project.runtime
    sockets = run / "sockets"
    assert {each.name: mode(each) for each in (run, *run.iterdir())} == {
        run.name: "root 0711",
        "control.sock": "root 0600",
        "lock": "root 0600",
        "plan.json": "root 0600",
        "nginx.g1.pid": "root 0644",
        "sockets": f"{runs_as} 0700",
    }
    (link,) = (each for each in sockets.iterdir() if each.is_symlink())
    assert {mode(each) for each in sockets.iterdir() if each != link} == {f"{runs_as} 0600"}
    assert not (project.state / "log").stat().st_mode & 0o067  # of all others, the workers' group may pass: no more
    everything = [run.parent, *(each for each in project.state.rglob("*") if not each.is_symlink())]
    assert not [each for each in everything if each.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)]

    # And really.
    for who in (runs_as, "nobody"):
        argv = [*becoming(who), public, "-c", CONNECT, str(link)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert ("PermissionError" in done.stderr) == (who == "nobody"), done.stderr
        assert (done.returncode == 0) == (who == runs_as)


def test_another_user_takes_a_new_start(copy: Copy, public: str) -> None:
    project = plain(copy)
    project.up("--set", f"app.user={OWNER}", "--set", f"app.python={public}")
    before = project.pid("app")
    refused = project.run("reload", "--set", f"app.user={OTHER}", code=1)
    assert f"the app would run as {OTHER}, and not as {OWNER} as before" in refused.err
    assert "`stackctl down`, then `stackctl up`" in refused.err
    assert project.pid("app") == before
    project.run("reload", "--set", f"app.user={OWNER}")


def test_directory_that_keeps_nginx_from_static_files_is_named_before_the_first_403(copy: Copy, public: str) -> None:
    project = plain(copy)
    private = project.place / "private"
    (private / "files").mkdir(parents=True)
    (private / "files" / "a.txt").write_text("a file\n")
    private.chmod(0o700)
    static = f'site.static={{ "/files" = "{private}/files" }}'
    flags = ("--set", f"app.user={OTHER}", "--set", f"app.python={public}", "--set", static)
    before, _, after = project.up(*flags, code=4).err.partition("starting ")
    assert f"the web server cannot read {private}/files: {OTHER} cannot use {private} (drwx------ root:root)" in before
    assert "Every directory on the way needs x for it" in before
    assert "answered 403" in after
    project.nothing_is_left()
    private.chmod(0o711)
    assert "cannot" not in project.up(*flags).err
    assert project.get("/files/a.txt").text == "a file\n"


@pytest.mark.parametrize("key", ["runtime_dir", "state_dir"])
def test_directory_that_keeps_the_app_from_its_socket_or_its_entry_is_named_before_the_start(
    copy: Copy, public: str, key: str
) -> None:
    project = plain(copy)
    private = project.place / "private"
    private.mkdir(mode=0o700)
    flags = ("--set", f"app.user={OTHER}", "--set", f"app.python={public}", "--set", f"stack.{key}={private}/ours")
    before, _, _ = project.up(*flags, code=1).err.partition("starting ")
    assert f"[stack] {key}: {OTHER} cannot use {private} (drwx------ root:root)" in before
    assert "choose another place" in before
    project.nothing_is_left()
    private.chmod(0o711)
    assert "cannot" not in project.up(*flags).err
    assert project.get("/").status == 200
    project.run("down")


@ONE_PROCESS
def test_log_of_somebody_else_is_told_with_whose_it_is(copy: Copy, public: str, stackctl: Path) -> None:
    project = plain(copy)
    project.up("--set", f"app.python={public}")
    project.command = (*becoming(OTHER), str(stackctl))
    done = project.run("logs", code=1)
    assert f"{project.state}/log/stack.log is not ours to read" in done.err
    assert "sudo -u root stackctl logs" in done.err
    assert "Traceback" not in done.err


# As somebody else.


@contextmanager
def of_an_ordinary_user(copy: Copy, stackctl: Path) -> Iterator[Project]:
    """A project that somebody without any right has and runs; nothing of it is left in that user's places either."""
    if not python_for_everybody():
        pytest.skip("there is no Python 3.11 here that every user may run")
    project = plain(copy)
    project.place.chmod(0o711)
    owned(project, OTHER)
    project.command = (*becoming(OTHER), str(stackctl))
    yield project
    project.command = (*becoming(OTHER), str(stackctl))
    project.run("down")
    project.nothing_is_left()
    token = project.runtime.name.rpartition("-")[2]
    assert not [*Path(f"/tmp/stackctl-{number(OTHER)}").glob(f"*-{token}")]


def privileged_port() -> int:
    """A free port that is root's."""
    least = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    for port in range(min(least, 1024) - 1, 0, -1):
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.skip("every port is everybody's here, or taken")


@ONE_PROCESS
def test_ordinary_user_with_the_capability_serves_a_privileged_port(copy: Copy, stackctl: Path) -> None:
    with of_an_ordinary_user(copy, stackctl) as project:
        project.port = privileged_port()
        without, project.command = project.command, (*becoming(OTHER, *BIND), str(stackctl))
        project.run("check", "--listen", project.address)
        project.up()
        assert project.get("/there").text == "hello /there\n"
        assert project.get("/files/a.txt").text == "a file\n"
        family = project.processes()
        assert {each.uids().real for each in family} == {number(OTHER)}
        # A shell without the right, in a session of its own, as systemd's `AmbientCapabilities=` leaves it to the user.
        session = project.place / "session"
        session.mkdir()
        shutil.chown(session, OTHER)
        project.command = without
        here = {"XDG_RUNTIME_DIR": str(session)}
        project.run("check", "--listen", project.address, env=here)
        project.run("reload", env=here)
        assert all(each["ok"] for each in project.run("health", "--json", env=here).json)
        assert project.get("/there").text == "hello /there\n"
        psutil.Process(project.run("status", "--json").json["pid"]).kill()
        until(lambda: not any(map(lives, project.processes())), "nothing outlives its supervisor")


@ONE_PROCESS
def test_privileged_port_is_refused_by_check_as_by_up(copy: Copy, stackctl: Path) -> None:
    with of_an_ordinary_user(copy, stackctl) as project:
        project.port = privileged_port()
        said = f"cannot listen on {project.address}: ports below "
        for command in (("check",), ("up", "-d")):
            done = project.run(*command, "--listen", project.address, code=3)
            assert said in done.err
            assert f"sysctl -w net.ipv4.ip_unprivileged_port_start={project.port}" in done.err
            assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in done.err


@contextmanager
def a_network_of_its_own() -> Iterator[str]:
    """A network namespace in which every port is everybody's; its file."""
    script = "ip link set lo up && echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start && echo ready && exec cat"
    argv = ["unshare", "--net", "sh", "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != b"ready\n":
            pytest.skip(f"no network of its own can be made here: {holder.stderr.read().decode()}")
        try:
            yield f"/proc/{holder.pid}/ns/net"
        finally:
            holder.stdin.close()


@ONE_PROCESS
def test_ordinary_user_serves_port_80_where_the_kernel_lets_everybody(copy: Copy, stackctl: Path) -> None:
    with a_network_of_its_own() as network, of_an_ordinary_user(copy, stackctl) as project:
        project.command = ("nsenter", f"--net={network}", *project.command)
        assert project.run("up", "-d", "--listen", "80").out == "http://127.0.0.1/\n"
        project.run("reload")
        health = project.run("health", "--json").json
        assert all(each["ok"] for each in health), health
        assert {each.uids().real for each in project.processes()} == {number(OTHER)}
