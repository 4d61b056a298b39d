"""What an answer is sent through where that is not just the connection."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from . import fastcgi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .connection import Connection
    from .gathering import Pieces

FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Stdout:
    """A transport that puts what it sends into the records of one FastCGI request."""

    def __init__(self, connection: Connection, request_id: int) -> None:
        self._connection = connection
        self._id = request_id

    def pieces(self, frame: Callable[[bytes], bytes]) -> Pieces:  # noqa: ARG002 - records are the frame
        """Where to add what is to be sent soon."""
        return self._connection.pieces(lambda data: b"".join(self._records(data)))

    def send(self, data: bytes) -> None:
        """Send all of it."""
        for each in self._records(data):
            self._connection.send(each)

    def send_all(self, parts: Sequence[bytes]) -> None:
        """Send all of these."""
        for each in parts:
            self.send(each)

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Send part of a file. One that has become shorter leaves a record incomplete: the answer breaks off."""
        sent = 0
        while sent < count:
            size = min(fastcgi.CONTENT_MOST, count - sent)
            self._connection.send(fastcgi.header(fastcgi.STDOUT, self._id, size))
            went = self._connection.send_file(fd, offset + sent, size)
            sent += went
            if went < size:
                break
        return sent

    def _records(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), fastcgi.CONTENT_MOST):
            yield fastcgi.record(fastcgi.STDOUT, self._id, data[at : at + fastcgi.CONTENT_MOST])


class Once:
    """A transport that sends what can be sent at once, for the thread that must not wait for anybody."""

    def __init__(self, sock: socket.SocketType) -> None:
        self._sock = sock

    def send(self, data: bytes) -> None:
        """Send as much of it as there is room for."""
        self._sock.send(data, FLAGS)

    def send_all(self, parts: Sequence[bytes]) -> None:
        """Not needed for an error's few bytes."""
        raise NotImplementedError

    def pieces(self, frame: Callable[[bytes], bytes]) -> Pieces:
        """Not needed either."""
        raise NotImplementedError

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Not needed for an error's few bytes."""
        raise NotImplementedError
