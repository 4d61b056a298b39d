"""Where an app is and what it is, asked of a child process that imports it; and what to say when there is none."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from stack import interrupts
from stack.config import AUTO, App, Config
from stack.errors import ConfigError, StackError
from stack.facts.interpreter import Interpreter, candidates
from stack.facts.user import as_user, find_user, group, home

__all__ = ["AppFacts", "environment", "find_app"]

OURS = "STACKCTL_"
SCRIPT = str(Path(__file__).with_name("bootstrap.py"))
HAS_MODULE = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
GRACE = 5.0  # seconds that the child has to end itself before we do
TARGET = 'Name it in stack.toml: [app] target = "module:callable", or in the environment: FLASK_APP=module:callable'
# Where the name to install is not the name to import.
DISTRIBUTIONS = {
    "MySQLdb": "mysqlclient",
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "jwt": "pyjwt",
    "psycopg2": "psycopg2-binary",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


@dataclass(frozen=True, slots=True)
class AppFacts:
    """An app as it was found. `from module import name` with `search_path` first on sys.path, then `expression`.

    `expression` is a dotted name or a call with literal arguments. `static_url` and `static_folder` (absolute) are both
    set or both "". `user` is whom it runs as when we are root, "" as we are; `group` is that user's own.
    `max_content_length` is the largest body that a Flask app takes, in bytes, None if it does not say.
    """

    python: Interpreter
    directory: str
    search_path: str
    module: str
    expression: str
    found_by: str
    framework: str
    static_url: str
    static_folder: str
    user: str
    group: str = ""
    max_content_length: int | None = None


def find_app(
    config: Config, name: str, python: Interpreter, environ: Mapping[str, str], meanwhile: Callable[[], None]
) -> AppFacts:
    """The app of that name, imported once in a child process; `meanwhile` is called while that takes its time.

    Raises:
        ConfigError: directory, user, environment file or app are not there, or the app raises when it is imported.
        StackError: importing takes too long, or ends the process.
    """
    app = config.apps[name]
    directory = os.path.normpath(Path(config.project, app.directory))
    if not Path(directory).is_dir():
        raise ConfigError(f"[app] directory = {app.directory!r}: there is no directory {directory}")
    user = find_user(config, name, directory, python, SCRIPT)
    env = environment(config, name, environ) | home(user)
    target, found_by = _target(app, config.project, directory, env)
    said = _asked(python, directory, target, env, user, app.server.start_within, meanwhile)
    if "problem" in said:
        missing = str(said["missing"]) if said["problem"] == "raised" else ""
        elsewhere = find_module(missing, config.project, python, environ, user)
        raise _explained(said, found_by, target, directory, python, elsewhere)
    return AppFacts(python=python, directory=directory, user=user, group=group(user), **{"found_by": found_by, **said})


def environment(config: Config, name: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that the app of that name gets: this one without our own variables, its `env`, its `env_file`.

    Raises:
        ConfigError: the env_file cannot be read.
    """
    app = config.apps[name]
    kept = {key: value for key, value in environ.items() if not key.startswith(OURS)}
    return kept | app.env | (_variables(Path(config.project, app.env_file), "[app] env_file: ") if app.env_file else {})


def _variables(file: Path, what: str = "") -> dict[str, str]:
    from dotenv import dotenv_values  # noqa: PLC0415 - most projects have no such file

    try:
        with file.open(encoding="utf-8") as stream:
            found = dotenv_values(stream=stream)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what}{file} cannot be read: {error}", "It holds lines NAME=value.") from None
    return {key: value for key, value in found.items() if value is not None}


def _target(app: App, project: str, directory: str, env: Mapping[str, str]) -> tuple[str, str]:
    """The target as given, "" if it is not, and what gave it. `.env` rules over `.flaskenv`, as in Flask."""
    if app.target != AUTO:
        return app.target, "target"
    if env.get("FLASK_APP"):
        return env["FLASK_APP"], "FLASK_APP"
    for name in (".env", ".flaskenv"):
        for where in dict.fromkeys((directory, project)):
            file = Path(where, name)
            found = _variables(file).get("FLASK_APP") if file.is_file() else None
            if found:
                return found, name
    return "", ""


