"""`watch`: reloads a running stack when its code or its settings change. For development.

Beside a stack that runs, or as a service of its own plan: then it starts last, ends first, and what it says is in the
log. What is saved while a reload goes on leads to one more, however much it is.
"""

from __future__ import annotations

import contextlib
import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stack.config import AUTO, FILE, Config
from stack.desired import Plan, Service
from stack.errors import ConfigError, StackError, told
from stack.operations import running
from stack.operations.running import WATCHER, Running
from stack.supervisor import control

__all__ = ["Watched", "service", "watch"]

CODE = {".py"}
TEMPLATES = {".html", ".htm", ".jinja", ".jinja2", ".j2"}  # Flask keeps them, compiled, for as long as it runs
TEMPLATE_FOLDER = "templates"  # where other files are templates, too: Flask's own name for it
SETTINGS = {FILE, "pyproject.toml", ".env", ".flaskenv"}  # the latter two may name the app, as for Flask
NOT_OURS = {"__pycache__", "node_modules", "site-packages"}
STATIC = "static"  # the folder that Flask's static files are in, unless it is told otherwise
NAMED = 3  # files of a change; a checkout changes hundreds
LOOK_ELSEWHERE = 500  # milliseconds between two looks at files that are in no directory of ours


def service(plan: Plan) -> Service:
    """The service of a plan that watches its project, in a tier of its own: ready once nothing that is saved is missed.

    It runs as the supervisor does, who alone may be told to reload.
    """
    pid_file = f"{plan.runtime_dir}/{WATCHER}.g{{generation}}.pid"
    return Service(
        name=WATCHER,
        tier=1 + max(each.tier for each in plan.services),
        argv=(sys.executable, "-P", "-m", "stack", "--project", plan.project, "watch", "--pid-file", pid_file),
        cwd=plan.project,
        pid_file=pid_file,
    )


def watch(project: Path, talk: Callable[[str], None], pid_file: Path | None = None) -> None:
    """Reloads the project's stack whenever its files change, until the stack ends.

    As a service of it, with a `pid_file` in its runtime directory, writes this process's id there once it watches.

    Raises:
        StackError: no stack runs.
    """
    where = str(pid_file.parent) if pid_file else ""
    found = running.require(project, where)
    watched = _watched(project, found, Watched((project,)))

    def ready() -> None:
        talk(f"watches {', '.join(map(str, watched.directories))}")
        if pid_file:
            pid_file.write_text(str(os.getpid()), "ascii")

    presence = _Presence(found.plan.runtime_dir, ready)
    changed: set[Path] = set()
    while presence.lasts():
        stamps, directories = watched.stamps(), watched.directories
        for saved in _saved(directories, presence):
            changed |= {*filter(watched.has, saved), *(each for each in stamps if stamps[each] != _stamp(each))}
            if not changed:
                continue
            watched = _watched(project, found, watched)
            if watched.directories != directories:
                break  # first look there, too: what is saved from now on must not be missed
            talk(f"changed: {_listed(changed, project)}")
            _forget_compiled(changed)
            stamps, changed = watched.stamps(), set()
            _reload(project, where, presence, talk)
    talk("the stack has ended")


def _saved(directories: tuple[Path, ...], presence: _Presence) -> Iterator[set[Path]]:
    """What was saved in the directories, together if it was so within a moment; nothing, now and then, if nothing was.

    Raises:
        StackError: there are more directories than the kernel lets us watch.
    """
    from watchfiles import watch as saved  # noqa: PLC0415 - it takes a while, and only this needs it

    try:
        for each in saved(
            *directories,
            watch_filter=None,
            stop_event=presence,
            rust_timeout=LOOK_ELSEWHERE,
            yield_on_timeout=True,
            ignore_permission_denied=True,
        ):
            yield {Path(path) for _, path in each}
    except OSError as error:
        raise StackError(
            f"the project cannot be watched: {error}",
            "If that is the limit of the kernel: sysctl fs.inotify.max_user_watches=524288",
        ) from error


