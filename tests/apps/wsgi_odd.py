"""A WSGI app of many routes, each of which behaves in one odd way. What it does is steered by the test, not by time."""
# ruff: noqa: ARG001, TRY301

import io
import os
import sys
import tempfile
import time
from pathlib import Path

closed = []


class Closing:
    """An iterable that counts its close() calls in a file."""

    def __init__(self, chunks, record):
        self.chunks = iter(chunks)
        self.record = record

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.chunks)

    def close(self):
        with Path(self.record).open("a") as record:
            record.write("closed\n")


def wait_for(path):
    """Wait until the test makes this file."""
    until = time.monotonic() + 30
    while not Path(path).exists():
        if time.monotonic() > until:
            raise TimeoutError(path)
        time.sleep(0.005)


def app(environ, start_response):
    route, _, argument = environ["PATH_INFO"].lstrip("/").partition("/")
    return globals()[f"route_{route or 'index'}"](environ, start_response, environ["QUERY_STRING"] or argument)


def plain(start_response, *chunks, status="200 OK", headers=()):
    start_response(status, [("Content-Type", "text/plain"), *headers])
    return list(chunks)


def route_index(environ, start_response, argument):
    return plain(start_response, b"hello\n")


def route_pid(environ, start_response, argument):
    return plain(start_response, str(os.getpid()).encode())


def route_environ(environ, start_response, argument):
    shown = {k: v for k, v in environ.items() if isinstance(v, (str, bool, tuple))}
    return plain(start_response, repr((type(environ).__name__, shown)).encode())


def route_name(environ, start_response, argument):
    return plain(start_response, f"{__name__} {sys.executable} {sorted(sys.modules)}".encode())


def route_echo(environ, start_response, argument):
    return plain(start_response, environ["wsgi.input"].read())


def route_lines(environ, start_response, argument):
    stream = environ["wsgi.input"]
    return plain(start_response, repr([stream.readline(3), stream.readline(), *stream]).encode())


def route_size(environ, start_response, argument):
    size = 0
    while data := environ["wsgi.input"].read(65536):
        size += len(data)
    return plain(start_response, f"{size} {os.getpid()}".encode())


def route_unread(environ, start_response, argument):
    return plain(start_response, b"not read", status="403 Forbidden")


def route_wait(environ, start_response, argument):
    Path(argument + ".begun").touch()
    wait_for(argument)
    return plain(start_response, b"waited")


def route_stream(environ, start_response, argument):
    start_response("200 OK", [("Content-Type", "text/plain")])

    def chunks():
        yield b""
        yield b"first\n"
        wait_for(argument)
        yield b"last\n"

    return chunks()


def route_numbers(environ, start_response, argument):
    """That many lines, and after each hundred one that waits for the file which the rest of the argument names."""
    count, _, gate = argument.partition(",")
    start_response("200 OK", [("Content-Type", "text/plain")])

    def chunks():
        for number in range(1, int(count) + 1):
            yield b"%d\n" % number
            if gate and number % 100 == 0:
                wait_for(f"{gate}{number}")

    return chunks()