# The child.


def _asked(
    python: Interpreter,
    directory: str,
    target: str,
    env: Mapping[str, str],
    user: str,
    within: float,
    meanwhile: Callable[[], None],
) -> dict[str, Any]:
    """What the child answers. It, and whatever the app started in its session, is gone afterwards."""
    reading, writing = os.pipe()
    request = json.dumps({"answer": writing, "target": target, "within": within})
    with os.fdopen(reading, "rb", buffering=0) as answers, tempfile.TemporaryFile() as output:
        child: subprocess.Popen[bytes] | None = None
        try:
            with interrupts.held():
                try:
                    child = subprocess.Popen(
                        [python.path, SCRIPT, request],
                        **as_user(user),
                        cwd=directory,
                        env=env,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        pass_fds=(writing,),
                        start_new_session=True,
                    )
                except OSError as error:
                    raise ConfigError(f"{python.path} does not run in {directory}: {error}") from None
                finally:
                    os.close(writing)
            meanwhile()
            answer, late = _read(answers, child.pid, time.monotonic() + within + GRACE)
        finally:
            if child is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)  # before it is waited for: its number is still its own
                child.wait()
        ended = child.returncode
        return _understood(answer, ended, output, late or answer != b"", within)


def _read(answers: IO[bytes], pid: int, deadline: float) -> tuple[bytes, bool]:
    """All that came until a whole answer or the child's end, and whether the deadline passed first.

    The end of the pipe means nothing: the app may have closed it, or a process that it forked may keep it open.
    """
    received = b""
    os.set_blocking(answers.fileno(), False)
    ended = os.pidfd_open(pid)
    with selectors.DefaultSelector() as selector:
        selector.register(answers, selectors.EVENT_READ)
        selector.register(ended, selectors.EVENT_READ)
        try:
            while not _whole(received):
                ready = [key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic()))]
                if answers.fileno() in ready:
                    piece = answers.read(65536)
                    received += piece or b""
                    if piece == b"":
                        selector.unregister(answers)
                elif ended in ready:
                    return received, False
                else:
                    return received, True
        finally:
            os.close(ended)
    return received, False


def _whole(answer: bytes) -> bool:
    return answer.startswith(b"{") and answer.endswith(b"\n")


def _understood(answer: bytes, ended: int, output: IO[bytes], late: bool, within: float) -> dict[str, Any]:  # noqa: FBT001
    if _whole(answer):
        reply = json.loads(answer)
        assert isinstance(reply, dict)  # noqa: S101 - for the type checker
        return reply
    output.seek(0)
    said = output.read().decode("utf-8", "replace")[-4000:].rstrip()
    if late:
        dump = answer.decode("utf-8", "replace")
        raise StackError(
            f"importing the app takes longer than {within:g} s{_where(dump)}",
            "Move slow work out of the import, or raise [server] start_within.",
            dump.rstrip() or said,
        )
    how = f"was ended by {signal.Signals(-ended).name}" if ended < 0 else f"ended with status {ended}"
    raise StackError(f"importing the app ended its process: it {how}", "See what it said above.", said)


def _where(dump: str) -> str:
    """The place that the dump of faulthandler shows, most recent call first."""
    machinery = (f"{Path(SCRIPT).parent}/", "<frozen ", "importlib/__init__.py", "/flask/cli.py")
    for file, line in re.findall(r'^  File "(.*)", line (\d+)', dump.rpartition("Thread ")[2], re.MULTILINE):
        if not any(each in file for each in machinery) and not re.search(r"/lib(64)?/python3[^/]*/", file):
            return f": it is in {file}, line {line}"
    return ""


def find_module(missing: str, project: str, python: Interpreter, environ: Mapping[str, str], user: str) -> str:
    """Another interpreter near by that has the missing module, as `[app] python` would name it; "" if none has.

    Each is asked as the app's user: to start it is to run what its packages bring along.
    """
    name = missing.partition(".")[0]
    for each in candidates(project, environ) if name else ():
        if each == python.path or not os.access(each, os.X_OK):
            continue
        argv = [each, "-I", "-c", HAS_MODULE, name]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                argv, **as_user(user), cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False
            )
            if done.returncode == 0:
                return each.removeprefix(f"{project}/").removesuffix("/bin/python")
    return ""


