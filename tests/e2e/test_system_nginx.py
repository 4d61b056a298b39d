"""An nginx that is not ours, as Debian installs it: on a machine of its own, or for what takes no root, as a copy."""

from __future__ import annotations

import grp
import itertools
import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import pytest

from stack import config
from stack.facts.nginx import find_nginx

from .client import Load, ask
from .debian import Debian, skip_unless_possible
from .project import STATIC, Done, Project, free_port, listens, lives, until

pytestmark = pytest.mark.e2e

DEBIAN = Path("/etc/nginx")
ROOT = os.geteuid() == 0
needs_debian = pytest.mark.skipif(
    not (DEBIAN / "sites-enabled" / "default").exists(), reason=f"there is no stock {DEBIAN} to copy: apt install nginx"
)


@pytest.mark.parametrize("layout", ["sites-available", "conf.d"])
def test_stock_nginx_needs_the_printed_steps_and_nothing_else(steered: Project, layout: str) -> None:
    skip_unless_possible()
    shop, other = "shop.example.org", "www.example.org"
    steered.write(
        "stack.toml",
        f'[site]\nweb = "external"\nlisten = ["80", "[::]:80"]\nserver_names = ["{shop}"]\n{STATIC}',
    )
    with Debian(steered, layout) as machine:
        machine.start_nginx()
        assert "Welcome to nginx" in machine.get(shop).text
        steered.run("up", "-d")
        steps = commands(steered.run("nginx-conf").out, f"Into the nginx of this machine, which has {layout}:")
        missing = steered.run("diff", "--exit-code", code=1).err
        assert f"the nginx at 127.0.0.1:80 has loaded another configuration than this one for {shop}" in missing
        assert missing.endswith("".join(f"  -> {each}\n" for each in steps))
        _, *workers = machine.nginx()
        said = machine.run("sh", "-euc", "\n".join(steps))
        assert "test is successful" in said
        assert "[" not in said.replace("[notice]", ""), "neither warned of anything nor in conflict with the default"
        until(lambda: not any(map(lives, workers)), "only workers that have read the site are left")
        assert machine.get(shop).text == "1"
        assert machine.get(shop, "/static/hello.txt").text == "a file\n"
        assert "Welcome to nginx" in machine.get(other).text
        assert "FAIL" not in steered.run("health").out
        assert steered.run("diff", "--exit-code").out == ""
        machine.stop_nginx()
        machine.start_nginx()  # as after a reboot
        assert machine.get(shop).text == "1"
        assert "Welcome to nginx" in machine.get(other).text
        steered.run("down")


def commands(printed: str, heading: str) -> list[str]:
    """What stands below a heading of the comment on top."""
    lines = printed.partition(f"# {heading}\n")[2].splitlines()
    return [each.removeprefix("#   ") for each in itertools.takewhile(lambda line: line.startswith("#   "), lines)]


class SystemNginx:
    """Debian's nginx with its stock configuration but the default site, every path of it in the test's own place."""

    def __init__(self, project: Project, user: str) -> None:
        found, looked = find_nginx(config.load(project.directory).config, os.environ)
        assert found is not None, looked
        self.place = project.place / "system"
        self.site = self.place / "etc" / "sites-enabled" / "shop"
        self._environment = project.environment
        self._command = [found.path, "-e", f"{self.place}/log/start.log", "-p", str(self.place)]
        self._command += ["-c", f"{self.place}/etc/nginx.conf"]
        shutil.copytree(DEBIAN, self.place / "etc", symlinks=True)
        (self.place / "etc" / "sites-enabled" / "default").unlink()  # it listens on port 80 of this machine
        for name in ("log", "lib"):
            (self.place / name).mkdir()
        main = self.place / "etc" / "nginx.conf"
        text = (
            main.read_text().replace("/etc/nginx", f"{self.place}/etc").replace("/var/log/nginx", f"{self.place}/log")
        )
        text = text.replace("/run/nginx.pid", f"{self.place}/nginx.pid")
        main.write_text(text.replace("user www-data;", f"user {user};" if ROOT else ""))
        kinds = (("client_body", "body"), *((each, each) for each in ("proxy", "fastcgi", "uwsgi", "scgi")))
        paths = "".join(f"{kind}_temp_path {self.place}/lib/{name};\n" for kind, name in kinds)
        (self.place / "etc" / "conf.d" / "paths.conf").write_text(paths)

    def accepts(self) -> None:
        tested = subprocess.run([*self._command, "-t"], capture_output=True, text=True, check=False)
        assert tested.returncode == 0, tested.stderr

    def log(self, name: str) -> str:
        return (self.place / "log" / name).read_text("utf-8", "replace")

    def reload(self) -> None:
        """Read the files again; done once new workers have."""
        before = self._workers()
        self._master.send_signal(signal.SIGHUP)
        until(lambda: self._workers() - before and not self._workers() & before, "its old workers have ended")

    def _workers(self) -> set[psutil.Process]:
        return {each for each in psutil.Process(self._master.pid).children() if lives(each)}

    def __enter__(self) -> Self:
        command = [*self._command, "-g", "daemon off;"]
        self._master = subprocess.Popen(command, cwd=self.place, env=self._environment)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        family = self._workers()
        self._master.send_signal(signal.SIGTERM)
        self._master.wait()
        until(lambda: not any(map(lives, family)), "its workers have ended")


