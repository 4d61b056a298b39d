"""An app that does with the body of a request, and with its answer, all that PEP 3333 allows."""


def app(environ, start_response):
    stream = environ["wsgi.input"]
    data = stream.readline(100) + stream.read(10) + b"".join(stream) + b"".join(stream.readlines(10))
    if environ["REQUEST_METHOD"] == "HEAD":
        data = b""
    environ["wsgi.errors"].flush()
    write = start_response("200 OK", [("Content-Type", "text/plain"), ("Set-Cookie", "a=b")])
    if environ["QUERY_STRING"] == "write":
        write(b"written ")
    return [b"read ", data]
