"""`logs`: what the services wrote, from the files, older ones too, and on as it comes."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

from stack.errors import StackError, UsageError
from stack.supervisor.line import parsed

__all__ = ["ACCESS", "lines"]

ACCESS = "access"
LOOK_AGAIN = 0.1  # seconds between two looks at files that have nothing new
NUMBERED = re.compile(r"\.([1-9][0-9]{0,2})")  # as `[logs] keep` goes
GROWING = 2  # files, the newest: whoever writes opens the new one a moment after the old one was moved


def lines(log: Path, name: str, last: int, *, follow: bool, as_json: bool = False) -> Iterator[str]:
    """The last lines of a service (of all, if `name` is empty), and, following, those that come.

    They are text or JSON as wanted, whatever they are in the files.

    Raises:
        StackError: there is no log yet.
        UsageError: the log has no service of that name.
    """
    wanted = name if name != ACCESS else ""
    with _Files(log.with_name("access.log") if name == ACCESS else log) as files:
        said: deque[str] = deque()
        for number, each in enumerate(files.newest_first):
            if number == 0 or len(said) < last:
                of_it = (line for line in _lines(each, torn=not follow) if wanted in ("", _writer(line)))
                said.extendleft(reversed(deque(of_it, maxlen=last - len(said))))
            else:
                each.seek(0, os.SEEK_END)
        if wanted and not said and last and not follow:
            there = {
                _writer(line) for each in files.newest_first if not each.seek(0) for line in _lines(each, torn=True)
            }
            raise UsageError(f"{name} has written nothing", f"There is: {', '.join(sorted({*there, ACCESS} - {''}))}.")
        yield from (_shown(line, name, as_json=as_json) for line in said)
        while follow:
            came = [line for each in files.growing for line in _lines(each, torn=False)]
            yield from (_shown(line, name, as_json=as_json) for line in came if wanted in ("", _writer(line)))
            if not came and not files.look():
                time.sleep(LOOK_AGAIN)


class _Files:
    """A log and the files that it was set aside as: `newest_first`, all open.

    What is open is known again wherever it is moved, and its number on the disk is not given to another file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._growing = GROWING
        self.newest_first: list[BinaryIO] = []

    def __enter__(self) -> Self:
        self.look()
        if not self.newest_first:
            raise StackError(f"there is no log yet: {self._path}", "`stackctl up` starts the stack and its log.")
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.newest_first:
            each.close()

    @property
    def growing(self) -> list[BinaryIO]:
        """Those that may have lines which have not been read, in the order in which they were written."""
        return self.newest_first[: self._growing][::-1]

    def look(self) -> bool:
        """Opens what is new, when all that was there has been read; whether there is any."""
        try:
            if self.newest_first and os.path.samestat(self._path.stat(), os.fstat(self.newest_first[0].fileno())):
                return False
            fresh = self._fresh()
        except FileNotFoundError:
            return False  # moved, and not opened again yet
        except PermissionError:
            owner = self._path.parent.owner()
            hint = f"It is {owner}'s: sudo -u {owner} stackctl logs"
            raise StackError(f"{self._path} is not ours to read", hint) from None
        for each in self.newest_first[GROWING:]:
            if not os.fstat(each.fileno()).st_nlink:
                each.close()
        self.newest_first = [*fresh, *(each for each in self.newest_first if not each.closed)]
        self._growing = len(fresh) + GROWING
        return bool(fresh)

    def _fresh(self) -> list[BinaryIO]:
        """From the newest to the first that is known. Files move the same way meanwhile, so that none slips by."""
        known = {_identity(each) for each in self.newest_first}
        fresh: dict[tuple[int, int], BinaryIO] = {}
        for path in (self._path, *self._older()):
            try:
                stream = path.open("rb")
            except FileNotFoundError:
                continue
            identity = _identity(stream)
            if identity in known:
                stream.close()
                break
            fresh.setdefault(identity, stream)
            if fresh[identity] is not stream:
                stream.close()
        return list(fresh.values())

    def _older(self) -> list[Path]:
        """`NAME.1`, `NAME.2` ... as far as they go, and where each is if it is moved now."""
        names = (each.name.removeprefix(self._path.name) for each in self._path.parent.iterdir())
        found = map(NUMBERED.fullmatch, names)
        last = max((int(each[1]) for each in found if each), default=0)
        # Each up to there: what is renamed meanwhile need not be listed (readdir(3)).
        return [self._path.with_name(f"{self._path.name}.{each}") for each in range(1, last + 2)]


def _identity(stream: BinaryIO) -> tuple[int, int]:
    found = os.fstat(stream.fileno())
    return found.st_dev, found.st_ino


def _lines(stream: BinaryIO, *, torn: bool) -> Iterator[str]:
    """What has not been read, and a last line that is not whole only if `torn`."""
    if stream.tell() > os.fstat(stream.fileno()).st_size:
        stream.seek(0)  # copied away and emptied
    for line in iter(stream.readline, b""):
        if not line.endswith(b"\n") and not torn:
            stream.seek(-len(line), os.SEEK_CUR)
            return
        yield line.removesuffix(b"\n").decode("utf-8", "replace")


def _writer(line: str) -> str:
    """Whose line it is: as text the third word, after date and time, without the pid."""
    if line.startswith("{"):
        return parsed(line).service
    words = line.split(" ", 3)
    return words[2].partition("[")[0] if len(words) > 3 else ""


def _shown(line: str, name: str, *, as_json: bool) -> str:
    if line.startswith("{") != as_json:
        found = parsed(line, name)
        line = found.as_json() if as_json else found.text if name == ACCESS else found.as_text()
    return line + "\n"
