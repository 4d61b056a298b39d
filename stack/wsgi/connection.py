"""The life of one connection: bytes arrive, requests are told apart, each is answered, the connection stays or goes.

`advance` is called when there is something to read, by whichever thread is free, never by two at once. It returns
whether the connection shall be waited for again; it blocks only where the app reads a body that has not arrived, or
where the peer does not take the answer, and then for no longer than STALL between two bytes.

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
from .body import Body, BodyCut, ChunkedBody, LengthBody
from .protocol import Protocol, ProtocolError, name, spoken
from .response import PeerGone, Response, answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from .environ import Environ, Origin

HEAD_WITHIN = 10.0  # seconds from a request's first byte, or from connecting, until its head is complete: else 408
IDLE_WITHIN = 60.0  # seconds that a kept-alive connection may be silent between two requests
STALL = 60.0  # seconds between two bytes of a body, or of an answer
DISCARD_LIMIT = 1 << 20  # bytes of a body that the app did not read, up to which reading them saves the connection
LINGER = 2.0  # seconds to go on reading, and dropping, after an answer that came before the end of its request
RECEIVE = 65536  # bytes to ask for at a time
FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL

PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
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
    request. It is shared with the master. `current` has their environs.
    """

    app: Callable[..., Any]
    progress: memoryview[float]
    current: list[Environ | None] = field(default_factory=list)
    draining: bool = False


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
        self._lingering = False
        self._buffer = b""
        self._thread = 0

    @property
    def idle(self) -> bool:
        """Whether nothing of a request has arrived, and nothing of an answer is on its way."""
        return not self._buffer and not self._lingering

    def close(self) -> None:
        """Close it."""
        self.sock.close()

    def expire(self) -> None:
        """Its deadline has passed: say so if a request had begun (RFC 9110 15.5.9), and close."""
        if self._buffer and self._protocol is Protocol.HTTP and not self._lingering:
            with contextlib.suppress(OSError):
                self._refuse(ProtocolError(408, f"the head took longer than {HEAD_WITHIN:g} s"))
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
        while (stays := request()) and not self._lingering:
            if not self._buffer:
                self.since = time.monotonic()
                self.deadline = self.since + IDLE_WITHIN
                return True
            self.deadline = time.monotonic() + HEAD_WITHIN
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
        data = self._buffer[head.size :]
        self._buffer = b""
        environ = environs.of_http(head, self._origin, self._peer)
        body: Body
        self._expected = head.expects_continue and not data
        receive = self._continue if self._expected else self._receive
        if head.length == 0:
            body = Body()
        elif head.length is None:
            body = ChunkedBody(data, receive)
        else:
            body = LengthBody(head.length, data, receive)

        def persists() -> bool:
            if (
                self._service.draining or self._expected
            ):  # nobody can know whether the body that was not asked for comes
                return False
            return head.keep_alive and (body.unread or 0) <= DISCARD_LIMIT

        response = Response(self, head.method, head.minor and 1, persists)
        self._serve(environ, body, response)
        if response.whole and response.keep_alive and body.discard(DISCARD_LIMIT):
            self._buffer = data if head.length == 0 else body.leftover()
            return True
        return self._end(body, response)

    def _uwsgi(self) -> bool | None:
        found = uwsgi.variables(self._buffer)
        if found is None:
            return None
        variables, size = found
        environ = environs.of_uwsgi(variables, self._origin)
        length = uwsgi.length(variables)
        data = self._buffer[size:]
        self._buffer = b""
        body = LengthBody(length, data, self._receive) if length else Body()
        response = Response(self, environ["REQUEST_METHOD"], None, _never)
        self._serve(environ, body, response)
        return self._end(body, response)

    def _serve(self, environ: Environ, body: Body, response: Response) -> None:
        """Run the app on one request. Its errors end here, those that would end a process too."""
        service, thread = self._service, self._thread
        environ["wsgi.input"] = body
        service.current[thread] = environ
        service.progress[thread] = time.monotonic()
        try:
            result = service.app(environ, response.start)
            try:
                answer(result, response)
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        except PeerGone:
            response.whole = False
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt too are one failed request
            self._failed(environ, response, error)
        finally:
            service.progress[thread] = 0.0
            service.current[thread] = None
        if response.fault:
            log.line(f"{environs.request_line(environ)}: {response.fault}")

    def _failed(self, environ: Environ, response: Response, error: BaseException) -> None:
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
            status = 400 if cut else 500
            response.fail(f"{status} {PHRASES[status]}", PHRASES[status])

    def _end(self, body: Body, response: Response) -> bool:
        """Before closing: let the peer see the end, and do not reset it while it still writes its request."""
        if response.whole and body.unread != 0:
            return self._linger()
        if response.whole and not response.framed:
            # A child process that the app has forked may hold the connection too: closing would then say nothing.
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
        return False

    def _refuse(self, error: ProtocolError) -> None:
        """Answer a request that cannot be served."""
        log.line(f"refused a request with {error.status}: {error.reason}")
        minor = None if self._protocol is Protocol.UWSGI else 1
        Response(self, "GET", minor, _never).fail(f"{error.status} {PHRASES[error.status]}", error.reason)

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
        while True:
            try:
                data = self.sock.recv(size, FLAGS)
            except BlockingIOError:
                if not self._wait(select.POLLIN, STALL):
                    raise BodyCut(f"the request's body stalled for {STALL:g} s") from None
            except OSError as error:
                raise BodyCut(f"the request's body was broken off: {error.strerror}") from error
            else:
                self._service.progress[self._thread] = time.monotonic()
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
            if not self._wait(select.POLLOUT, STALL):
                raise PeerGone(f"the peer took nothing for {STALL:g} s")
            try:
                data = data[self.sock.send(data, FLAGS) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise PeerGone(str(error)) from error

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Send part of a file; how many bytes of it there were."""
        self.sock.setblocking(False)
        left = count
        while left:
            try:
                sent = os.sendfile(self.sock.fileno(), fd, offset, min(left, 1 << 20))
            except BlockingIOError:
                if not self._wait(select.POLLOUT, STALL):
                    raise PeerGone(f"the peer took nothing for {STALL:g} s") from None
                continue
            except OSError as error:
                raise PeerGone(str(error)) from error
            if not sent:  # the file has become shorter
                break
            offset += sent
            left -= sent
            self._service.progress[self._thread] = time.monotonic()
        return count - left

    def _wait(self, event: int, seconds: float) -> bool:
        """Whether the socket becomes ready in time."""
        poll = select.poll()
        poll.register(self.sock, event)
        return bool(poll.poll(seconds * 1000))


def _never() -> bool:
    return False