# What to say when there is none.


def _explained(
    said: Mapping[str, Any], found_by: str, target: str, directory: str, python: Interpreter, elsewhere: str
) -> ConfigError:
    given = f"{found_by} = {target!r}: " if target else ""
    if said["problem"] == "raised":
        return _raised(said, given, python, elsewhere)
    if said["problem"] == "nothing":
        maybe = f"Perhaps it is in {', '.join(said['maybe'][:5])}. " if said["maybe"] else ""
        return ConfigError(f"no app found in {directory}", maybe + TARGET, "\n".join(said["looked"]))
    message, hint = _words(said)
    return ConfigError(given + message, hint)


def _words(said: Mapping[str, Any]) -> tuple[str, str]:  # noqa: PLR0911 - one for each kind
    """Message and hint for each kind of problem that the child reports."""
    match said:
        case {"problem": "bad-target", "why": why}:
            return why, 'A target is "module:callable", "path/to/file.py:callable" or "module:factory(\'argument\')".'
        case {"problem": "no-module", "missing": missing, "search_path": search_path, "near": near}:
            return f"there is no module {missing} in {search_path}", _near(near) or TARGET
        case {"problem": "no-attribute", "owner": owner, "name": name, "near": near, "names": names}:
            return f"{owner} has no {name}", _near(near) or f"It has: {', '.join(names[:20]) or 'nothing'}."
        case {"problem": "several", "module": module, "names": names}:
            choice = f'Name the one to serve: [app] target = "{module}:{names[0]}"'
            return f"{module} has several Flask apps: {', '.join(names)}", choice
        case {"problem": "arguments", "module": module, "name": name, "signature": signature, "why": why}:
            return f"{signature} in {module}: {why}", f'Give its arguments: [app] target = "{module}:{name}(...)"'
        case {"problem": "asgi", "module": module, "name": name}:
            how = "stackctl serves WSGI apps. Serve it with an ASGI server, or wrap it (a2wsgi.ASGIMiddleware)."
            return f"{module}:{name} is an ASGI app", how
        case {"problem": "signature", "module": module, "name": name, "signature": signature}:
            called = f"a WSGI app is called with two arguments, {name}(environ, start_response)"
            factory = f'[app] target = "{module}:{name.partition("(")[0]}(...)"'
            how = f"If it is a factory, name it with its arguments: {factory}"
            return f"{signature} in {module} is not a WSGI app: {called}", how
        case {"problem": "not-wsgi", "module": module, "name": name, "type": kind}:
            return f"{module}:{name} is not a WSGI app but of type {kind}", TARGET
        case {"module": module, "names": names}:
            return f"no app found in {module}", f"It has: {', '.join(names[:20]) or 'nothing'}. {TARGET}"
    raise AssertionError(said)


def _raised(said: Mapping[str, Any], given: str, python: Interpreter, elsewhere: str) -> ConfigError:
    kind, text, missing = said["type"], str(said["message"]).partition("\n")[0], said["missing"].partition(".")[0]
    if said["file"]:
        return ConfigError(f"{given}{kind} in {said['file']}, line {said['line']}: {text}", "", said["traceback"])
    if missing:
        command = f"{python.path} -m pip install" if said["pip"] else f"uv pip install --python {python.path}"
        message = f"{given}the app needs the module {missing}, and {python.path} ({python.origin}) does not have it"
        hint = f"Install it: {command} {DISTRIBUTIONS.get(missing, missing)}"
        if elsewhere:
            hint += f"\n{elsewhere} has it; to run the app with that: [app] python = {json.dumps(elsewhere)}"
        return ConfigError(message, hint, said["traceback"])
    if kind == "SystemExit":
        return ConfigError(
            f"{given}the app ends the process when it is imported ({kind}: {text})", "", said["traceback"]
        )
    return ConfigError(f"{given}the app raises {kind} when it is imported: {text}", "", said["traceback"])


def _near(names: list[str]) -> str:
    return f"Did you mean {' or '.join(names)}?" if names else ""
