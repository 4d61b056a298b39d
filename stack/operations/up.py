"""`up`: from a project to a running stack."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from stack import files, interrupts
from stack.config import Loaded, Override
from stack.desired import Plan
from stack.errors import StackError, UnhealthyError
from stack.facts import runtime_dir
from stack.operations import ports, running, watch
from stack.operations.prepare import Prepared, load, prepare_loaded
from stack.supervisor import notify, place

__all__ = ["Say", "up_detached", "up_in_the_foreground"]

Say = Callable[[Prepared], None]
Prepare = Callable[[Loaded], Prepared]


def up_in_the_foreground(project: Path, flags: Sequence[Override], say: Say, *, watched: bool = False) -> NoReturn:
    """Becomes the supervisor: the same process, so its pid and its exit status are the stack's.

    `watched`: the stack reloads itself when its files change.

    Raises:
        StackError: the stack cannot be started; nothing is left of it.
    """
    words = notify.taken(os.environ)
    try:
        with _prepared(project, flags, watched=watched) as (prepared, lock, listeners):
            say(prepared)
            # From here until the supervisor has its handlers, a signal waits.
            signal.pthread_sigmask(signal.SIG_BLOCK, interrupts.ENDING)
            interrupts.check()
            for descriptor in (lock, *listeners.values()):
                os.set_inheritable(descriptor, True)
            argv = _command(prepared.plan, lock, listeners)
            sys.stdout.flush()
            sys.stderr.flush()
            os.execve(argv[0], argv, {**os.environ, **words})
    except StackError as error:
        cause = error.__context__
        notify.Manager(words).status(error.message, (cause.errno or 0) if isinstance(cause, OSError) else 0)
        raise


def up_detached(
    project: Path,
    flags: Sequence[Override],
    say: Say,
    *,
    private: bool = False,
    watched: bool = False,
    prepare: Prepare = prepare_loaded,
) -> Plan:
    """Starts the supervisor in the background; returns once the site answers. From then on no signal undoes it.

    `watched` as for `up_in_the_foreground`. A service manager above us is told nothing: what it started is this
    command, not the stack.

    A private stack is ours alone: commands in the project do not find it, and it ends when this process ends. `prepare`
    makes its plan.

    Raises:
        StackError: the stack cannot be started, or does not answer; nothing is left of it.
    """
    notify.taken(os.environ)
    with _prepared(project, flags, private=private, watched=watched, prepare=prepare) as (prepared, lock, listeners):
        say(prepared)
        reading, writing = os.pipe()
        argv = [*_command(prepared.plan, lock, listeners), "--report", str(writing)]
        argv += ["--parent", str(os.getpid())] if private else []
        supervisor: subprocess.Popen[bytes] | None = None
        try:
            interrupts.check()
            with interrupts.held():  # from here until the supervisor has its handlers, a signal waits
                supervisor = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    pass_fds=(lock, writing, *listeners.values()),
                )
                os.close(writing)
            with os.fdopen(reading, encoding="utf-8") as stream:
                outcome = _outcome(stream.read())
            if outcome["ok"] and not private:
                interrupts.ignore()
        except BaseException:
            if supervisor is not None:
                supervisor.terminate()
                supervisor.wait()
            raise
        if not outcome["ok"]:
            supervisor.wait()
            kind = UnhealthyError if outcome["exit_code"] == UnhealthyError.exit_code else StackError
            raise kind(outcome["message"], outcome["hint"], outcome["detail"])
        supervisor.returncode = 0  # it goes on without us; not to be waited for
        return prepared.plan


@contextlib.contextmanager
def _prepared(
    project: Path,
    flags: Sequence[Override],
    *,
    private: bool = False,
    watched: bool = False,
    prepare: Prepare = prepare_loaded,
) -> Iterator[tuple[Prepared, int, dict[str, int]]]:
    """Everything up to the first process: the lock, the plan, the public sockets, the files. Undone on an error."""
    given = ports.given(os.environ)
    loaded = load(project, flags)
    where = runtime_dir(loaded.config, os.environ)
    alias = where if private else runtime_dir(load(project).config, os.environ)
    lock = -1
    try:
        with interrupts.held():
            if Path(alias).is_symlink():
                with _explained(alias):
                    place.clear(alias)  # a killed run left it
            lock = _lock(where)
        prepared = prepare(loaded)
        plan = prepared.plan
        if watched:
            plan = running.with_watcher(plan, watch.service(plan))
        if alias != where:
            place.point(alias, where)
            plan = dataclasses.replace(plan, alias=alias)
        prepared = dataclasses.replace(prepared, plan=plan)
        taken_over = {} if private else ports.taken_over(given, plan)
        with contextlib.ExitStack() as opened:
            listeners = {
                each.address: opened.enter_context(
                    taken_over.get(each.address) or ports.listening(each.address, each.backlog)
                ).fileno()
                for each in plan.listeners
            }
            with interrupts.held():
                files.validate(plan)
                files.write(plan)
                with _explained(where):
                    place.remember(plan)
            yield prepared, lock, listeners
    except BaseException:
        with interrupts.held():
            if lock >= 0 and place.holds(lock, where):  # else the supervisor has left, and somebody may have entered
                place.leave(alias if Path(alias).is_symlink() else where)
        raise
    finally:
        if lock >= 0:
            os.close(lock)


def _lock(where: str) -> int:
    with _explained(where):
        lock = place.enter_and_take(where)
        try:
            place.sign(lock, os.getpid(), time.time())
        except OSError:
            place.leave(where)
            os.close(lock)
            raise
    return lock


@contextlib.contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except place.Taken as taken:
        pid, since = taken.owner.get("pid", "?"), taken.owner.get("since", time.time())
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
        raise StackError(
            f"this project's stack is running already: pid {pid}, since {began}",
            "`stackctl reload` brings your changes, `stackctl status` shows it, `stackctl down` ends it.",
        ) from None
    except OSError as error:
        raise StackError(
            f"the runtime directory {where} cannot be used: {error}", "Another place: --set stack.runtime_dir=DIR."
        ) from error


def _command(plan: Plan, lock: int, listeners: dict[str, int]) -> list[str]:
    """-P: the project may have a stack.py of its own, which is not to be mistaken for us."""
    argv = [sys.executable, "-P", "-m", "stack.supervisor", plan.runtime_dir, "--lock", str(lock)]
    return argv + [f"--listener={address}={descriptor}" for address, descriptor in listeners.items()]


def _outcome(told: str) -> dict[str, Any]:
    try:
        outcome: dict[str, Any] = json.loads(told)
    except ValueError:
        return {"ok": False, "message": "the supervisor ended without a word", "hint": "", "detail": "", "exit_code": 1}
    return outcome
