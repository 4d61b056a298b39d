"""The life of one connection: bytes arrive, requests are told apart, each is answered, the connection stays or goes.

`advance` is called when there is something to read, by whichever thread is free, never by two at once. It returns
whether the connection shall be waited for again. A head that is not complete, and a body that the app did not read,
are waited for that way too. It blocks only where the app reads a body that has not arrived, or where the peer does not
take the answer, and then for no longer than STALL between two bytes; a TCP peer has no more than STALL for all such
waits of one request, and earns a second by each SLOWEST bytes. A request that waits for its peer is not stuck.

An answer that breaks off half-way ends the connection before its announced end: nginx then breaks off too. Over uwsgi
and SCGI without a Content-Length nothing can say so, for there the end of the connection is the end of the answer:
nginx 1.22 passes on what came as if it were whole.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from . import environ as environs
from . import fastcgi, http, log, repeated, scgi, uwsgi
from .access import identify, identity
from .body import NOTHING, Body, BodyCut, BodyTooLarge, ChunkedBody, LengthBody, PiecedBody
from .bulkhead import Bulkhead
from .gathering import Gathering, Pieces
from .protocol import Protocol, ProtocolError, name, spoken
from .response import AS_CGI, AS_HTTP, PeerGone, Response, answer
from .transports import FLAGS, Once, Stdout
from .variables import length as length_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .access import Access
    from .environ import Environ, Origin
    from .response import Transport
    from .state import Tally

HEAD_WITHIN = 10.0  # seconds from a request's first byte, or from connecting, until its head is complete: else 408
IDLE_WITHIN = 60.0  # seconds that a kept-alive connection may be silent between two requests
STALL = 60.0  # seconds between two bytes of a body, or of an answer
SLOWEST = 1000.0  # bytes per second below which a TCP peer uses up its time; a modem had five times as many
DROP_WITHIN = 10.0  # seconds that the rest of a body which the app did not read may take to arrive
DISCARD_LIMIT = 1 << 20  # bytes of a body that the app did not read, up to which reading them saves the connection
LINGER = 2.0  # seconds to go on reading, and dropping, after an answer that came before the end of its request
ROOM = 1 << 19  # bytes of a large answer that wait in the kernel, twice over, if net.core.wmem_max allows as many
RECEIVE = 65536  # bytes to ask for at a time
TIMEVAL = struct.Struct("@ll")  # seconds, microseconds, as socket(7) has them
HTTP, UWSGI, FASTCGI, SCGI = Protocol  # looked up once: an Enum's own way takes longer

FAILED = 500  # a status from there on says that the server or the app has failed (RFC 9110 15.6)
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


def _always(connection: Connection) -> bool:  # noqa: ARG001 - the form of Service.keep
    return True


class Service:
    """What the connections of one process share.

    `progress` has a number for each thread: since when (monotonic seconds) its request has not got on, 0 without a
    request and while it waits for its peer. It is shared with the master. `current` has their environs. `exhausted`:
    there was no memory for a request. `max_body` (0: no limit) and `max_head` are in bytes, `head_within` in seconds.
    `access` and `tally` are told of each request, if they are there. `keep` is asked before the first answer of a
    connection that could stay whether it shall.
    """

    draining = False
    exhausted = False

    def __init__(
        self,
        app: Callable[..., Any],
        progress: memoryview[float],
        *,
        max_body: int = 0,
        max_head: int = http.HEAD_LIMIT,
        head_within: float = HEAD_WITHIN,
        access: Access | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.app = app
        self.progress = progress
        self.current: list[Environ | None] = [None] * len(progress)
        self.max_body = max_body
        self.max_head = max_head
        self.head_within = head_within
        self.access = access
        self.tally = tally
        self.keep: Callable[[Connection], bool] = _always
        self.gathering = Gathering()
        self.bulkhead = Bulkhead()


class Connection:
    """One accepted connection. `deadline` is until when, in monotonic seconds, it may be waited for.

    `listener` is the descriptor of the listening socket that it came from.
    """

    # Here, not set for each connection: over uwsgi there is one for each request.
    registered = False
    held = False  # whether the request that has arrived is to wait for another thread
    _fresh = True  # nothing has arrived
    _keeps = False  # whether the client wants the connection to stay
    _kept = False  # whether it can
    _expected = False  # whether the client waits for "100 Continue"
    _broken = False  # whether the request's body ended in a way that leaves its end unknown
    _lingering = False
    _unread: Body | None = None  # a body of whose rest nobody wants to know
    _body = NOTHING  # of the request in hand
    _waits = True  # whether a body that has not arrived is waited for, on a thread
    _buffer = b""
    _records: fastcgi.Records | None = None  # of FastCGI
    _asked: fastcgi.Request | None = None  # what is held, of FastCGI
    _thread = 0
    _pieces: Pieces | None = None  # of the answer, that are sent soon
    _is_patient = False  # whether the kernel waits for no longer than STALL until the web server takes something
    _clock = ""  # the variable in which the web server tells when it took the request

    def __init__(
        self,
        sock: socket.SocketType,
        peer: object,
        origin: Origin,
        service: Service,
        only: Protocol | None,
        listener: int = -1,
    ) -> None:
        self.sock = sock
        self.listener = listener
        self.since = monotonic()
        self.deadline = self.since + service.head_within
        self._origin = origin
        self._peer = (str(peer[0]), str(peer[1])) if isinstance(peer, tuple) else None
        self._service = service
        self._protocol = only
        self._patience = STALL if self._peer is not None else float("inf")
        self._left = self._patience  # seconds that the request may still wait for its peer, in all

    @property
    def faces_client(self) -> bool:
        """Whether the peer is not the web server, which closes idle connections itself, but perhaps a client."""
        return self._peer is not None

    @property
    def idle(self) -> bool:
        """Whether nothing of a request has arrived, and nothing of an answer is on its way."""
        if self._buffer or self._lingering or self._unread is not None:
            return False
        return self._records is None or self._records.idle

    @property
    def rests(self) -> bool:
        """Whether any process may go on with it: all that there is of it is its socket."""
        if self._buffer or self._lingering or self._unread is not None:
            return False
        return self._records is None or (self._records.idle and not self._records.skips)

    def close(self) -> None:
        """Close it."""
        self.sock.close()

    def expire(self) -> None:
        """Its deadline has passed: say so if a request had begun (RFC 9110 15.5.9), and close. It never blocks."""
        if self._buffer and self._protocol is HTTP and not self._lingering:
            reason = f"the head took longer than {self._service.head_within:g} s (--head-within)"
            with contextlib.suppress(OSError):
                self._refuse(ProtocolError(408, reason), Once(self.sock))
        self.close()

    def advance(self, thread: int) -> bool:
        """Do what the arrived bytes allow, on the given thread; whether to wait for more."""
        self._thread = thread
        try:
            if self.held or self._unread is not None:
                return self._requests()
            try:
                data = self.sock.recv(RECEIVE, FLAGS)
            except BlockingIOError:
                return True
            except OSError:
                return False
            return self._arrived(data) if data and not self._lingering else bool(data)
        except ProtocolError as error:
            with contextlib.suppress(OSError):
                self._refuse(error)
                return self._linger()
        except PeerGone:
            pass
        return False

    def _arrived(self, data: bytes) -> bool:
        """Serve the requests that have arrived whole; whether to wait for more."""
        if self._buffer:
            self._buffer += data
            return self._requests()
        if self._fresh:
            self._fresh = False
            if not self._recognise(data[0]):
                return False
        elif self._records is None or self._records.idle:
            self.deadline = 0.0  # a request begins
        self._buffer = data
        stays = self._requests()
        if not self.deadline:  # it has not arrived whole
            self.deadline = monotonic() + self._service.head_within
        return stays

    def _requests(self) -> bool:
        """Serve the requests that have arrived whole; whether to wait for more."""
        step = self._step if self._unread is None else Connection._drop
        while (stays := step(self)) and not self._lingering:
            if not self._buffer:
                self.deadline = self.since + IDLE_WITHIN
                return True
            self.deadline = monotonic() + self._service.head_within
            step = self._step
        return stays is not False

    def _recognise(self, first: int) -> bool:
        """Find out the protocol by the first byte, or refuse it; whether it is one that this address takes."""
        found = spoken(first)
        if found is None or (self._protocol is not None and self._protocol is not found):
            log.line(f"refused a connection that begins with {name(first)}")
            return False
        self._protocol = found
        self._step = self._STEPS[found]
        self._clock = "HTTP_X_REQUEST_START" if found is HTTP else "REQUEST_START"
        if found is FASTCGI:
            self._records = fastcgi.Records(self._service.max_head)
        return True

    # Each of these serves the request that the buffer begins with: None, it is incomplete; else whether to go on.

    def _http(self) -> bool | None:
        arrived = self._buffer
        known = repeated.of_http(arrived, self._origin) if self._peer is None else None
        if known is not None:
            (head, environ), data = known, b""
            length: int | None = 0
        else:
            found = http.head(arrived, self._service.max_head)
            if found is None:
                return None
            head, data, length = found, arrived[found.size :], found.length
            if length:
                self._check(length)
            environ = environs.of_http(head, self._origin, self._peer)
        if (self._service.bulkhead.slow or self.held) and self._waits_for_another(environ):
            return None
        self._buffer = b""
        self._keeps = head.keep_alive
        response = Response(self, head.method, head.minor and 1, self._persists)
        if length == 0:
            body = NOTHING
        else:
            self._expected = head.expects_continue and not data
            receive = self._continue if self._expected else self._receive
            if length is None:
                body = ChunkedBody(data, receive, self._service.max_body)
            else:
                body = LengthBody(length, data, receive)
        self._serve(environ, body, response, arrived)
        if not response.whole or not response.keep_alive:
            return self._end(response, unread=head.keep_alive or body.unread != 0)
        if body is NOTHING:
            self._buffer = data
            return True
        self._unread = body
        self.deadline = monotonic() + DROP_WITHIN
        return self._drop()

    def _persists(self) -> bool:
        """Whether the connection may stay after this answer."""
        # Expected: nobody can know whether the body that was not asked for comes.
        if not self._keeps or self._service.draining or self._expected or self._broken:
            return False
        body = self._body
        if body is not NOTHING and (body.exceeded or (body.unread or 0) > DISCARD_LIMIT):
            return False
        return self._kept or self._can_stay()

    def _can_stay(self) -> bool:
        self._kept = self._service.keep(self)
        return self._kept

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
        self.since = monotonic()
        self._buffer = body.leftover()
        return ended or self._linger()

    def _packet(self) -> bool | None:
        """Uwsgi and SCGI: variables, the body, and the end of the connection after the answer."""
        arrived = self._buffer
        read, opening = (uwsgi.variables, AS_HTTP) if self._protocol is UWSGI else (scgi.variables, AS_CGI)
        known = repeated.of_uwsgi(arrived, self._origin) if self._protocol is UWSGI else None
        if known is not None:
            (line, environ), data = known, b""
            length: int | None = 0
        else:
            found = read(arrived, self._service.max_head)
            if found is None:
                return None
            variables, size = found
            line, data, length = b"", arrived[size:], length_of(variables)
            environ = environs.of_variables(variables, self._origin)
            if length:
                self._check(length)
        if (self._service.bulkhead.slow or self.held) and self._waits_for_another(environ):
            return None
        self._buffer = b""
        body = LengthBody(length, data, self._receive) if length else NOTHING
        response = Response(self, environ["REQUEST_METHOD"], None, _never, opening)
        self._serve(environ, body, response, line)
        return self._end(response, unread=body.unread != 0)

    def _fastcgi(self) -> bool | None:
        records = self._records
        if records is None:
            raise AssertionError("not FastCGI")
        records.receive(self._buffer)
        self._buffer = b""
        request, self._asked = self._asked or records.request(), None
        self._reply()
        if request is None:
            return self._linger() if records.closing else records.idle or None
        environ = environs.of_variables(request.variables, self._origin)
        if request.length:
            self._check(request.length)
        if (self._service.bulkhead.slow or self.held) and self._waits_for_another(environ):
            self._asked = request
            return None
        body = NOTHING if records.done else PiecedBody(records, self._receive_records, self._service.max_body)
        response = Response(Stdout(self, request.id), environ["REQUEST_METHOD"], None, _never, AS_CGI)
        self._serve(environ, body, response)
        if not response.whole:
            with contextlib.suppress(OSError):  # nobody waits for a peer that does not take it
                self.sock.send(fastcgi.BROKEN, FLAGS)
            return False
        arrived = records.arrived()
        self._reply()
        end = records.end()
        stays = not records.closing and not self._service.draining and (self._kept or self._can_stay())
        self.send(end)
        if not stays:
            return self._end(response, unread=request.keep or not arrived)
        self._buffer = records.leftover()
        return True

    _STEPS: ClassVar = {HTTP: _http, UWSGI: _packet, FASTCGI: _fastcgi, SCGI: _packet}

    def _waits_for_another(self, environ: Environ) -> bool:
        """Whether the request, as some are slow, had better wait for another thread. Not twice."""
        before, self.held = self.held, False
        if not before:
            self.held = self._service.bulkhead.holds(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        return self.held

    def _check(self, length: int) -> None:
        """Refuse a body that is too large, before anything is done for it."""
        most = self._service.max_body
        if most and length > most:
            raise ProtocolError(413, f"a body of {length} bytes, over {most} (--max-body)")

    def _serve(self, environ: Environ, body: Body, response: Response, line: bytes = b"") -> None:
        """Run the app on one request. Its errors end here, those that would end a process too."""
        service, thread = self._service, self._thread
        progress, access, tally = service.progress, service.access, service.tally
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]  # before the app, which may change them
        environ["wsgi.input"] = self._body = body
        identify(environ)
        asked = () if access is None else access.asked(environ)
        taken = environ.get(self._clock) if self._origin.trusted else None
        if tally is not None:
            tally.begins(thread, line or environs.request_line(environ).encode("latin-1", "replace"))
        self._left = self._patience
        service.current[thread] = environ
        progress[thread] = began = monotonic()
        try:
            result = service.app(environ, response.start)
            try:
                if service.max_body and body.exceeded and response.failing and not response.started:
                    raise BodyTooLarge("the app has failed, for its request's body is too large")
                answer(result, response)
            finally:
                if hasattr(result, "close"):
                    result.close()
        except PeerGone:
            response.whole = False
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt too are one failed request
            self._failed(environ, body, response, error)
        if self._pieces is not None:
            self._send_gathered(response)
        progress[thread] = 0.0
        service.current[thread] = None
        self.since = ended = monotonic()
        took = ended - began
        service.bulkhead.ended(method, path, took, ended)
        if tally is not None:
            tally.ends(thread, response.status >= FAILED, response.sent, ended, took, taken)
        if access is not None:
            access.write(asked, response.status, response.sent, took)
        if response.fault:
            log.line(f"{environs.request_line(environ)}: {response.fault} ({identity(environ)})")

    def _send_gathered(self, response: Response) -> None:
        """Send what has been kept, whether or not the answer is whole."""
        try:
            self.send(b"")
        except PeerGone:
            response.whole = False

    def _failed(self, environ: Environ, body: Body, response: Response, error: BaseException) -> None:
        """Tell the log, and the client if it is not too late."""
        if isinstance(error, MemoryError):
            self._service.exhausted = True  # first: what follows needs memory
        line = environs.request_line(environ)
        cut = isinstance(error, BodyCut)
        if cut:
            log.line(f"{line}: {error} ({identity(environ)})")
        else:
            how = "raised after its answer began" if response.started else "raised"
            log.failure(f"{line}: {how} ({identity(environ)})", error)
        if response.whole:  # raised by close()
            return
        if response.started:
            response.whole = False
            return
        with contextlib.suppress(PeerGone):
            self._broken = cut
            status = 413 if body.exceeded else 400 if cut else 500
            response.fail(f"{status} {PHRASES[status]}", PHRASES[status])

    def _end(self, response: Response, *, unread: bool) -> bool:
        """Before closing: let the peer see the end, and do not reset it while it still writes.

        `unread`: more of this request may come, or the next one, as the peer wanted to keep the connection.
        """
        if response.whole and unread:
            return self._linger()
        if response.whole and not response.framed:
            # A child process that the app has forked may hold the connection too: closing would then say nothing.
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
        return False

    def _refuse(self, error: ProtocolError, transport: Transport | None = None) -> None:
        """Answer a request that cannot be served."""
        log.line(f"refused a request with {error.status}: {error.reason}")
        if self._service.access is not None:
            self._service.access.refused(self._peer[0] if self._peer is not None else None, error.status)
        records = self._records
        if records is not None:
            if not records.active:  # nobody has asked for an answer
                return
            transport = Stdout(self, records.active)
        minor = 1 if self._protocol is HTTP else None
        opening = AS_HTTP if self._protocol in {HTTP, UWSGI} else AS_CGI
        response = Response(transport or self, "GET", minor, _never, opening)
        response.fail(f"{error.status} {PHRASES[error.status]}", error.reason)
        if records is not None:
            self.send(records.end())

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
        self.deadline = monotonic() + LINGER
        return True

    def _continue(self, size: int) -> bytes:
        """Receive for a client that waits to be told so (RFC 9110 10.1.1), once the app asks."""
        if self._expected:
            self._expected = False
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return self._receive(size)

    def _reply(self) -> None:
        """Send what the FastCGI specification wants said beside the answer."""
        records = self._records
        if records is not None and records.replies:
            replies, records.replies = records.replies, b""
            self.send(replies)

    def _receive_records(self, size: int) -> bytes:
        """Receive more of a body in records. The peer may want its replies before."""
        self._reply()
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

    def pieces(self, frame: Callable[[bytes], bytes]) -> Pieces:
        """Where to add what is to be sent soon."""
        pieces = self._pieces
        if pieces is None:
            pieces = self._pieces = Pieces(self._service.gathering, self.send, self._send_some)
        pieces.frame = frame
        return pieces

    def _send_some(self, data: bytes) -> int:
        """Send what there is room for; how many bytes that was."""
        sent = self.sock.send(data, FLAGS)
        self._moved(0)  # before its end, which `take` puts after this
        return sent

    def send(self, data: bytes) -> None:
        """Send all of it."""
        if self._pieces is not None:
            data = self._pieces.take() + data
            if not data:
                return
        try:
            sent = self.sock.send(data, FLAGS)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise PeerGone(str(error)) from error
        if sent < len(data):
            self._send_rest(memoryview(data)[sent:])
        progress = self._service.progress
        if progress[self._thread]:
            progress[self._thread] = monotonic()

    def send_all(self, parts: Sequence[bytes]) -> None:
        """Send all of these, which are much."""
        if self._pieces is not None:
            self.send(b"")
        if self._peer is None:
            self._send_waiting(parts)
        else:
            for each in parts:
                self.send(each)

    def _send_rest(self, data: memoryview) -> None:
        if self._peer is None:
            self._send_waiting((data,))
            return
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

    def _send_waiting(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send to the web server, with the kernel to wait for room: a tenth less CPU for a megabyte.

        And with more room than usual, which takes a quarter of the rest: nginx finds more each time it looks.
        """
        if not self._is_patient:
            self._is_patient = True
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, TIMEVAL.pack(int(STALL), int(STALL % 1 * 1e6)))
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        progress, thread = self._service.progress, self._thread
        counted = progress[thread] > 0
        progress[thread] = 0.0
        left = [memoryview(each) for each in parts]
        try:
            while left:
                sent = self.sock.sendmsg(left, (), socket.MSG_NOSIGNAL)
                while left and sent >= len(left[0]):
                    sent -= len(left.pop(0))
                if left:
                    left[0] = left[0][sent:]
        except BlockingIOError:
            raise PeerGone("the peer took nothing") from None
        except OSError as error:
            raise PeerGone(str(error)) from error
        finally:
            if counted:
                progress[thread] = monotonic()

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Send part of a file; how many bytes of it there were."""
        if self._pieces is not None:
            self.send(b"")
        self.sock.setblocking(False)
        try:
            return self._send_file(fd, offset, count)
        finally:
            self.sock.setblocking(True)

    def _send_file(self, fd: int, offset: int, count: int) -> int:
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
        before = monotonic()
        ready = bool(poll.poll(max(0.0, min(STALL, self._left)) * 1000))
        now = monotonic()
        self._left -= now - before
        if counted:
            progress[thread] = now
        return ready

    def _moved(self, count: int) -> None:
        """Bytes have passed: the request gets on, and the peer has earned time."""
        self._left = min(self._patience, self._left + count / SLOWEST)
        if self._service.progress[self._thread]:
            self._service.progress[self._thread] = monotonic()


def _never() -> bool:
    return False
