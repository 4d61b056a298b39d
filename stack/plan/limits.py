"""The chains of limits, of the programs that this config names. `limits(config, facts).systemd_stop` and its like."""

from __future__ import annotations

from collections.abc import Iterator

from stack import limits as worked_out
from stack.config import Config
from stack.facts import Facts
from stack.limits import Chain, Limits, Way
from stack.plan import apps
from stack.plan.sites import web_server
from stack.webservers import DIRECT

__all__ = ["chains", "limits"]


def limits(config: Config, facts: Facts) -> Limits:
    """All the numbers.

    Raises:
        ConfigError: a setting names something that stackctl does not have.
    """
    return worked_out.limits(config, facts, _ways(config))


def chains(config: Config, facts: Facts) -> Iterator[Chain]:
    """The numbers as chains: who enforces each, where it comes from, and why."""
    return worked_out.chains(config, facts, _ways(config))


def _ways(config: Config) -> dict[str, Way]:
    web, is_direct = web_server(config), any(site.web == DIRECT for site in config.sites.values())
    return {
        name: Way(
            web="" if is_direct else "nginx",
            web_options=web.enforces(apps.protocol(app)),
            protocol="http" if is_direct else apps.protocol(app),
            server=app.server.engine,
            server_options=apps.engine(app).ENFORCES,
        )
        for name, app in config.apps.items()
    }
