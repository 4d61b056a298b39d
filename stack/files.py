"""From the plan to the disk: what would change, are the programs content with it, write it, put the old back.

The only code that writes files of a plan. A file is replaced in one step, so a reader sees the old one or the new one.
"""

from __future__ import annotations

import difflib
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stack.desired import Check, File, Plan
from stack.errors import ConfigError, StackError

__all__ = ["Change", "Written", "changes", "validate", "write"]

IGNORE = "# Written by stackctl: nothing here belongs in version control.\n*\n"
DIRECTORIES = {"log": 0o700, "tmp/nginx": 0o755}
"""With their modes: what is logged may be secret (URLs, tracebacks); in the other, nginx's workers have theirs."""
POINTS = re.compile(r" in (/.+):(\d+)$", re.MULTILINE)  # as nginx says it
AROUND = 2  # neighbours of a line that is shown


@dataclass(frozen=True, slots=True)
class Change:
    """A file whose text on the disk is not the plan's. `old` is None where there is no file."""

    path: Path
    old: str | None
    new: str

    def diff(self) -> str:
        """The change as a unified diff."""
        before = [] if self.old is None else self.old.splitlines(keepends=True)
        name = str(self.path)
        lines = difflib.unified_diff(before, self.new.splitlines(keepends=True), name if before else "/dev/null", name)
        return "".join(lines)


@dataclass(frozen=True, slots=True)
class Written:
    """What a write replaced: the way back."""

    changes: tuple[Change, ...]

    def put_back(self) -> None:
        """The files as they were before. A file that cannot be put back does not keep the others from it."""
        for each in self.changes:
            try:
                if each.old is None:
                    each.path.unlink(missing_ok=True)
                else:
                    _replace(each.path, each.old, each.path.stat().st_mode & 0o777)
            except OSError:
                continue


def changes(plan: Plan) -> Iterator[Change]:
    """The files of the plan that are missing or different on the disk."""
    for file in plan.files:
        path = Path(plan.state_dir, file.path)
        old = _text(path)
        if old != file.text:
            yield Change(path, old, file.text)


def validate(plan: Plan) -> None:
    """Lets the real programs read the plan's files, in a place aside. What stands on the disk stays untouched.

    Raises:
        ConfigError: a program refuses them; its words are the detail, with the lines that it points at.
        StackError: the state directory cannot be written.
    """
    _prepare(plan)
    try:
        place = tempfile.TemporaryDirectory(prefix="check-", dir=plan.state_dir)
    except OSError as error:
        raise _unwritable(plan, error) from error
    with place as aside:
        try:
            for name in DIRECTORIES:
                Path(aside, name).mkdir(parents=True)
            for file in plan.files:
                _write(Path(aside, file.path), file)
        except OSError as error:
            raise _unwritable(plan, error) from error
        for check in plan.checks:
            _run(check, plan, aside)


def write(plan: Plan) -> Written:
    """Makes the disk as the plan says, and tells the way back. If one file fails, those before are put back.

    Raises:
        StackError: a file cannot be written.
    """
    _prepare(plan)
    done: list[Change] = []
    modes = {Path(plan.state_dir, file.path): file.mode for file in plan.files}
    try:
        for change in changes(plan):
            done.append(change)
            _replace(change.path, change.new, modes[change.path])
    except OSError as error:
        Written(tuple(done)).put_back()
        raise _unwritable(plan, error) from error
    return Written(tuple(done))


def _prepare(plan: Plan) -> None:
    state = Path(plan.state_dir)
    try:
        for name, mode in DIRECTORIES.items():
            (state / name).mkdir(mode, parents=True, exist_ok=True)
        _refuse_what_others_may_change(plan)
        _let_pass(plan.log.parent, plan.user)
        ignore = state / ".gitignore"
        if not ignore.exists():
            _replace(ignore, IGNORE, 0o644)
    except OSError as error:
        raise _unwritable(plan, error) from error


