"""`stack.toml` as data: validated, complete, frozen. It never acts."""

from stack.config.document import AUTO, App, Config, Document, Programs, Server, Site, Smoke, Stack
from stack.config.layers import FILE, Override, environment_overrides, find_project, parse_set
from stack.config.load import Loaded, load

__all__ = [
    "AUTO",
    "FILE",
    "App",
    "Config",
    "Document",
    "Loaded",
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
