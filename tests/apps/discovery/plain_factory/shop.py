"""A factory of a plain WSGI callable, and what is none."""


def create_app(stage="dev", *, debug=False):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [f"{stage} {debug} {environ['PATH_INFO']}".encode()]

    return app


def make_shop(stage):
    return create_app(stage)


def not_an_app():
    return "hello"


class Holder:
    inner = create_app()


holder = Holder()
