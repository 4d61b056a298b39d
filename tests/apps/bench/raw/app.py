"""The least that a WSGI app can be."""

SAYS = b"hello\n"
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(SAYS)))]


def app(environ, start_response):  # noqa: ARG001 - the shape of an app
    start_response("200 OK", HEADERS)
    return [SAYS]