def _refuse_what_others_may_change(plan: Plan) -> None:
    """A web server follows links, as root perhaps: who can put one where it logs chooses a file that it writes.

    The project's owner is no other: root runs what that user's stack.toml says.
    """
    state, project = Path(plan.state_dir), Path(plan.project)
    trusted = {0, os.geteuid(), *([project.stat().st_uid] if project.exists() else ())}
    for path in (state, *(state / name for name in DIRECTORIES)):
        found = path.stat()
        strangers = {found.st_uid, path.lstat().st_uid} - trusted
        if strangers:
            raise _refusal(f"{path} belongs to another user (uid {strangers.pop()})", f"Is it yours? chown it: {path}")
        if found.st_mode & (stat.S_IWOTH if path == state else stat.S_IWOTH | stat.S_IWGRP):
            raise _refusal(f"others may write to {path}", f"chmod go-w {path}")
    for log in (plan.log, *(Path(each) for service in plan.services for each in service.logs)):
        if os.path.lexists(log) and not stat.S_ISREG(log.lstat().st_mode):
            raise _refusal(f"{log} is not a file: nothing is logged through a link", f"Remove it: rm {log}")


def _refusal(message: str, hint: str) -> StackError:
    return StackError(message, f"{hint}\nAnother place: --set stack.state_dir=DIR.")


def _let_pass(directory: Path, user: str) -> None:
    """A web server's workers open its logs again as this user, by their names."""
    if not user or os.geteuid() != 0:
        return
    group, found = pwd.getpwnam(user).pw_gid, directory.stat()
    passes = stat.S_IXOTH | (stat.S_IXGRP if found.st_gid == group else 0)
    if not found.st_mode & passes:
        os.chown(directory, -1, group)
        directory.chmod(stat.S_IMODE(found.st_mode) | stat.S_IXGRP)


def _unwritable(plan: Plan, error: OSError) -> StackError:
    return StackError(
        f"{plan.state_dir} cannot be written: {error.strerror or error}",
        "stackctl keeps its files and logs there; another place: --set stack.state_dir=DIR.",
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None


def _write(path: Path, file: File) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(file.text, "utf-8")
    path.chmod(file.mode)


def _replace(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
        if path.suffix == ".py":
            # Python knows compiled code by its source's size and second: a file can be replaced by such a one.
            shutil.rmtree(path.with_name("__pycache__"), ignore_errors=True)
        os.replace(temporary, path)  # noqa: PTH105 - both sides are ours, and this is the name of the atomic step
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _run(check: Check, plan: Plan, aside: str) -> None:
    argv = [each.replace("{files}", aside) for each in check.argv]
    if shutil.which(argv[0]) is None:
        raise StackError(f"{argv[0]} cannot be run", "Is it still installed?")
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False, timeout=60)
    if done.returncode and not (check.forgives and re.search(check.forgives, done.stderr)):
        said = (done.stderr + done.stdout).replace(aside, plan.state_dir).strip()
        detail = "\n".join((said, *_places(said, plan, aside)))
        raise ConfigError(f"{check.name} refuses the rendered configuration; nothing was changed", check.hint, detail)


def _places(said: str, plan: Plan, aside: str) -> Iterator[str]:
    """The lines that a program points at in the plan's files, each with its neighbours."""
    for path, number in dict.fromkeys(POINTS.findall(said)):
        text = _text(Path(path.replace(plan.state_dir, aside, 1)))
        if text is not None and Path(path).is_relative_to(plan.state_dir):
            yield f"{path}:"
            yield excerpt(text, int(number))


def excerpt(text: str, number: int) -> str:
    """A line, counted from 1, marked among its neighbours."""
    lines = text.splitlines()
    first, last = max(1, number - AROUND), min(len(lines), number + AROUND)
    return "\n".join(
        f"{'>' if each == number else ' '} {each:4} | {lines[each - 1]}".rstrip() for each in range(first, last + 1)
    )
