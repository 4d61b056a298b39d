"""The sites: where they are found."""

from __future__ import annotations

from stack.config import Site

__all__ = ["host", "reachable", "url"]


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
