"""The life of one connection: bytes arrive, requests are told apart, each is answered, the connection stays or goes.

`advance` is called when there is something to read, by whichever thread is free, never by two at once. It returns
whether the connection shall be waited for again. A head that is not complete, and a body that the app did not read,
are waited for that way too. It blocks only where the app reads a body that has not arrived, or where the peer does not
take the answer, and then for no longer than STALL between two bytes; a TCP peer has no more than STALL for all such
waits of one request, and earns a second by each SLOWEST bytes. A request that waits for its peer is not stuck.

An answer that breaks off half-way ends the connection before its announced end: nginx then breaks off too. Over uwsgi
without a Content-Length nothing can say so, for there the end of the connection is the end of the answer: nginx 1.22
passes on what came as if it were whole.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import environ as environs
from . import http, log, uwsgi
from .body import Body, BodyCut, BodyTooLarge, ChunkedBody, LengthBody
from .protocol import Protocol, ProtocolError, name, spoken
from .response import PeerGone, Response, answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from .environ import Environ, Origin
    from .response import Transport

HEAD_WITHIN = 10.0  # seconds from a request's first byte, or from connecting, until its head is complete: else 408
IDLE_WITHIN = 60.0  # seconds that a kept-alive connection may be silent between two requests
STALL = 60.0  # seconds between two bytes of a body, or of an answer
SLOWEST = 1000.0  # bytes per second below which a TCP peer uses up its time; a modem had five times as many
DROP_WITHIN = 10.0  # seconds that the rest of a body which the app did not read may take to arrive
DISCARD_LIMIT = 1 << 20  # bytes of a body that the app did not read, up to which reading them saves the connection
LINGER = 2.0  # seconds to go on reading, and dropping, after an answer that came before the end of its request
RECEIVE = 65536  # bytes to ask for at a time
FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL

PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    505: "HTTP Version Not Supported",
}


@dataclass(slots=True)
class Service:
    """What the connections of one process share.

    `progress` has a number for each thread: since when (monotonic seconds) its request has not got on, 0 without a
    request and while it waits for its peer. It is shared with the master. `current` has their environs. `max_body` is
    in bytes, 0 for no limit.
    """

    app: Callable[..., Any]
    progress: memoryview[float]
    current: list[Environ | None] = field(default_factory=list)
    draining: bool = False
    max_body: int = 0


class Connection:
    """One accepted connection. `deadline` is until when, in monotonic seconds, it may be waited for."""

    def __init__(
        self, sock: socket.socket, peer: object, origin: Origin, service: Service, only: Protocol | None
    ) -> None:
        self.sock = sock
        self.since = time.monotonic()
        self.deadline = self.since + HEAD_WITHIN
        self.registered = False
        self._origin = origin
        self._peer = (str(peer[0]), str(peer[1])) if isinstance(peer, tuple) else None
        self._service = service
        self._protocol = only
        self._fresh = True
        self._expected = False  # whether the client waits for "100 Continue"
        self._broken = False  # whether the request's body ended in a way that leaves its end unknown
        self._lingering = False
        self._unread: Body | None = None  # a body of whose rest nobody wants to know
        self._waits = True  # whether a body that has not arrived is waited for, on a thread
        self._patience = STALL if self._peer is not None else float("inf")
        self._left = self._patience  # seconds that the request may still wait for its peer, in all
        self._buffer = b""
        self._thread = 0

    @property
    def faces_client(self) -> bool:
        """Whether the peer is not the web server, which closes idle connections itself, but perhaps a client."""
        return self._peer is not None

    @property
    def idle(self) -> bool:
        """Whether nothing of a request has arrived, and nothing of an answer is on its way."""
        return not self._buffer and not self._lingering and self._unread is None

    def close(self) -> None:
        """Close it."""
        self.sock.close()

    def expire(self) -> None:
        """Its deadline has passed: say so if a request had begun (RFC 9110 15.5.9), and close. It never blocks."""
        if self._buffer and self._protocol is Protocol.HTTP and not self._lingering:
            with contextlib.suppress(OSError):
                self._refuse(ProtocolError(408, f"the head took longer than {HEAD_WITHIN:g} s"), _Once(self.sock))
        self.close()

    def advance(self, thread: int) -> bool:
        """Do what the arrived bytes allow, on the given thread; whether to wait for more."""
        self._thread = thread
        try:
            return self._advance()
        except ProtocolError as error:
            with contextlib.suppress(OSError):
                self._refuse(error)
                return self._linger()
        except PeerGone:
            pass
        return False

    def _advance(self) -> bool:
        if self._unread is not None:
            return self._requests()
        try:
            data = self.sock.recv(RECEIVE, FLAGS)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data or self._lingering:
            return bool(data)
        if self._fresh:
            self._fresh = False
            if not self._recognise(data[0]):
                return False
        elif not self._buffer:
            self.deadline = time.monotonic() + HEAD_WITHIN
        self._buffer = self._buffer + data if self._buffer else data
        return self._requests()

    def _requests(self) -> bool:
        """Serve the requests that have arrived whole; whether to wait for more."""
        request = self._uwsgi if self._protocol is Protocol.UWSGI else self._http
        step = request if self._unread is None else self._drop
        while (stays := step()) and not self._lingering:
            if not self._buffer:
                self.since = time.monotonic()
                self.deadline = self.since + IDLE_WITHIN
                return True
            self.deadline = time.monotonic() + HEAD_WITHIN
            step = request
        return stays is not False

    def _recognise(self, first: int) -> bool:
        """Find out the protocol by the first byte, or refuse it; whether it is one that this address takes."""
        found = spoken(first)
        if found is None or self._protocol not in {None, found}:
            log.line(f"refused a connection that begins with {name(first)}")
            return False
        self._protocol = found
        return True

    # Each of these serves the request that the buffer begins with: None, it is incomplete; else whether to go on.

    def _http(self) -> bool | None:
        head = http.head(self._buffer)
        if head is None:
            return None
        if head.length:
            self._check(head.length)
        data = self._buffer[head.size :]
        self._buffer = b""
        environ = environs.of_http(head, self._origin, self._peer)
        body: Body
        self._expected = head.expects_continue and not data
        receive = self._continue if self._expected else self._receive
        if head.length == 0:
            body = Body()
        elif head.length is None:
            body = ChunkedBody(data, receive, self._service.max_body)
        else:
            body = LengthBody(head.length, data, receive)

        def persists() -> bool:
            # Expected: nobody can know whether the body that was not asked for comes.
            if self._service.draining or self._expected or self._broken or body.exceeded:
                return False
            return head.keep_alive and (body.unread or 0) <= DISCARD_LIMIT

        response = Response(self, head.method, head.minor and 1, persists)
        self._serve(environ, body, response)
        if not response.whole or not response.keep_alive:
            return self._end(body, response, awaited=head.keep_alive)
        if head.length == 0:
            self._buffer = data
            return True
        self._unread = body
        self.deadline = time.monotonic() + DROP_WITHIN
        return self._drop()

    def _drop(self) -> bool | None:
        """Read what the app has left of a body, as it arrives."""
        body = self._unread
        if body is None:
            raise AssertionError("nothing to drop")
        self._waits = False
        try:
            ended = body.discard(DISCARD_LIMIT)
        except BlockingIOError:
            return None
        finally:
            self._waits = True
        self._unread = None
        self._buffer = body.leftover()
        return ended or self._linger()

    def _uwsgi(self) -> bool | None:
        found = uwsgi.variables(self._buffer)
        if found is None:
            return None
        variables, size = found
        environ = environs.of_uwsgi(variables, self._origin)
        length = uwsgi.length(variables)
        if length:
            self._check(length)
        data = self._buffer[size:]
        self._buffer = b""
        body = LengthBody(length, data, self._receive) if length else Body()
        response = Response(self, environ["REQUEST_METHOD"], None, _never)
        self._serve(environ, body, response)
        return self._end(body, response, awaited=False)

    def _check(self, length: int) -> None:
        """Refuse a body that is too large, before anything is done for it."""
        most = self._service.max_body
        if most and length > most:
            raise ProtocolError(413, f"a body of {length} bytes, over {most} (--max-body)")

    def _serve(self, environ: Environ, body: Body, response: Response) -> None:
        """Run the app on one request. Its errors end here, those that would end a process too."""
        service, thread = self._service, self._thread
        environ["wsgi.input"] = body
        self._left = self._patience
        service.current[thread] = environ
        service.progress[thread] = time.monotonic()
        try:
            result = service.app(environ, response.start)
            try:
                if service.max_body and body.exceeded and response.failing and not response.started:
                    raise BodyTooLarge("the app has failed, for its request's body is too large")
                answer(result, response)
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        except PeerGone:
            response.whole = False
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt too are one failed request
            self._failed(environ, body, response, error)
        finally:
            service.progress[thread] = 0.0
            service.current[thread] = None
        if response.fault:
            log.line(f"{environs.request_line(environ)}: {response.fault}")

    def _failed(self, environ: Environ, body: Body, response: Response, error: BaseException) -> None:
        """Tell the log, and the client if it is not too late."""
        line = environs.request_line(environ)
        cut = isinstance(error, BodyCut)
        if cut:
            log.line(f"{line}: {error}")
        else:
            log.failure(f"{line}: {'raised after its answer began' if response.started else 'raised'}", error)
        if response.whole:  # raised by close()
            return
        if response.started:
            response.whole = False
            return
        with contextlib.suppress(PeerGone):
            self._broken = cut
            status = 413 if body.exceeded else 400 if cut else 500
            response.fail(f"{status} {PHRASES[status]}", PHRASES[status])

    def _end(self, body: Body, response: Response, *, awaited: bool) -> bool:
        """Before closing: let the peer see the end, and do not reset it while it still writes its request.

        `awaited`: the peer wanted to keep the connection. It may have sent the next request already.
        """
        if response.whole and (awaited or body.unread != 0):
            return self._linger()
        if response.whole and not response.framed:
            # A child process that the app has forked may hold the connection too: closing would then say nothing.
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
        return False

    def _refuse(self, error: ProtocolError, transport: Transport | None = None) -> None:
        """Answer a request that cannot be served."""
        log.line(f"refused a request with {error.status}: {error.reason}")
        minor = None if self._protocol is Protocol.UWSGI else 1
        Response(transport or self, "GET", minor, _never).fail(f"{error.status} {PHRASES[error.status]}", error.reason)

    def _linger(self) -> bool:
        """Say that nothing more comes; whether to wait, and drop what still arrives.

        Closing on it would reset the peer, and take the answer from it (RFC 9112 9.6).
        """
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        self._lingering = True
        self._buffer = b""
        self.deadline = time.monotonic() + LINGER
        return True

    def _continue(self, size: int) -> bytes:
        """Receive for a client that waits to be told so (RFC 9110 10.1.1), once the app asks."""
        if self._expected:
            self._expected = False
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return self._receive(size)

    def _receive(self, size: int) -> bytes:
        """Up to `size` bytes of a body; b"" if the peer has ended."""
        waited = False
        while True:
            try:
                data = self.sock.recv(size, FLAGS)
            except BlockingIOError:
                if not self._waits:
                    raise
                if not self._wait(select.POLLIN):
                    raise BodyCut("the request's body stalled, or came too slowly") from None
                waited = True
            except OSError as error:
                raise BodyCut(f"the request's body was broken off: {error.strerror}") from error
            else:
                self._moved(len(data) if waited else 0)
                return data

    def send(self, data: bytes) -> None:
        """Send all of it."""
        try:
            sent = self.sock.send(data, FLAGS)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise PeerGone(str(error)) from error
        if sent < len(data):
            self._send_rest(memoryview(data)[sent:])
        if self._service.progress[self._thread]:
            self._service.progress[self._thread] = time.monotonic()

    def _send_rest(self, data: memoryview) -> None:
        while data:
            if not self._wait(select.POLLOUT):
                raise PeerGone("the peer took nothing, or too slowly")
            try:
                sent = self.sock.send(data, FLAGS)
            except BlockingIOError:
                continue
            except OSError as error:
                raise PeerGone(str(error)) from error
            self._moved(sent)
            data = data[sent:]

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Send part of a file; how many bytes of it there were."""
        self.sock.setblocking(False)
        left = count
        waited = False
        while left:
            try:
                sent = os.sendfile(self.sock.fileno(), fd, offset, min(left, 1 << 20))
            except BlockingIOError:
                if not self._wait(select.POLLOUT):
                    raise PeerGone("the peer took nothing, or too slowly") from None
                waited = True
                continue
            except OSError as error:
                raise PeerGone(str(error)) from error
            if not sent:  # the file has become shorter
                break
            offset += sent
            left -= sent
            self._moved(sent if waited else 0)
        return count - left

    def _wait(self, event: int) -> bool:
        """Whether the socket becomes ready in time. Meanwhile the request is its peer's affair, and not stuck."""
        progress, thread = self._service.progress, self._thread
        counted = progress[thread] > 0
        progress[thread] = 0.0
        poll = select.poll()
        poll.register(self.sock, event)
        before = time.monotonic()
        ready = bool(poll.poll(max(0.0, min(STALL, self._left)) * 1000))
        now = time.monotonic()
        self._left -= now - before
        if counted:
            progress[thread] = now
        return ready

    def _moved(self, count: int) -> None:
        """Bytes have passed: the request gets on, and the peer has earned time."""
        self._left = min(self._patience, self._left + count / SLOWEST)
        if self._service.progress[self._thread]:
            self._service.progress[self._thread] = time.monotonic()


class _Once:
    """A transport that sends what can be sent at once, for the thread that must not wait for anybody."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, data: bytes) -> None:
        """Send as much of it as there is room for."""
        self._sock.send(data, FLAGS)

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Not needed for an error's few bytes."""
        raise NotImplementedError


def _never() -> bool:
    return False
