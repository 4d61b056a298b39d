"""The faulty app: kept by stackctl with each of its app servers, or by nobody."""

from __future__ import annotations

import contextlib
from http.client import HTTPException
from pathlib import Path

import psutil

from tests.faults.peer import Peer

from .fault import PEERS
from .project import APPS, WITHIN, Done, Project, until

THREADS = 2


class Kept(Project):
    """The faulty app under stackctl, with one of the app servers."""

    within = WITHIN

    def __init__(self, engine: str) -> None:
        super().__init__(APPS / "faulty")
        self.column = engine
        self.timeout = 2
        self.backlog = 100

    def begin(self, *flags: str) -> None:
        settings = (f"engine={self.column}", "workers=2", f"threads={THREADS}", f"timeout={self.timeout}")
        given = (f"--set=server.{each}" for each in (*settings, f"backlog={self.backlog}"))
        self.up(*given, *flags)
        until(lambda: len(self.workers("app")) == 2, "both workers are there")

    def reload(self, code: int | None = 0) -> Done:
        return self.run("reload", code=code)

    def scale(self, workers: int) -> None:
        self.run("scale", str(workers))

    def link(self) -> Path:
        (link,) = (each for each in (self.runtime / "sockets").iterdir() if each.is_symlink())
        return link


Stack = Kept | Peer


def made(column: str) -> Stack:
    return Peer("uwsgi" if "uWSGI" in column else "gunicorn") if column in PEERS else Kept(column)


def ended(stack: Stack) -> None:
    with contextlib.suppress(psutil.Error):
        for each in stack.processes():
            each.resume()
    stack.end()


def is_whole(stack: Stack) -> bool:
    """Whether it serves as in the beginning."""
    if isinstance(stack, Peer) and stack.spoilt:
        return False
    try:
        return stack.get("/").status == 200 and len(stack.workers("app")) == 2 and len(stack.workers("nginx")) > 0
    except (AssertionError, OSError, HTTPException, psutil.Error):
        return False
