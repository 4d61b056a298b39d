"""The sites: where they are found, and what faces the clients."""

from __future__ import annotations

from stack.config import Config, Site
from stack.errors import ConfigError
from stack.plan.known import known
from stack.webservers import WEB_SERVERS, WebServer

__all__ = ["host", "reachable", "url", "web_server"]


def url(site: Site) -> str:
    """Where a browser finds the site."""
    address = site.listen[0]
    if not site.server_names or "*" in site.server_names[0] or site.server_names[0] == "_":
        return f"http://{reachable(address)}/".replace(":80/", "/")
    return f"http://{site.server_names[0]}:{address.rpartition(':')[2]}/".replace(":80/", "/")


def reachable(address: str) -> str:
    """An address that one can connect to, for one to listen on."""
    host, _, port = address.rpartition(":")
    return f"{ {'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}.get(host, host) }:{port}".replace(" ", "")  # noqa: S104


def host(site: Site) -> str:
    """A Host header that the site answers to."""
    host, _, port = reachable(site.listen[0]).rpartition(":")
    name = next((each.replace("*.", "www.") for each in site.server_names if each != "_"), host)
    return name if port == "80" else f"{name}:{port}"


def web_server(config: Config) -> WebServer:
    """What faces the clients: one thing for all the sites of a stack.

    Raises:
        ConfigError: the sites do not agree, or stackctl has no such web server.
    """
    names = dict.fromkeys(site.web for site in config.sites.values())
    found = [known(name, WEB_SERVERS, "[site] web") for name in names]
    if len(found) > 1:
        raise ConfigError(f"[site] web: the sites name {' and '.join(names)}", "One stack has one web server: choose.")
    return found[0]
