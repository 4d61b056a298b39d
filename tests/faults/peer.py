"""nginx and an app server, configured by hand with care: what stackctl is compared with.

Nobody is above the two programs, as with their packages on Debian, whose units do not restart them (nginx) or do not
exist (uWSGI and gunicorn from PyPI).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.e2e.project import APPS, Done, Project, lives, until

WITHIN = 10.0  # seconds that a peer has for what is to be seen
NGINX = """
daemon off;
worker_processes 2;
pid {place}/nginx.pid;
error_log {place}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log {place}/access.log;
    client_body_temp_path {place}/tmp;
    proxy_temp_path {place}/tmp;
    fastcgi_temp_path {place}/tmp;
    uwsgi_temp_path {place}/tmp;
    scgi_temp_path {place}/tmp;
    upstream app {{ server unix:{place}/app.sock; }}
    server {{
        listen {address};
        location / {{
            {hop}
        }}
    }}
}}
"""
HOPS = {
    "uwsgi": "include /etc/nginx/uwsgi_params; uwsgi_pass app; uwsgi_read_timeout 10s;",
    "gunicorn": "proxy_pass http://app; proxy_set_header Host $http_host; proxy_read_timeout 10s;"
    " proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
}
UWSGI = """
[uwsgi]
strict = true
module = app:app
need-app = true
lazy-apps = true
master = true
processes = 2
threads = 2
enable-threads = true
single-interpreter = true
socket = {place}/app.sock
chmod-socket = 666
vacuum = true
die-on-term = true
no-orphans = true
harakiri = {timeout}
harakiri-verbose = true
worker-reload-mercy = 10
master-fifo = {place}/fifo
listen = {backlog}
disable-logging = true
"""
GUNICORN = """
bind = "unix:{place}/app.sock"
umask = 0
workers = 2
worker_class = "gthread"
threads = 2
timeout = {timeout}
graceful_timeout = 10
backlog = {backlog}
worker_tmp_dir = "/dev/shm"
"""


class Peer(Project):
    """The two programs around a copy of the faulty app."""

    within = WITHIN
    spoilt = False  # something did not hold: the next test gets another

    def __init__(self, kind: str) -> None:
        super().__init__(APPS / "faulty")
        self.kind = kind
        self.column = f"nginx + {'uWSGI' if kind == 'uwsgi' else kind}"
        self.before: tuple[str, ...] = ()  # what runs the app server
        self.backlog = 100
        self.timeout = 2
        self._programs: dict[str, subprocess.Popen[bytes]] = {}

    def begin(self) -> None:
        """Writes the files, starts both, and waits for an answer."""
        (self.place / "tmp").mkdir(exist_ok=True)
        (self.place / "tmp").chmod(0o777)
        named = {"place": self.place, "timeout": self.timeout, "backlog": self.backlog}
        hop = HOPS[self.kind]
        (self.place / "nginx.conf").write_text(NGINX.format(**named, address=self.address, hop=hop))
        (self.place / "uwsgi.ini").write_text(UWSGI.format(**named))
        (self.place / "gunicorn.conf.py").write_text(GUNICORN.format(**named))
        self.begin_app()
        nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin")
        assert nginx is not None, "Debian's nginx"
        self._begin("nginx", [nginx, "-p", str(self.place), "-c", str(self.place / "nginx.conf")])
        until(lambda: self.answers() and len(self.workers("app")) == 2, f"both workers serve: {self.log()}")

    def begin_app(self) -> None:
        """Starts the app server."""
        beside = Path(sys.executable).parent
        argv = {
            "uwsgi": [f"{beside}/uwsgi", "--ini", f"{self.place}/uwsgi.ini"],
            "gunicorn": [f"{beside}/gunicorn", "-c", f"{self.place}/gunicorn.conf.py", "app:app"],
        }
        self._begin("app", [*self.before, *argv[self.kind]])

    def _begin(self, name: str, argv: list[str]) -> None:
        with (self.place / f"{name}.log").open("ab") as log:
            self._programs[name] = subprocess.Popen(
                argv, cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.get("/").status == 200
        return False

    def log(self) -> str:
        return "".join(each.read_text("utf-8", "replace") for each in self.place.glob("*.log"))

    def pid(self, name: str) -> int:
        process = self._programs[name]
        assert process.poll() is None, f"{name} is gone, and nobody starts it again"
        return process.pid

    def ask_to_reload(self) -> None:
        """As their manuals say where no request shall be lost: one worker after the other, or SIGHUP."""
        if self.kind == "uwsgi":
            (self.place / "fifo").write_text("c")  # chain reload
        else:
            os.kill(self.pid("app"), signal.SIGHUP)

    def reload(self) -> Done:
        """Done once there are other workers."""
        before = self.workers("app")
        self.ask_to_reload()
        until(lambda: not before & self.workers("app"), "the workers have changed", 4 * self.within)
        return Done(0, "", "")

    def scale(self, workers: int) -> None:
        """gunicorn has signals for it, uWSGI none without its cheaper subsystem, so a restart."""
        assert self.kind == "gunicorn", "a restart, since uWSGI takes another number only at a start"
        while (now := len(self.workers("app"))) != workers:
            os.kill(self.pid("app"), signal.SIGTTIN if now < workers else signal.SIGTTOU)
            until(lambda now=now: len(self.workers("app")) != now, "a worker more or less", self.within)  # type: ignore[misc]

    def link(self) -> Path:
        return self.place / "app.sock"

    def end(self) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for each in self._programs.values():
            each.wait()
        until(lambda: not any(map(lives, self.processes())), "nothing is left")
        shutil.rmtree(self.place, ignore_errors=True)
