"""An nginx that is not ours, as Debian installs it: its stock configuration, in a place of the test's own."""

from __future__ import annotations

import grp
import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import pytest

from stack import config
from stack.facts.nginx import find_nginx

from .client import Load, ask
from .project import Project, free_port, listens, lives, until

pytestmark = pytest.mark.e2e

DEBIAN = Path("/etc/nginx")
ROOT = os.geteuid() == 0
needs_debian = pytest.mark.skipif(
    not (DEBIAN / "sites-enabled" / "default").exists(), reason=f"there is no stock {DEBIAN} to copy: apt install nginx"
)


class SystemNginx:
    """Debian's nginx with its stock configuration, every path of it in the test's own place."""

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
@pytest.mark.parametrize("protocol", ["uwsgi", "http"])
def test_site_goes_into_the_system_s_nginx_as_it_is_printed(steered: Project, protocol: str) -> None:
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
    steered.write("stack.toml", f'[site]\nweb = "external"\nweb_group = "{group}"\n')
    done = steered.up()
    assert "stackctl nginx-conf" in done.err
    assert [each["name"] for each in steered.status()["services"]] == ["app"]
    assert steered.run("health", code=4).out.count("FAIL") == 3  # nobody listens there yet
    printed = steered.run("nginx-conf").out
    assert "ln -s ../sites-available/site /etc/nginx/sites-enabled/site" in printed
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
        system.site.write_text(steered.run("nginx-conf").out)
        system.reload()
        steered.run("health")


@needs_debian
def test_socket_for_an_external_nginx_is_its_group_s_and_nobody_else_s(steered: Project) -> None:
    group = "www-data" if ROOT else grp.getgrgid(os.getegid()).gr_name
    steered.write("stack.toml", f'[site]\nweb = "external"\nweb_group = "{group}"\n')
    steered.up()
    sockets = steered.runtime / "sockets"
    (generation,) = [each for each in sockets.iterdir() if not each.is_symlink()]
    assert (generation.group(), stat.S_IMODE(generation.stat().st_mode)) == (group, 0o660)
    assert (sockets.group(), stat.S_IMODE(sockets.stat().st_mode)) == (group, 0o2710)


@pytest.mark.skipif(ROOT, reason="root may give a socket to every group: run the tests as another user too")
def test_group_that_we_are_not_in_is_refused_with_the_way_into_it(steered: Project) -> None:
    steered.write("stack.toml", '[site]\nweb = "external"\nweb_group = "root"\n')
    assert "usermod -aG root" in steered.up(code=3).err
