from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from stack.wsgi.address import Address, AddressError, backlog_most, listen, parse, refuse_new, remove

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/a b.sock", Address("unix:/run/a b.sock", path="/run/a b.sock")),
        ("unix:a:1", Address("unix:a:1", path="a:1")),
        ("127.0.0.1:80", Address("127.0.0.1:80", host="127.0.0.1", port=80)),
        (":80", Address(":80", port=80)),
        ("[::1]:80", Address("[::1]:80", host="::1", port=80)),
        ("fd://3", Address("fd://3", fd=3)),
    ],
)
def test_parse(text: str, address: Address) -> None:
    assert parse(text) == address


@pytest.mark.parametrize(
    "text", ["", "unix:", "a", "80", "a:", "a:b", "a:-1", "a:65536", "::1:80", "fd://", "fd://x", "unix:" + "a" * 108]
)
def test_malformed_address_is_refused_by_name(text: str) -> None:
    with pytest.raises(AddressError, match=r"no path|not unix|brackets|number|at most"):
        parse(text)


def test_unix_socket_is_the_owners_only_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        listener = listen(parse(f"unix:{folder}/s"), 5)
        assert os.umask(0) == 0, "the umask is put back"
    finally:
        os.umask(before)
    assert (folder / "s").stat().st_mode & 0o777 == 0o600
    listener.socket.close()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o620])
def test_unix_socket_has_the_mode_that_was_asked_for(folder: Path, mode: int) -> None:
    listener = listen(parse(f"unix:{folder}/s"), 5, mode)
    assert (folder / "s").stat().st_mode & 0o7777 == mode
    listener.socket.close()


def test_inherited_socket_sends_small_answers_at_once() -> None:
    with socket.socket() as given:
        given.bind(("127.0.0.1", 0))
        listener = listen(parse(f"fd://{os.dup(given.fileno())}"), 5)
        with socket.create_connection(given.getsockname()):
            accepted = listener.socket.accept()[0]
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            accepted.close()
        listener.socket.close()


def test_stale_socket_is_replaced_and_a_live_one_is_not(folder: Path) -> None:
    address = parse(f"unix:{folder}/s")
    first = listen(address, 5)
    with pytest.raises(AddressError, match="something listens there already"):
        listen(address, 5)
    first.socket.close()
    second = listen(address, 5)
    remove(first)
    assert (folder / "s").exists(), "it is the second one's now"
    remove(second)
    assert not (folder / "s").exists()
    second.socket.close()


def test_what_is_not_a_socket_is_left_alone(folder: Path) -> None:
    (folder / "s").write_text("precious")
    with pytest.raises(AddressError, match="not a socket"):
        listen(parse(f"unix:{folder}/s"), 5)
    assert (folder / "s").read_text() == "precious"


def test_reason_is_told(folder: Path) -> None:
    with pytest.raises(AddressError, match="No such file or directory"):
        listen(parse(f"unix:{folder}/missing/s"), 5)
    with pytest.raises(AddressError, match="Bad file descriptor"):
        listen(parse("fd://9999"), 5)


def test_queue_can_be_emptied_after_nothing_more_is_let_in(folder: Path) -> None:
    listener = listen(parse(f"unix:{folder}/s"), 5)
    with socket.socket(socket.AF_UNIX) as queued, socket.socket(socket.AF_UNIX) as late:
        queued.connect(f"{folder}/s")
        refuse_new(listener)
        with pytest.raises(ConnectionRefusedError):
            late.connect(f"{folder}/s")
        listener.socket.accept()[0].close()
        with pytest.raises(BlockingIOError):
            listener.socket.accept()
    listener.socket.close()


def test_inherited_socket_is_not_shut_down() -> None:
    with socket.socket() as given:
        given.bind(("127.0.0.1", 0))
        listener = listen(parse(f"fd://{os.dup(given.fileno())}"), 5)
        refuse_new(listener)
        remove(listener)
        with socket.create_connection(given.getsockname()):
            listener.socket.accept()[0].close()
        listener.socket.close()


def test_backlog_is_what_the_kernel_allows() -> None:
    assert backlog_most(1) == 1
    assert backlog_most(1 << 30) < 1 << 30
