"""Bodies of any size, in any protocol, pass through no more memory than one piece of them takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from . import wire
from .conftest import Server, everything, request

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("way", ["http", "chunked", "tiny-chunks", "uwsgi", "fastcgi", "scgi"])
def test_upload_takes_no_memory(server: Server, way: str) -> None:
    """200 MB, of which the worker never has more than a piece; before them a little, for what serving takes at all."""
    worker = Path(f"/proc/{server.workers()[0]}")
    size, piece = (200 << 20, b"x" * 65528) if way != "tiny-chunks" else (1 << 19, b"x")

    def upload(size: int) -> None:
        pieces, rest = divmod(size, len(piece))
        if way in {"chunked", "tiny-chunks"}:
            head, framed, last = CHUNKED, b"%x\r\n%b\r\n" % (len(piece), piece), b"%x\r\n%b\r\n" % (rest, piece[:rest])
            end = b"0\r\n\r\n"
        elif way == "fastcgi":
            head = request("fastcgi", "/size", method="POST", size=size)[: -len(wire.record("STDIN", 1))]
            framed, last, end = wire.record("STDIN", 1, piece), wire.record("STDIN", 1, piece[:rest]), b""
        else:
            head, framed, last, end = request(way, "/size", method="POST", size=size), piece, piece[:rest], b""
        together = max(1, 65536 // len(framed))
        with server.connect() as sock:
            sock.sendall(head)
            for _ in range(pieces // together):
                sock.sendall(framed * together)
            sock.sendall(framed * (pieces % together) + (last if rest else b"") + end)
            assert b"%d " % size in everything(sock)

    upload(size // 100)
    (worker / "clear_refs").write_text("5")  # proc(5): forget the peak so far
    before = peak(worker)
    upload(size)
    assert peak(worker) - before < 2 << 20


CHUNKED = b"POST /size HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"


def peak(process: Path) -> int:
    """The most memory (RSS) that a process has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
    assert found is not None
    return int(found[1]) * 1024
