"""Kept-alive connections change hands: from a process whose threads are all busy to whoever is free first.

A connection that the web server keeps belongs to the process that accepted it. Were it to stay there for ever, its next
request would wait behind slow ones while another process has nothing to do: no connection for each request does that.
So a process whose threads are all at slow requests puts what becomes ready into a queue (SCM_RIGHTS, unix(7)). It is
one as that of a listening socket is: any thread of any process takes from it, and it outlives each of them.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct

MESSAGE = struct.Struct("=i")  # the descriptor of the listening socket that it was accepted from: all have the same
WAITS = b"\1"


class Exchange:
    """Made by the master before the first fork, for a number of `workers` and of `threads` in each."""

    def __init__(self, workers: int, threads: int) -> None:
        slots = 2 * workers + 8  # of those that end, and of their successors
        self._threads = threads
        self._memory = mmap.mmap(-1, slots * threads)
        self._free = list(range(slots))
        self._give, self._take = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._give.setblocking(False)
        self._take.setblocking(False)

    def fileno(self) -> int:
        """What is readable when there is a connection to take."""
        return self._take.fileno()

    def close(self) -> None:
        """Close it; what is on its way is closed, too."""
        self._give.close()
        self._take.close()

    # For the master.

    def slot(self) -> int:
        """A place for a new worker's threads; -1 if there is none left: it is seen by nobody."""
        return self._free.pop() if self._free else -1

    def give_back(self, slot: int) -> None:
        """The worker at this place has ended: none of its threads waits for work."""
        if slot >= 0:
            self._memory[self._threads_of(slot)] = bytes(self._threads)
            self._free.append(slot)

    # For a worker.

    def waits(self, slot: int) -> memoryview[int] | bytearray:
        """A byte for each thread of the worker at this place: 1 while it waits for work."""
        if slot < 0:
            return bytearray(self._threads)
        return memoryview(self._memory)[self._threads_of(slot)]

    @property
    def waiting(self) -> int:
        """How many threads wait for work, in all processes; while some do, who is busy looks sooner."""
        return self._memory[:].count(WAITS)

    def give(self, sock: socket.socket, listener: int) -> bool:
        """Give a connection away, which came from this listening socket; False if there is no room in the queue."""
        try:
            socket.send_fds(self._give, [MESSAGE.pack(listener)], [sock.fileno()])
        except OSError:  # the queue is full, or too many descriptors are on their way (ETOOMANYREFS)
            return False
        return True

    def take(self) -> tuple[socket.socket, object, int]:
        """A connection as accept() returns it, and its listening socket.

        Raises:
            BlockingIOError: there is none.
            OSError: no descriptor is free (EMFILE, ENFILE), or the connection is broken.
        """
        os.close(os.dup(self._take.fileno()))  # fails first where no descriptor is free: a connection would be lost
        data, descriptors, _, _ = socket.recv_fds(self._take, MESSAGE.size, 1)
        sock = socket.socket(fileno=descriptors[0])
        try:
            peer = sock.getpeername()
        except OSError:
            sock.close()
            raise
        sock.set_inheritable(False)
        return sock, peer, MESSAGE.unpack(data)[0]

    def _threads_of(self, slot: int) -> slice:
        return slice(slot * self._threads, (slot + 1) * self._threads)
