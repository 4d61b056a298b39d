"""`stack.toml` as data: validated, complete, frozen. It never acts."""

from stack.config.plugins import none_of_pydantic

with none_of_pydantic():  # here, before any of its models is made
    from stack.config.document import AUTO, BUNDLED, App, Config, Document, Logs, Programs, Server, Site, Smoke, Stack

from stack.config.layers import FILE, Override, environment_overrides, find_project, parse_set
from stack.config.load import Loaded, load

__all__ = [
    "AUTO",
    "BUNDLED",
    "FILE",
    "App",
    "Config",
    "Document",
    "Loaded",
    "Logs",
    "Override",
    "Programs",
    "Server",
    "Site",
    "Smoke",
    "Stack",
    "environment_overrides",
    "find_project",
    "load",
    "parse_set",
]
