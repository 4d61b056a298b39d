"""Finds a project's WSGI app, in the project's own interpreter. Imports the project's code; never part of our process.

Run by path as `python bootstrap.py REQUEST` under Python 3.10 or newer, with the standard library alone. Which of its
objects is meant, Flask's own code says where the project has imported it; any other WSGI callable is as welcome, and
does not wait for Flask. The request is JSON: `answer`, a file descriptor for one line of JSON, since apps print on
stdout as they please; `target`, "" for what Flask would find; `within`, seconds. Too late, the line is a dump of what
every thread is doing, and the process is gone.
"""

from __future__ import annotations

import ast
import contextlib
import faulthandler
import functools
import importlib
import importlib.machinery
import importlib.util
import inspect
import json
import os
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

CALLABLES = ("app", "application")
FACTORIES = ("create_app", "make_app")
FILES = ("wsgi", "app")  # Flask's order
SPEAKING = (
    "Flask(",
    "create_app",
    "make_app",
    "application =",
    "get_wsgi_application",
)  # of a file that may hold an app


class Problem(Exception):  # noqa: N818 - a finding to report, whose words are chosen by whoever asked
    """Why there is no answer: a kind, and the facts about it."""

    def __init__(self, kind: str, **facts: Any) -> None:
        super().__init__(kind)
        self.report = {"problem": kind, **facts}


