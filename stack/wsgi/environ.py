"""The WSGI environ of a request (PEP 3333), from an HTTP head or from CGI variables.

Over HTTP on a unix socket the peer is this machine's web server, because the socket's mode admits nobody else, and is
believed: X-Forwarded-For (the rightmost entry, the one that it has added) becomes REMOTE_ADDR, X-Forwarded-Proto
becomes `wsgi.url_scheme` and HTTPS. X-Forwarded-Host and -Port stay headers. On TCP nothing is believed, unless the
peer has been named (`peers`). Who talks to a unix socket without saying for whom is a program on this machine: its
address is 127.0.0.1.

Over the other protocols the web server has the last word on the path, for it knows its rewrites and prefixes: PATH_INFO
is used as sent. nginx's `$document_uri` has repeated slashes merged and dots resolved; who wants the path as the client
wrote it sends no PATH_INFO, and it is derived from REQUEST_URI. A PATH_INFO that still has the whole path though
SCRIPT_NAME is sent has the prefix taken off. Apache's mod_proxy_fcgi and mod_proxy_scgi send the whole path as
SCRIPT_NAME and no PATH_INFO; by their SCRIPT_FILENAME they are known, and where the app is mounted.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from .. import __version__
from .protocol import ProtocolError
from .response import FileWrapper

if TYPE_CHECKING:
    from .http import Head

Environ = dict[str, Any]

UNTOLD = "127.0.0.1"
APACHE = "proxy:"  # and then the URL that it has made of the request's, as in proxy:fcgi://localhost/path


class Origin:
    """What the environs of one listening address have in common. `trusted`: its peer's X-Forwarded-* are believed."""

    def __init__(
        self,
        *,
        trusted: bool,
        name: str = "localhost",
        port: str = "",
        multithread: bool = True,
        multiprocess: bool = True,
    ) -> None:
        self.trusted = trusted
        self.name = name
        self.port = port
        self.base: Environ = {
            "SCRIPT_NAME": "",
            "REMOTE_ADDR": UNTOLD,
            "SERVER_NAME": name,
            "SERVER_SOFTWARE": f"stackctl/{__version__}",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": multithread,
            "wsgi.multiprocess": multiprocess,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }


def of_http(head: Head, origin: Origin, peer: tuple[str, str] | None) -> Environ:
    """The environ of an HTTP request, but for `wsgi.input`; `peer` is the address and port of a TCP client."""
    method, target, path, query, minor, _, _, _, fields, _ = head
    environ = {
        **origin.base,
        **fields,
        "REQUEST_METHOD": method,
        "REQUEST_URI": target,
        "PATH_INFO": unquote(path, "latin-1") if "%" in path else path,
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/1.1" if minor else "HTTP/1.0",
    }
    if peer is not None:
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = peer
    if origin.trusted:
        if "HTTP_X_FORWARDED_FOR" in fields:
            told = fields["HTTP_X_FORWARDED_FOR"]
            environ["REMOTE_ADDR"] = (told.rpartition(",")[2].strip() if "," in told else told) or UNTOLD
            environ.pop("REMOTE_PORT", None)  # the peer's own
        if "HTTP_X_FORWARDED_PROTO" in fields and fields["HTTP_X_FORWARDED_PROTO"].lower() == "https":
            environ["wsgi.url_scheme"] = "https"
            environ["HTTPS"] = "on"
    if origin.port:
        environ["SERVER_PORT"] = origin.port
    else:
        host, scheme = fields.get("HTTP_HOST") or origin.name, environ["wsgi.url_scheme"]
        environ["SERVER_NAME"], environ["SERVER_PORT"] = _name_and_port(host, scheme)
    return environ


def of_variables(found: dict[str, str], origin: Origin) -> Environ:
    """The environ of a uwsgi, FastCGI or SCGI request, but for `wsgi.input`.

    Raises:
        ProtocolError: 400, there is no REQUEST_METHOD, or neither PATH_INFO nor REQUEST_URI.
    """
    environ = origin.base | found
    uri = found.get("REQUEST_URI")
    if not found.get("REQUEST_METHOD") or (uri is None and "PATH_INFO" not in found):
        raise ProtocolError(400, "a request without REQUEST_METHOD, or with neither REQUEST_URI nor PATH_INFO")
    raw_path, _, query = (uri or "").partition("?")
    whole = unquote(raw_path, "latin-1") if "%" in raw_path else raw_path
    path = found.get("PATH_INFO")
    prefix = found.get("SCRIPT_NAME", "").rstrip("/")
    if path is None and prefix and found.get("SCRIPT_FILENAME", "").startswith(APACHE):
        prefix = _mount(prefix, found["SCRIPT_FILENAME"])
    environ["SCRIPT_NAME"] = prefix
    if path is None or path == whole:
        path = whole
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            path = path[len(prefix) :]
    environ["PATH_INFO"] = path
    environ.setdefault("QUERY_STRING", query)
    environ.setdefault("SERVER_PROTOCOL", "HTTP/1.1")
    if not environ.get("REMOTE_ADDR"):
        environ["REMOTE_ADDR"] = UNTOLD
    if found.get("HTTPS", "").lower() in {"on", "1"} or found.get("REQUEST_SCHEME") == "https":
        environ["wsgi.url_scheme"] = "https"
        environ["HTTPS"] = "on"
    if not environ["SERVER_NAME"] or not environ.get("SERVER_PORT"):
        _name_from_host(environ)
    return environ


def _mount(path: str, filename: str) -> str:
    """Where the app is mounted: `path`, which Apache has been asked for, less what it asks of us; no last slashes."""
    asked = f"/{unquote(filename, 'latin-1').partition('://')[2].partition('/')[2]}".rstrip("/")
    for each in (path, unquote(path, "latin-1")):  # with AllowEncodedSlashes NoDecode it has left them encoded
        if each.endswith(asked):
            return each.removesuffix(asked)
    return ""


def request_line(environ: Environ) -> str:
    """The request as a line of a log names it."""
    return f"{environ.get('REQUEST_METHOD')} {environ.get('REQUEST_URI') or environ.get('PATH_INFO', '')}"


def _name_from_host(environ: Environ) -> None:
    """SERVER_NAME and SERVER_PORT, which PEP 3333 wants never empty, where nobody told them: from Host, by scheme."""
    name, port = _name_and_port(environ.get("HTTP_HOST", ""), environ["wsgi.url_scheme"])
    if name or not environ["SERVER_NAME"]:
        environ["SERVER_NAME"] = name or "localhost"
    if not environ.get("SERVER_PORT"):
        environ["SERVER_PORT"] = port


@lru_cache(256)
def _name_and_port(host: str, scheme: str) -> tuple[str, str]:
    name, colon, port = host.rpartition(":")
    usual = "443" if scheme == "https" else "80"
    return (name, port or usual) if colon and (port.isdigit() or not port) else (host, usual)