@dataclass(frozen=True)
class Watched:
    """What is looked at: `directories` with all that is below them, and `files` that are elsewhere.

    Not in it: hidden directories, virtual environments, what others generate, and `ignored` directories: those of
    the stack's own files, and of static ones, which no app has loaded.
    """

    directories: tuple[Path, ...]
    files: tuple[Path, ...] = ()
    ignored: tuple[Path, ...] = ()
    ignored_names: frozenset[str] = frozenset(NOT_OURS)

    @classmethod
    def of(cls, config: Config) -> Watched:
        """The project, its apps' directories and env files."""
        project = Path(config.project)
        places = [project, *(_normal(config.path(each.directory)) for each in config.apps.values())]
        there = [each for each in dict.fromkeys(places) if each.is_dir()]
        directories = tuple(each for each in there if not any(up in there for up in each.parents))
        statics = [each.static for each in config.sites.values()]
        folders = [each for each in (*statics, *(each.private for each in config.sites.values())) if each != AUTO]
        return cls(
            directories=directories,
            files=tuple(_normal(config.path(each.env_file)) for each in config.apps.values() if each.env_file),
            ignored=(
                _normal(config.state_dir),
                *(_normal(config.path(folder)) for each in folders for folder in each.values()),
            ),
            ignored_names=frozenset(NOT_OURS | ({STATIC} if AUTO in statics else set())),
        )

    def stamps(self) -> dict[Path, object]:
        """What tells of the files that are in none of the directories whether they were saved."""
        return {each: _stamp(each) for each in self.files if self._holding(each) is None}

    def has(self, path: Path) -> bool:
        """Whether it is a file that the stack depends on, or a directory, moved here perhaps, with such files."""
        directory = self._holding(path)
        if path in self.files or (path.parent == directory and path.name in SETTINGS):
            return True
        if directory is None or any(map(self._is_ignored, _downwards(directory, path))):
            return False
        if path.is_dir():
            return path != directory and any(map(self.has, path.iterdir()))
        return path.suffix in CODE | TEMPLATES or TEMPLATE_FOLDER in path.relative_to(directory).parts[:-1]

    def _is_ignored(self, path: Path) -> bool:
        """Hidden files are, too: editors write them, and rename them when they are whole."""
        by_name = path.name.startswith(".") or path.name in self.ignored_names
        return by_name or path in self.ignored or (path / "pyvenv.cfg").exists()

    def _holding(self, path: Path) -> Path | None:
        return next((each for each in self.directories if path.is_relative_to(each)), None)


class _Presence:
    """Whether the stack is there: asked several times a second, the first time when nothing is missed any more."""

    def __init__(self, runtime_dir: str, ready: Callable[[], None]) -> None:
        self._socket = control.path(runtime_dir)
        self._ready: Callable[[], None] | None = ready

    def lasts(self) -> bool:
        """As long as it can be told to reload."""
        return self._socket.exists()

    def is_set(self) -> bool:
        """The form of an event: set once the stack has ended."""
        if self._ready is not None:
            self._ready()
            self._ready = None
        return not self.lasts()


def _watched(project: Path, found: Running, before: Watched) -> Watched:
    """By the settings as they are now; as before, if they are broken at the moment."""
    try:
        return Watched.of(running.load_for(project, found).config)
    except ConfigError:
        return before


def _reload(project: Path, where: str, presence: _Presence, talk: Callable[[str], None]) -> None:
    """What is refused is said, and lived with: the next save may mend it."""
    try:
        _, changes = running.reload(project, where=where)
    except (StackError, control.Nobody) as error:
        if presence.lasts():
            said = told(error.message, error.detail, error.hint) if isinstance(error, StackError) else str(error)
            talk(f"{said}\nthe old code serves on; the next save is tried again")
        return
    for each in changes:
        talk(each)


def _forget_compiled(changed: Iterable[Path]) -> None:
    """Python takes a file that was saved in the same second, with the same size, for the one that it has compiled.

    What is compiled was so before the stack was watched, or by others: see `running.with_watcher`.
    """
    for source in changed:
        for compiled in (source.parent / "__pycache__").glob(f"{glob.escape(source.stem)}.*.pyc"):
            with contextlib.suppress(OSError):
                compiled.unlink()


def _listed(changed: Iterable[Path], project: Path) -> str:
    names = sorted(str(each.relative_to(project) if each.is_relative_to(project) else each) for each in changed)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _downwards(directory: Path, path: Path) -> Iterator[Path]:
    """The path, and what is above it below the directory."""
    return (each for each in (path, *path.parents) if each != directory and each.is_relative_to(directory))


def _stamp(path: Path) -> object:
    """Changes when the file does, or another takes its name."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path))
