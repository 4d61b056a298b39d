"""Starts `discover` by path, in any interpreter.

What Python runs by path it compiles every time, what it imports only once. So this folder leaves `sys.path` first of
all, and the module is loaded under a name that nobody else uses, without being looked up anywhere.
"""

# ruff: noqa: PTH118, PTH120
# Nothing but what the interpreter has loaded already, until the path is clean.
import os
import sys

_HERE = os.path.dirname(os.path.realpath(__file__))

if __name__ == "__main__":
    if sys.path and sys.path[0] and os.path.realpath(sys.path[0]) == _HERE:  # not there in Python's safe-path mode
        del sys.path[0]
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("_stackctl_discover", os.path.join(_HERE, "discover.py"))
    module = module_from_spec(spec)  # type: ignore[arg-type] # there is a file
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    module.main()
