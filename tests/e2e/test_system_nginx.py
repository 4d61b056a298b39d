"""`nginx-conf` in an nginx that is not ours: a copy of what Debian installs."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from stack import config
from stack.facts.nginx import find_nginx

from .client import ask
from .project import Project, free_port, listens, lives, until

pytestmark = pytest.mark.e2e

DEBIAN = Path("/etc/nginx")


def copied(project: Project, site: str) -> Path:
    """Debian's /etc/nginx with the site enabled instead of the default one, and every path in the test's own place."""
    place = project.place / "system"
    shutil.copytree(DEBIAN, place / "etc", symlinks=True)
    for each in (place / "etc" / "sites-enabled").iterdir():
        each.unlink()
    (place / "etc" / "sites-enabled" / "shop").write_text(site)
    for name in ("log", "lib"):
        (place / name).mkdir()
    main = place / "etc" / "nginx.conf"
    text = main.read_text().replace("/etc/nginx", f"{place}/etc").replace("/var/log/nginx", f"{place}/log")
    text = text.replace("/run/nginx.pid", f"{place}/nginx.pid")
    # Whoever runs the app may open its socket; as in `[app] user = "www-data"`.
    user = psutil.Process(min(project.workers("app"))).username()
    main.write_text(text.replace("user www-data;", f"user {user};" if getpass.getuser() == "root" else ""))
    kinds = (("client_body", "body"), *((each, each) for each in ("proxy", "fastcgi", "uwsgi", "scgi")))
    paths = "".join(f"{kind}_temp_path {place}/lib/{name};\n" for kind, name in kinds)
    (place / "etc" / "conf.d" / "paths.conf").write_text(paths)
    return place


@pytest.mark.skipif(not (DEBIAN / "nginx.conf").is_file(), reason=f"there is no {DEBIAN}/nginx.conf to copy")
@pytest.mark.parametrize("protocol", ["uwsgi", "http"])
def test_site_goes_into_the_system_s_nginx_as_it_is_printed(steered: Project, protocol: str) -> None:
    found, looked = find_nginx(config.load(steered.directory).config, os.environ)
    assert found is not None, looked
    steered.up("--set", f"server.protocol={protocol}")
    port = free_port()
    printed = steered.run("nginx-conf", "--listen", f"127.0.0.1:{port}", "--set", f"server.protocol={protocol}")
    place = copied(steered, printed.out)
    command = [found.path, "-e", f"{place}/log/start.log", "-p", str(place), "-c", f"{place}/etc/nginx.conf"]
    tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr
    master = subprocess.Popen([*command, "-g", "daemon off;"], cwd=place, env=steered.environment)
    try:
        until(lambda: listens(port), "it has started")
        assert ask(port, "GET", "/").text == "1"
        assert ask(port, "GET", "/static/hello.txt").text == "a file\n"
        steered.write("version.txt", "2")
        steered.run("reload")
        until(lambda: ask(port, "GET", "/").text == "2", "the new code serves")
    finally:
        family = psutil.Process(master.pid).children()
        master.send_signal(signal.SIGTERM)
        master.wait()
        until(lambda: not any(map(lives, family)), "its workers have ended")
