"""The shape of a plan: what is desired, as data.

Written by `stack.plan`, read by everything else. It crosses to the supervisor as JSON, so this module is plain
dataclasses of strings, numbers, tuples and dicts, standard library only. Placeholders stand in the strings of a
service until it is spawned: `{socket}` and `{control}`, the generation's own, and `{generation}`, its number.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

__all__ = ["Check", "File", "Listener", "Logs", "Plan", "Probe", "Service", "digest", "from_json", "to_json"]

VERSION = 4  # of this shape; a supervisor refuses a plan of another version


@dataclass(frozen=True, slots=True)
class File:
    """A file to write. `path` is relative to the state directory."""

    path: str
    text: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Check:
    """A command that must accept the files before they are used. `{files}` is the directory that holds them.

    `forgives` is a pattern of what it may say when it fails for another reason than the files; "" if there is none.
    """

    name: str
    argv: tuple[str, ...]
    hint: str = ""
    forgives: str = ""


@dataclass(frozen=True, slots=True)
class Listener:
    """A public address, `HOST:PORT`, whose listening socket the supervisor holds. `backlog` in connections."""

    address: str
    backlog: int = 511


@dataclass(frozen=True, slots=True)
class Probe:
    """One hop's check: a GET in `protocol` to `address` (`unix:PATH` or `HOST:PORT`), and what must come back.

    `within` is in seconds. An answer passes with a status below 500, or equal to `status` if that is not 0; the
    header named `header`, if any, must match `pattern` as a whole (an nginx etag tells who served a file). `ours` tells
    whether we run everything on the way: then a start has failed if the hop does not work.
    """

    hop: str
    title: str
    protocol: str
    address: str
    host: str
    path: str
    hint: str
    within: float = 5.0
    status: int = 0
    header: str = ""
    pattern: str = ""
    ours: bool = True


@dataclass(frozen=True, slots=True)
class Logs:
    """How logs are kept: as `text` or `json`; a file grows to `size` bytes (0: for ever), `keep` older ones stay."""

    format: str = "text"
    size: int = 10 * 1024**2
    keep: int = 5


@dataclass(frozen=True, slots=True)
class Service:
    """One command to keep running, and how it is treated. Times in seconds, signals by name without `SIG`.

    A service with a `link` serves behind it: each generation binds a socket of its own (`{socket}`), is ready once it
    answered `probe` there, and gets the link. A service with a `pid_file` is ready once it wrote its pid there.
    `listeners` are the addresses whose sockets it inherits, announced in the variable `listeners_variable`.
    `idle_within` is for how long the web server may still use the connections that it keeps to a retired generation.
    `reads` is the digest of its files, which it reads again on `reload_signal` if it has one; `program` tells its
    binary from another. `logs` are the files that it writes itself, and opens again by their names on `reopen_signal`.
    `keep_previous`: the generation before stays parked, for a rollback. `stop_word`, written to the generation's own
    fifo (`{control}`), asks it to stop; without one, or while nobody reads there, `stop_signal` does. `stop_when_idle`:
    asked while it has something in hand it would lose that, so it is asked once nobody is connected to its own socket.
    `tally_variable` tells its workers of the generation's own file in which they tell what they do. `is_batch`: it does
    not take the CPU from others the moment that it has something to do (SCHED_BATCH, sched(7)).
    """

    name: str
    tier: int
    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str] = field(default_factory=dict)
    env_file: str = ""
    user: str = ""
    link: str = ""
    probe: Probe | None = None
    pid_file: str = ""
    idle_within: float = 0.0
    listeners: tuple[str, ...] = ()
    listeners_variable: str = ""
    tally_variable: str = ""
    reads: str = ""
    reload_signal: str = ""
    logs: tuple[str, ...] = ()
    reopen_signal: str = ""
    program: str = ""
    keep_previous: bool = False
    stop_word: str = ""
    stop_when_idle: bool = False
    is_batch: bool = False
    stop_signal: str = "TERM"
    orphan_signal: str = "TERM"
    start_within: float = 30.0
    stop_within: float = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a stack is: the files to write, the services to keep running, the probes that prove they work.

    `overrides` are the settings given on the command line or in the environment of `up`, as `[key, value, origin]`:
    the stack remembers them. `user` is whom the apps run as, empty for the same as the supervisor; `group` a group that
    may connect to the apps' sockets, empty for none. `alias` is where the runtime directory is looked for without the
    overrides, if that is elsewhere; it becomes a link. `summary` is what `up` says, line by line.
    """

    name: str
    project: str
    state_dir: str
    runtime_dir: str
    url: str
    files: tuple[File, ...]
    checks: tuple[Check, ...]
    listeners: tuple[Listener, ...]
    services: tuple[Service, ...]
    probes: tuple[Probe, ...]
    summary: tuple[tuple[str, str], ...] = ()
    overrides: tuple[tuple[str, str, str], ...] = ()
    user: str = ""
    group: str = ""
    alias: str = ""
    logs: Logs = Logs()
    version: int = VERSION

    @property
    def log(self) -> Path:
        """The file that the supervisor writes."""
        return Path(self.state_dir, "log", "stack.log")

    def welcome(self) -> str:
        """The summary as text, one thing a line."""
        return "\n".join(f"  {label:9} {text}" for label, text in self.summary)

    def service(self, name: str) -> Service | None:
        """The service of that name, if the plan has one."""
        return next((each for each in self.services if each.name == name), None)


def digest(value: Any) -> str:
    """A short name for a value of JSON types or dataclasses: equal values, equal names."""
    plain = json.dumps(value, default=dataclasses.asdict, sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def to_json(plan: Plan) -> str:
    """The plan as one JSON document."""
    return json.dumps(dataclasses.asdict(plan), ensure_ascii=False)


def from_json(text: str) -> Plan:
    """The plan back from JSON.

    Raises:
        ValueError: not JSON, another version, or not of this shape.
    """
    data = json.loads(text)
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError(f"this is not a plan of version {VERSION}")
    try:
        plan = _built(Plan, data)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"this is not a plan: {error}") from error
    assert isinstance(plan, Plan)  # noqa: S101 - for the type checker
    return plan


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _built(kind: Any, data: Any) -> Any:
    """`data` of JSON types as the annotated type: dataclasses and tuples are made again, the rest is taken as it is."""
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = _hints(kind)  # type: ignore[arg-type]
        return kind(**{key: _built(hints[key], value) for key, value in data.items()})  # type: ignore[operator]
    if origin in (Union, types.UnionType):
        return None if data is None else _built(next(each for each in arguments if each is not type(None)), data)
    if origin is tuple:
        inner = arguments[:1] * len(data) if arguments[-1] is Ellipsis else arguments
        return tuple(_built(each, value) for each, value in zip(inner, data, strict=True))
    return data