@needs_debian
@pytest.mark.parametrize("protocol", ["uwsgi", "http", "fastcgi", "scgi"])
def test_site_goes_into_the_system_s_nginx_as_it_is_printed(steered: Project, protocol: str) -> None:
    steered.write("stack.toml", STATIC)
    steered.up("--set", f"server.protocol={protocol}")
    port = free_port()
    printed = steered.run("nginx-conf", "--listen", f"127.0.0.1:{port}")
    # Whoever runs the app may open its socket; as in `[app] user = "www-data"`.
    system = SystemNginx(steered, psutil.Process(min(steered.workers("app"))).username())
    system.site.write_text(printed.out)
    system.accepts()
    with system:
        until(lambda: listens(port), "it has started")
        assert ask(port, "GET", "/").text == "1"
        assert ask(port, "GET", "/static/hello.txt").text == "a file\n"
        steered.write("version.txt", "2")
        steered.run("reload")
        assert ask(port, "GET", "/").text == "2"


@needs_debian
def test_external_nginx_has_all_it_needs_in_what_is_printed(steered: Project) -> None:
    group = "www-data" if ROOT else grp.getgrgid(os.getegid()).gr_name
    steered.write("stack.toml", f'[site]\nweb = "external"\nweb_group = "{group}"\n{STATIC}')
    done = steered.up()
    assert "stackctl nginx-conf" in done.err
    assert [each["name"] for each in steered.status()["services"]] == ["app"]
    assert steered.run("health", code=4).out.count("FAIL") == 3  # nobody listens there yet
    printed = steered.run("nginx-conf").out
    assert "ln -sf ../sites-available/site /etc/nginx/sites-enabled/site" in printed
    system = SystemNginx(steered, "www-data")
    system.site.write_text(printed)
    system.accepts()
    with system:
        until(lambda: listens(steered.port), "it has started")
        assert steered.run("health").out.count("ok ") == 8
        assert steered.get("/static/hello.txt").text == "a file\n"
        with Load(steered.port) as load:
            for number in range(2, 5):
                steered.write("version.txt", str(number))
                steered.run("reload")
                assert steered.get("/").text == str(number)
        assert load.failed == []
        steered.run("reload", "--set", "site.max_body=5m")
        stale = steered.run("health", code=4).out
        assert stale.count("FAIL") == 1
        assert "the nginx of this machine has loaded site as it should be" in stale
        assert "stackctl nginx-conf" in stale
        (loaded,) = steered.run("diff", "--json", "--exit-code", code=1).json
        assert loaded["what"] == f"the nginx at {steered.address} has loaded another configuration than this one"
        assert loaded["text"].startswith("- GET /.stackctl/")
        assert loaded["hint"].endswith("nginx -s reload")
        system.site.write_text(steered.run("nginx-conf").out)
        system.reload()
        steered.run("health")
        assert steered.run("diff", "--json", "--exit-code").json == []
    (missing,) = steered.run("diff", "--json").json
    assert missing["what"] == f"no nginx has loaded the site: at {steered.address}, nobody listens there"


def external(project: Project, text: str = "") -> None:
    """A project for an nginx that is not ours, on the project's port."""
    group = "www-data" if ROOT else grp.getgrgid(os.getegid()).gr_name
    project.write(
        "stack.toml", f'[site]\nweb = "external"\nweb_group = "{group}"\nlisten = "{project.address}"\n{text}'
    )


@pytest.fixture
def system(steered: Project) -> SystemNginx:
    """An nginx, not started yet, that has the site of the project."""
    external(steered)
    made = SystemNginx(steered, "www-data")
    made.site.write_text(steered.run("nginx-conf").out)
    return made


@needs_debian
def test_another_protocol_waits_until_that_nginx_has_loaded_the_site(steered: Project) -> None:
    external(steered, "[server]\ntimeout = 1\nstop_within = 7\n")
    steered.up()
    system = SystemNginx(steered, "www-data")
    system.site.write_text(steered.run("nginx-conf").out)
    with system:
        until(lambda: listens(steered.port), "it has started")
        with Load(steered.port, again=True, slow=False) as load:
            steered.write("version.txt", "2")
            steered.run("reload", "--set", "server.protocol=uwsgi")
            links = sorted(each.name for each in (steered.runtime / "sockets").iterdir() if each.is_symlink())
            assert links == ["app.http.sock", "app.uwsgi.sock"]
            assert steered.get("/").text == "1", "it does not know of the new link"
            assert "nothing to roll back to" in steered.run("rollback", code=1).err
            system.site.write_text(steered.run("nginx-conf").out)
            system.reload()
            assert steered.get("/").text == "2"
            until(lambda: len(steered.service("app")["generations"]) == 1, "the old one is retired")
            assert not (steered.runtime / "sockets" / "app.http.sock").is_symlink()
            until(lambda asked=load.good: load.good > asked + 20, "requests are answered")  # type: ignore[misc]
        assert load.failed == []