def main() -> NoReturn:
    """Answers the request in argv, and ends without waiting for threads that the app may have started."""
    request = json.loads(sys.argv.pop(1))
    answer = request["answer"]
    os.set_inheritable(answer, False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whoever started us let them wait until it knew us
    faulthandler.dump_traceback_later(request["within"], exit=True, file=answer)
    try:
        reply = discovered(request["target"])
    except Problem as problem:
        reply = problem.report
    except BaseException as error:  # noqa: BLE001 - also SystemExit: the app's, to be told
        reply = raised(error)
    faulthandler.cancel_dump_traceback_later()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the app may have closed or replaced it
            stream.flush()
    os.write(answer, json.dumps(reply).encode() + b"\n")
    os._exit(0)


def discovered(target: str) -> dict[str, Any]:
    """What the target names, or what Flask would find in this directory without one."""
    prepare_flask()
    if target:
        path, _, expression = target.partition(":")
        return in_module(path.strip(), expression.strip())
    looked = []
    for stem in FILES:
        name = next((each for each in (f"{stem}.py", f"{stem}/__init__.py") if Path(each).is_file()), "")
        if not name:
            looked.append(f"{stem}.py: there is none")
            continue
        try:
            return {**in_module(name), "found_by": name}
        except Problem as problem:
            if problem.report["problem"] != "no-app":
                raise
            looked.append(f"{name}: {', '.join(CALLABLES + FACTORIES)} and Flask instances: none in it")
    raise Problem("nothing", looked=looked, maybe=[each for each in python_files() if speaks(each)])


def in_module(path: str, expression: str = "") -> dict[str, Any]:
    """The app in a module or file, by its name there or else the best one."""
    search_path, name = located(path)
    module = imported(path, name, search_path)
    found_as, app = named(module, expression) if expression else best(module)
    url, folder = static(app)
    return {
        "search_path": search_path,
        "module": name,
        "expression": found_as,
        "framework": framework(app),
        "static_url": url,
        "static_folder": folder,
        "max_content_length": max_content_length(app),
    }


def prepare_flask() -> None:
    """Flask comes before anything of a project that speaks of it, as under `flask run`: its modules are no others'.

    Where it is broken, the app's own import of it will say so.
    """
    sys.meta_path.insert(0, Muted())
    if any(speaks(each, ("flask",)) for each in python_files()):
        with contextlib.suppress(Exception):
            importlib.import_module("flask")


class Muted:
    """Sees to it that Flask, once the project imports it, does not run the app. As a finder, it needs no base class."""

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        """Flask as it would be found without us, with another `Flask.run`."""
        if name != "flask":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_muted(module: types.ModuleType) -> None:
                load(module)
                if hasattr(module, "Flask"):
                    module.Flask.run = run

            spec.loader.exec_module = load_muted  # type: ignore[method-assign]
        return spec


def run(*_: Any, **__: Any) -> NoReturn:
    """Stands for Flask.run while the app is imported."""
    raise RuntimeError(
        'app.run() when the module is imported blocks for ever: put it under `if __name__ == "__main__":`'
    )


# Where it is.


def located(path: str) -> tuple[str, str]:
    """The directory to import from, now first on sys.path, and the module's dotted name."""
    if not path:
        raise Problem("bad-target", why="it names no module")
    file = Path(path.removesuffix(".py")).resolve()
    file = file.parent if file.name == "__init__" else file
    parts, directory = [file.name], file.parent
    while (directory / "__init__.py").is_file():
        parts.insert(0, directory.name)
        directory = directory.parent
    sys.path.insert(0, str(directory))
    return str(directory), ".".join(parts)


def imported(path: str, name: str, search_path: str) -> types.ModuleType:
    """The module. One that is not there is a Problem; an error inside it is passed on."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(missing + "."):
            raise
        parent, _, last = missing.rpartition(".")
        package = sys.modules.get(parent)
        paths = list(getattr(package, "__path__", ())) if parent else [search_path]
        near = [f"{parent}.{each}".strip(".") for each in alike(last, modules(paths))]
        raise Problem("no-module", path=path, missing=missing, search_path=search_path, near=near) from None


def modules(paths: list[str]) -> list[str]:
    """The names of those in these directories."""
    import pkgutil  # noqa: PLC0415 - only for who has mistyped a name

    return [each.name for each in pkgutil.iter_modules(paths)]


def alike(name: str, names: list[str]) -> list[str]:
    """Those that may have been meant."""
    import difflib  # noqa: PLC0415 - the same

    return difflib.get_close_matches(name, names)


def python_files() -> Iterator[str]:
    """Python files of this directory and of the directories in it."""
    for pattern in ("*.py", "*/*.py"):
        yield from sorted(str(each) for each in Path().glob(pattern) if "site-packages" not in each.parts)[:200]


def speaks(file: str, words: tuple[str, ...] = SPEAKING) -> bool:
    """Whether one of the words is in the file: as a rule, those of one that looks as if it held an app."""
    with contextlib.suppress(OSError):
        text = Path(file).read_text("utf-8", "replace")
        return any(each in text for each in words)
    return False


# What it is.


def best(module: types.ModuleType) -> tuple[str, Any]:
    """The app that Flask would choose. A WSGI callable named `app` or `application` wraps it, or stands alone."""
    instances = {name: each for name, each in vars(module).items() if is_flask(each)}
    chosen = flask_choice(module)
    name = next((each for each in (*CALLABLES, *instances) if chosen is not None and instances.get(each) is chosen), "")
    if name in CALLABLES:
        return name, chosen
    for each in CALLABLES:
        if is_wsgi(getattr(module, each, None)):
            return each, getattr(module, each)
    if name:
        return name, chosen
    if instances:
        raise Problem("several", module=module.__name__, names=list(instances))
    for each in FACTORIES:
        if inspect.isfunction(getattr(module, each, None)):
            return named(module, each)
    asgi = next((each for each in CALLABLES if is_asgi(getattr(module, each, None))), "")
    if asgi:
        raise Problem("asgi", name=asgi, module=module.__name__)
    for each in CALLABLES:
        refuse_signature(getattr(module, each, None), each, module)
    raise Problem("no-app", module=module.__name__, names=public(module))


def flask_choice(module: types.ModuleType) -> Any:
    """What Flask's own discovery finds among the module's objects, before it would call a factory."""
    flask_cli = sys.modules.get("flask.cli")
    if flask_cli is None:
        return None
    shown = types.ModuleType(module.__name__)
    vars(shown).update({name: each for name, each in vars(module).items() if name not in FACTORIES})
    try:
        return flask_cli.find_best_app(shown)
    except flask_cli.NoAppException:
        return None


def named(module: types.ModuleType, text: str) -> tuple[str, Any]:
    """The app that an expression means: a dotted name, or a factory and its arguments, all of them literals."""
    expression = parsed(text)
    call = expression if isinstance(expression, ast.Call) else None
    path = dotted(call.func if call else expression)
    if not path:
        raise Problem("bad-target", why=f"{text!r} is not a name or a call such as create_app('prod')")
    found = attribute(module, path)
    shown = ast.unparse(expression)
    if not call and is_asgi(found):
        raise Problem("asgi", name=shown, module=module.__name__)
    if call:
        positional, keywords = literals(call, text)
        found = made(found, shown, module, positional, keywords)
    elif is_factory(found, path[-1]):
        if is_meant_for_wsgi(found, path[-1]):
            refuse_signature(found, shown, module)
        shown += "()"
        found = made(found, shown, module, [], {})
    if is_asgi(found):
        raise Problem("asgi", name=shown, module=module.__name__)
    if not is_wsgi(found):
        refuse_signature(found, shown, module)
        raise Problem("not-wsgi", name=shown, module=module.__name__, type=type(found).__name__)
    return shown, found


def parsed(text: str) -> ast.expr:
    """The text as one expression."""
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        raise Problem("bad-target", why=f"{text!r} is not a Python expression") from None


def dotted(expression: ast.expr) -> list[str]:
    """The names of `a.b.c`; none if it is anything else."""
    if isinstance(expression, ast.Name):
        return [expression.id]
    if isinstance(expression, ast.Attribute):
        before = dotted(expression.value)
        return [*before, expression.attr] if before else []
    return []


def attribute(module: types.ModuleType, path: list[str]) -> Any:
    """What the names lead to, from the module on."""
    found: Any = module
    for index, name in enumerate(path):
        try:
            found = getattr(found, name)
        except AttributeError:
            owner, names = ".".join((module.__name__, *path[:index])), public(found)
            near = alike(name, names)
            raise Problem("no-attribute", owner=owner, name=name, near=near, names=names) from None
    return found


def literals(call: ast.Call, text: str) -> tuple[list[Any], dict[str, Any]]:
    """The arguments, which may be nothing that does anything: they are written into a file that runs."""
    try:
        positional = [ast.literal_eval(each) for each in call.args]
        keywords = {each.arg: ast.literal_eval(each.value) for each in call.keywords if each.arg is not None}
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise Problem(
            "bad-target", why=f"the arguments in {text!r} are not literals such as 'prod', 3 or True"
        ) from None
    if len(keywords) != len(call.keywords):
        raise Problem("bad-target", why=f"{text!r} has ** arguments: write them out")
    return positional, keywords


def made(factory: Any, shown: str, module: types.ModuleType, positional: list[Any], keywords: dict[str, Any]) -> Any:
    """What the factory returns. Arguments that it does not take are found out before it is called."""
    signature = signature_of(factory)
    if signature is not None:
        try:
            signature.bind(*positional, **keywords)
        except TypeError as error:
            name = shown.partition("(")[0]
            facts = {"module": module.__name__, "name": name, "signature": f"{name}{signature}", "why": str(error)}
            raise Problem("arguments", **facts) from None
    return factory(*positional, **keywords)


def is_flask(thing: Any) -> bool:
    """Whether it is a Flask app."""
    kind = getattr(sys.modules.get("flask"), "Flask", None)
    return isinstance(kind, type) and isinstance(thing, kind)


def is_factory(thing: Any, name: str) -> bool:
    """Whether to call what was only named: a function whose shape is not `(environ, start_response)`."""
    if not (inspect.isroutine(thing) or isinstance(thing, functools.partial)):
        return False
    signature = signature_of(thing)
    if signature is None or required(signature) == 2:
        return False
    return not (name in CALLABLES and is_wsgi(thing))


def is_wsgi(thing: Any) -> bool:
    """Whether it can be called with environ and start_response. No environ is at hand to try it with."""
    if is_flask(thing):
        return True
    if not callable(thing):
        return False
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):  # written in C, and does not say
        return True
    except Exception:  # noqa: BLE001 - a proxy without its object, such as flask.current_app
        return False
    needed = required(signature)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        anything = any(each.kind is each.VAR_POSITIONAL for each in signature.parameters.values())
        return needed == 2 or (needed == 0 and anything and not inspect.isclass(thing))
    return needed <= 2 and binds(signature, 2)


def is_meant_for_wsgi(function: Any, name: str) -> bool:
    """Whether a function that is not called with environ and start_response was meant to be."""
    signature = signature_of(function)
    needed = required(signature) if signature is not None else 0
    first = next(iter(signature.parameters), "") if signature is not None else ""
    return needed > 0 and (name in CALLABLES or first in ("environ", "env"))


def refuse_signature(thing: Any, name: str, module: types.ModuleType) -> None:
    """A Problem for a callable that cannot be called with environ and start_response; nothing for anything else."""
    signature = signature_of(thing) if callable(thing) and not inspect.isclass(thing) else None
    if signature is not None and not is_wsgi(thing):
        raise Problem("signature", module=module.__name__, name=name, signature=f"{name}{signature}")


def is_asgi(thing: Any) -> bool:
    """Whether it speaks ASGI, as Starlette, FastAPI and Quart do: `(scope, receive, send)`."""
    signature = signature_of(thing) if callable(thing) and not inspect.isclass(thing) else None
    return signature is not None and list(signature.parameters)[:3] == ["scope", "receive", "send"]


def signature_of(thing: Callable[..., Any]) -> inspect.Signature | None:
    """How it is called, if it says."""
    try:
        return inspect.signature(thing)
    except Exception:  # noqa: BLE001 - it does not say, or is a proxy
        return None


def required(signature: inspect.Signature) -> int:
    """How many positional arguments it cannot do without."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(each.kind in kinds and each.default is each.empty for each in signature.parameters.values())


def binds(signature: inspect.Signature, count: int) -> bool:
    """Whether it takes so many positional arguments."""
    try:
        signature.bind(*(None,) * count)
    except TypeError:
        return False
    return True


def framework(app: Any) -> str:
    """What the app is made with, and its version."""
    app = getattr(app, "__self__", app)  # `app.wsgi_app` is still that app
    if is_flask(app):
        version = importlib.import_module("importlib.metadata").version("flask")
        return f"Flask {version}"
    if type(app).__module__.startswith("django."):
        return f"Django {importlib.import_module('django').get_version()}"
    return "WSGI callable"


def static(app: Any) -> tuple[str, str]:
    """URL path and folder of a Flask app's static files; both "" if it has none that exists, or serves them at /."""
    app = getattr(app, "__self__", app)
    if not is_flask(app) or not app.has_static_folder:
        return "", ""
    folder, url = os.path.abspath(app.static_folder), str(app.static_url_path or "")  # noqa: PTH100 - links are kept
    return (url, folder) if url.strip("/") and Path(folder).is_dir() else ("", "")


def max_content_length(app: Any) -> int | None:
    """The largest body that a Flask app takes, in bytes; None if it takes any, or is not one."""
    app = getattr(app, "__self__", app)
    found = app.config.get("MAX_CONTENT_LENGTH") if is_flask(app) else None
    return found if type(found) is int else None


def public(thing: Any) -> list[str]:
    """Its names that are meant for others."""
    return [each for each in dir(thing) if not each.startswith("_")]


# What the app raised.


def raised(error: BaseException) -> dict[str, Any]:
    """An error of the app's own, with a traceback of its own frames."""
    syntax = error if isinstance(error, SyntaxError) else None
    return {
        "problem": "raised",
        "type": type(error).__name__,
        "message": syntax.msg if syntax else str(error),
        "traceback": own_traceback(error),
        "missing": (error.name or "") if isinstance(error, ModuleNotFoundError) else "",
        "file": (syntax.filename or "") if syntax else "",
        "line": (syntax.lineno or 0) if syntax else 0,
        "pip": importlib.util.find_spec("pip") is not None,
    }


def own_traceback(error: BaseException) -> str:
    """The traceback, and those of its causes, without frames that are not the app's doing."""
    trace = traceback.TracebackException.from_exception(error)
    chain: list[traceback.TracebackException | None] = [trace]
    while chain:
        each = chain.pop()
        if each is not None:
            each.stack[:] = [frame for frame in each.stack if not is_machinery(frame.filename)]
            chain += [each.__cause__, each.__context__]
    lines = list(trace.format())
    if not trace.stack and trace.__cause__ is None:
        lines = list(trace.format_exception_only())
    return "".join(lines).rstrip()


def is_machinery(file: str) -> bool:
    """Python's import system, Flask's discovery, and this file."""
    theirs = (importlib.__file__, getattr(sys.modules.get("flask.cli"), "__file__", ""), __file__)
    return file.startswith("<frozen importlib") or file in theirs
