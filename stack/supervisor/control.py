"""The control socket: what may be asked of a running stack, and the client that asks.

One JSON object a line. A request is `{"do": ...}`; the answer is one object with `ok`, and what belongs to it:

`status`  -> `ok`, `status` (see `supervisor.Supervisor.status`), `plan` (as written by `desired.to_json`)
`apply`   takes `plan` and `fresh` (load the code again though nothing changed) -> `ok`, `changes`, or `message`,
          `detail`, `hint`
`rollback` -> the same as `apply`: what is parked serves again
`stop`    -> `ok`, at once; the stack is gone when the socket is
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

__all__ = ["Nobody", "call", "path", "serve"]

LARGEST = 64 * 1024 * 1024  # bytes of one line; a plan holds the text of every file

Answerer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Nobody(ConnectionError):  # noqa: N818 - it reads as what it is: nobody is there
    """No supervisor listens on the control socket."""


def path(runtime_dir: str) -> Path:
    """Where the control socket of a stack is."""
    return Path(runtime_dir, "control.sock")


async def serve(runtime_dir: str, answer: Answerer) -> asyncio.Server:
    """Listens; only the owner may connect."""
    import asyncio  # noqa: PLC0415 - who serves has it already; who only asks starts faster without it

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError, asyncio.CancelledError):
            request = json.loads(await reader.readline())
            reply = await answer(request)
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()

    where = path(runtime_dir)
    where.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(session, where, limit=LARGEST)
    finally:
        os.umask(before)


def call(runtime_dir: str, request: dict[str, Any], within: float | None = None) -> dict[str, Any]:
    """Asks a running stack; `within` seconds, or however long it takes.

    Raises:
        Nobody: no supervisor of ours is there, or it ended before it answered.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(within)
            connection.connect(str(path(runtime_dir)))
            _refuse_strangers(connection)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline()
    except OSError as error:
        raise Nobody(str(error)) from error
    if not line.endswith(b"\n"):
        raise Nobody("the supervisor ended before it answered")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _refuse_strangers(connection: socket.socket) -> None:
    """What answers is believed, plan and all: so it must be us, or root."""
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if user not in (0, os.geteuid()):
        raise PermissionError(f"another user (uid {user}) listens on the control socket")