def checks(done: Done) -> dict[str, Any]:
    return {each["name"]: each for each in done.json["checks"]}


@needs_debian
def test_smoke_goes_through_the_nginx_that_has_loaded_the_site(steered: Project, system: SystemNginx) -> None:
    outside = f"nginx at {steered.address}"
    with system:
        until(lambda: listens(steered.port), "it has started")
        through = checks(steered.run("smoke", "--json", "/pid"))
        assert through[outside]["saw"] == "has loaded the site; everything goes through it"
        assert through["up"]["saw"] == steered.url
        assert through["reload"]["requests"] > through["reload"]["failed"] == 0
        assert "stackctl-visitor" in system.log("access.log")
        assert not steered.runtime.exists()
        assert not steered.state.exists()
        external(steered, 'max_body = "5m"\n')
        stale = steered.run("smoke", "--json", "/pid", code=4)
    (failed,) = [each for each in stale.json["checks"] if not each["ok"]]
    assert (failed["name"], failed["kind"]) == (outside, "web")
    assert failed["problem"] == "has loaded another configuration than this one; a private nginx stands in"
    assert failed["hint"].endswith("nginx -s reload")
    assert checks(stale)["up"]["saw"] != steered.url
    assert checks(stale)["GET /pid"]["ok"]


@needs_debian
def test_proven_reload_goes_through_the_nginx_that_is_not_ours(steered: Project, system: SystemNginx) -> None:
    steered.run("up", "-d")
    with system:
        until(lambda: listens(steered.port), "it has started")
        steered.write("version.txt", "2")
        proof = steered.run("reload", "--prove", "--json").json
        assert steered.get("/").text == "2"
        assert system.log("access.log").count("stackctl-visitor") >= proof["requests"] > proof["failed"] == 0
    assert proof["apps"]["app"]["old_until"] is not None


@needs_debian
def test_smoke_leaves_the_stack_alone_that_runs_behind_that_nginx(steered: Project, system: SystemNginx) -> None:
    steered.run("up", "-d")
    before, runtime = steered.status(), sorted(steered.runtime.rglob("*"))
    with system:
        until(lambda: listens(steered.port), "it has started")
        found = checks(steered.run("smoke", "--json", "/pid"))
        instead = "a private nginx stands in, as the stack of the project runs"
        assert found[f"nginx at {steered.address}"]["saw"] == f"has loaded the site; {instead}"
        assert found["up"]["saw"] != steered.url
        assert steered.status() == before
        assert sorted(steered.runtime.rglob("*")) == runtime
        assert "stackctl-visitor" not in system.log("access.log")
        assert steered.get("/").text == "1"


@needs_debian
def test_interrupted_smoke_leaves_nothing_where_that_nginx_looks(steered: Project, system: SystemNginx) -> None:
    never, begun = steered.event("never"), steered.event("never.begun")
    with system:
        until(lambda: listens(steered.port), "it has started")
        running = steered.start("smoke", f"/wait?for={never}")
        until(begun.exists, "the request is in hand")
        psutil.Process(steered.status()["pid"]).kill()  # who would have cleared up
        running.process.send_signal(signal.SIGINT)
        assert running.wait() == 130
        assert not steered.runtime.exists()


def test_smoke_says_that_no_nginx_is_there_and_that_one_of_our_own_stands_in(steered: Project) -> None:
    external(steered)
    done = steered.run("smoke", "/pid")
    assert "a private nginx stands in" in done.err
    assert f"nginx at {steered.address}" in done.out
    assert "nobody listens there; a private nginx stands in" in done.out


@needs_debian
def test_socket_for_an_external_nginx_is_its_group_s_and_nobody_else_s(steered: Project) -> None:
    group = "www-data" if ROOT else grp.getgrgid(os.getegid()).gr_name
    steered.write("stack.toml", f'[site]\nweb = "external"\nweb_group = "{group}"\n')
    steered.up()
    sockets = steered.runtime / "sockets"
    (generation,) = [each for each in sockets.glob("*.sock") if not each.is_symlink()]
    assert (generation.group(), stat.S_IMODE(generation.stat().st_mode)) == (group, 0o660)
    assert (sockets.group(), stat.S_IMODE(sockets.stat().st_mode)) == (group, 0o2710)


@pytest.mark.skipif(ROOT, reason="root may give a socket to every group: run the tests as another user too")
def test_group_that_we_are_not_in_is_refused_with_the_way_into_it(steered: Project) -> None:
    steered.write("stack.toml", '[site]\nweb = "external"\nweb_group = "root"\n')
    assert "usermod -aG root" in steered.up(code=3).err
