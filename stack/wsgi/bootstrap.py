"""Starts the server by path, in any interpreter: `/their/python .../bootstrap.py MODULE:CALLABLE --bind ADDRESS`.

The interpreter belongs to a project. It shall find its own modules and the standard library, and nothing of ours:
neither our dependencies beside the package, nor `http.py` in this folder instead of the standard library's. And a
`stack.py` of theirs must not get in the way of ours. So the folder leaves `sys.path` first of all, and the package is
loaded under a name that nobody else uses, `_stackctl`, without being looked up anywhere. Only then does the current
directory take the folder's place: a `socket.py` of theirs is not the one that the server needs.
"""

# ruff: noqa: PTH109, PTH118, PTH120, PTH123, PLC0415
# Nothing but what the interpreter has loaded already, until the path is clean.
import os
import sys

_HERE = os.path.dirname(os.path.realpath(__file__))


def _clean_path() -> None:
    """Remove this script's folder, which Python has put there (it does not under -P or -I)."""
    if sys.path and sys.path[0] and os.path.realpath(sys.path[0]) == _HERE:
        del sys.path[0]


def _version(folder: str) -> str:
    """The package's version, read from its source: running that would be running ours in their interpreter."""
    with open(os.path.join(folder, "__init__.py"), encoding="utf-8") as source:
        for line in source:
            if line.startswith("__version__"):
                return line.split('"')[1]
    return "unknown"


def _load() -> None:
    """Create the package `_stackctl` over the `stack` folder."""
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    folder = os.path.dirname(_HERE)
    package = ModuleType("_stackctl", "The bundled server's parent package, loaded by path.")
    package.__path__ = [folder]
    package.__spec__ = ModuleSpec("_stackctl", None, is_package=True)
    package.__dict__["__version__"] = _version(folder)
    sys.modules["_stackctl"] = package


if __name__ == "__main__":
    _clean_path()
    _load()
    from importlib import import_module

    main = import_module("_stackctl.wsgi.server").main
    sys.path.insert(0, os.getcwd())
    sys.exit(main(sys.argv[1:]))