def route_burst(environ, start_response, argument):
    """Lines as fast as can be, and an error."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield from (b"%d\n" % number for number in range(100))
    raise RuntimeError("raised after a burst")


def route_write(environ, start_response, argument):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"written ")
    write(b"")
    return [b"and returned"]


def route_exit(environ, start_response, argument):
    raise {"system": SystemExit, "keyboard": KeyboardInterrupt, "memory": MemoryError}[argument](3)


def route_recursion(environ, start_response, argument):
    return route_recursion(environ, start_response, argument)


def route_raise(environ, start_response, argument):
    raise RuntimeError("raised before output")


def route_broken(environ, start_response, argument):
    headers = [("Content-Length", "1000")] if argument == "length" else []
    start_response("200 OK", [("Content-Type", "text/plain"), *headers])

    def chunks():
        yield b"some output"
        raise RuntimeError("raised after output")

    return chunks()


def route_twice(environ, start_response, argument):
    start_response("200 OK", [])
    start_response("404 Not Found", [])
    return [b"never"]


def route_replaced(environ, start_response, argument):
    start_response("200 OK", [("X-First", "1")])
    try:
        raise RuntimeError("inside")
    except RuntimeError:
        start_response("503 Service Unavailable", [("X-Second", "2")], sys.exc_info())
    return [b"replaced"]


def route_late(environ, start_response, argument):
    start_response("200 OK", [])
    yield b"some output"
    try:
        raise RuntimeError("late")
    except RuntimeError:
        start_response("500 Too Late", [], sys.exc_info())
    yield b"never"


def route_never(environ, start_response, argument):
    return [b"no start_response"]


def route_text(environ, start_response, argument):
    start_response("200 OK", [])
    return ["text"]


def route_header(environ, start_response, argument):
    bad = {
        "newline": ("X-A", "1\r\nSet-Cookie: evil=1"),
        "type": ("X-A", 1),
        "name": ("X A", "1"),
        "hop": ("Transfer-Encoding", "chunked"),
        "connection": ("Connection", "keep-alive"),
        "wide": ("X-A", "\u20ac"),
    }[argument]
    return plain(start_response, b"sent", headers=[bad])


def route_status(environ, start_response, argument):
    start_response(argument.replace("+", " ").replace("%0A", "\n"), [])
    return [b"body"]


def route_short(environ, start_response, argument):
    return plain(start_response, b"1234567890", headers=[("Content-Length", "4")])


def route_long(environ, start_response, argument):
    return plain(start_response, b"1234", headers=[("Content-Length", "10")])


def route_redirect(environ, start_response, argument):
    return plain(start_response, b"see there", status="303 See Other", headers=[("Location", argument)])


def route_cookies(environ, start_response, argument):
    return plain(start_response, b"", headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Server", "own")])


def route_empty(environ, start_response, argument):
    write = start_response(f"{argument} Empty", [("Content-Length", "4")])
    write(b"body")
    return [b"more"]


def route_file(environ, start_response, argument):
    """Lines of digits in a real file, from its 5th byte on; `argument` is a Content-Length."""
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(b"0123456789" * 100_000)
    file.seek(5)
    headers = [("Content-Length", argument)] if argument else []
    start_response("200 OK", [("Content-Type", "text/plain"), *headers])
    return environ["wsgi.file_wrapper"](file)


def route_memory(environ, start_response, argument):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"0123456789" * 20_000))


class NotesItsEnd:
    """A file that writes down its close()."""

    record = ""

    def close(self):
        if not self.closed:
            with Path(self.record).open("a") as record:
                record.write("closed\n")
        super().close()


class RealFile(NotesItsEnd, io.FileIO):
    pass


class FileLike(NotesItsEnd, io.BytesIO):
    pass


def route_closingfile(environ, start_response, argument):
    kind, _, record = argument.partition(",")
    start_response("200 OK", [("Content-Type", "text/plain")])
    Path(f"{record}.data").write_bytes(b"of a file")
    file = RealFile(f"{record}.data") if kind == "real" else FileLike(b"of a file")
    file.record = record
    return environ["wsgi.file_wrapper"](file)


def route_closing(environ, start_response, argument):
    kind, _, record = argument.partition(",")
    start_response("200 OK", [("Content-Type", "text/plain")])

    def chunks():
        yield b"x"
        if kind == "raise":
            raise RuntimeError("in the iterable")
        while kind == "endless":
            yield b"y" * 65536

    return Closing(chunks(), record)


def route_loop(environ, start_response, argument):
    while True:
        pass


def route_sleep(environ, start_response, argument):
    import ctypes

    ctypes.PyDLL(None).sleep(600)  # holds the interpreter's lock
