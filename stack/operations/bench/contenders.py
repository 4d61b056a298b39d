"""Who takes turns in a bench: the app servers that the project's interpreter has, each as it is best compared."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import stack
from stack.appservers import APP_SERVERS, PEERS, AppServer
from stack.config import AUTO, BUNDLED, Override
from stack.errors import MissingProgramError, UsageError
from stack.facts import Interpreter
from stack.facts.server import find_server

__all__ = ["CONTENDERS", "Contender", "chosen"]

SAYS_VERSION = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"


@dataclass(frozen=True, slots=True)
class Contender:
    """An app server as it is put to the test.

    `threads` where its name says how many, 0: as many as the others. `protocol` is what it speaks with the web server.
    `arguments` are more of them for its command, to compare it with itself.
    """

    name: str
    engine: str
    version: str = ""
    threads: int = 0
    protocol: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def module(self) -> AppServer:
        """Its module."""
        return {**APP_SERVERS, **PEERS}[self.engine]

    def overrides(self, origin: str) -> Iterator[Override]:
        """The settings that put it to the test."""
        yield Override("server.engine", self.engine, origin)
        yield Override("server.protocol", self.protocol or AUTO, origin)
        if not self.module.PRELOADS:  # it is measured as it would be served
            yield Override("server.preload", "false", origin)
        if self.threads:
            yield Override("server.threads", str(self.threads), origin)


CONTENDERS = (
    Contender("bundled", BUNDLED),
    Contender("uwsgi", "uwsgi"),
    Contender("gunicorn-gthread", "gunicorn"),
    Contender("gunicorn-sync", "gunicorn", threads=1),
    Contender("granian", "granian"),
    Contender("waitress", "waitress"),
)


def chosen(
    names: Sequence[str], protocol: str, threads: int, python: Interpreter, environ: Mapping[str, str]
) -> tuple[Contender, ...]:
    """Those of these names, by their own or their engine's; without names, all that are installed and speak `protocol`.

    In the order of the names, each with its version and its protocol.

    Raises:
        UsageError: there is none of that name, or it does not speak the protocol.
        MissingProgramError: one of that name is not installed.
    """
    # With one thread gunicorn is "sync" whatever it is told.
    there_are = [each for each in CONTENDERS if each.name != "gunicorn-gthread" or threads > 1]
    wanted: dict[str, Contender] = {}
    for name in names:
        found = [each for each in there_are if name in (each.name, each.engine)]
        if not found:
            known = ", ".join(each.name for each in CONTENDERS)
            raise UsageError(f"--server {name}: there is no app server of that name to measure", f"There is: {known}.")
        wanted |= {each.name: each for each in found}
    able = [each for each in wanted.values() or there_are if not protocol or protocol in each.module.PROTOCOLS]
    if names and len(able) < len(wanted):
        mute = next(each for each in wanted.values() if each not in able)
        speaks = ", ".join(mute.module.PROTOCOLS)
        raise UsageError(f"--protocol {protocol}: {mute.name} does not speak it", f"It speaks {speaks}.")
    found_here = [
        dataclasses.replace(
            each, version=_version(each, python, environ), protocol=protocol or each.module.PROTOCOLS[0]
        )
        for each in able
    ]
    missing = [each for each in found_here if not each.version]
    if names and missing:
        raise MissingProgramError(
            f"--server {missing[0].name}: it is not installed for {python.path}",
            f"Install it there: {python.path} -m pip install {missing[0].module.INSTALL}",
        )
    return tuple(each for each in found_here if each.version)


def _version(contender: Contender, python: Interpreter, environ: Mapping[str, str]) -> str:
    """As it says it; nothing if it is not installed."""
    module = contender.module
    if module.PROGRAM:
        program = find_server(module.PROGRAM, python, environ)
        return program.version if program else ""
    if not module.INSTALL:
        return stack.__version__
    argv = [python.path, "-c", SAYS_VERSION, module.INSTALL]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() if not done.returncode else ""
