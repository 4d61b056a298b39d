"""Reads whatever it is sent, and says how much it was: for peers that mean harm."""


def app(environ, start_response):
    size = 0
    while data := environ["wsgi.input"].read(65536):
        size += len(data)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"read {size}".encode()]
