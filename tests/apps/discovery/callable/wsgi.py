"""PEP 3333 by hand, in the shapes that it may have."""

from collections.abc import Callable, Iterable
from typing import Any


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]


def plain(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    return application(environ, start_response)


def factory() -> Callable[..., Any]:
    return plain


class Instance:
    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return application(environ, start_response)


class PerRequest:
    def __init__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> None:
        self.answer = application(environ, start_response)

    def __iter__(self) -> Any:
        return iter(self.answer)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Speaks another language."""


instance = Instance()
number = 3
