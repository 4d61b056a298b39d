"""The chains of limits: whatever is set, each link is as its rule wants it, or `up` refuses and names the settings."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stack.appservers import APP_SERVERS, bundled
from stack.config import App, Config, Programs, Server, Site, Stack
from stack.config.document import Logs
from stack.facts import Facts
from stack.limits import BUFFER, KILL_AFTER, Limit
from stack.operations import unit
from stack.plan import chains, limits, plan
from stack.rules import problems
from stack.webservers import DIRECT, WEB_SERVERS
from stack.wsgi import http, master

from .made import facts

ABOUT = {
    "time": "stopping-outlasts-requests",
    "header": "heads-fit-the-hop",
    "body": "app-decides-on-bodies",
    "backlog": "backlog-is-real",
}
SECONDS = st.floats(0.001, 86400)
AUTO: st.SearchStrategy[Any] = st.just("auto")
BYTES = st.integers(1, 2**40)


def whole(stack: Stack | None = None, server: Server | None = None, site: Site | None = None) -> Config:
    """The config of one app behind one site, from no file."""
    stack = stack or Stack()
    return Config(
        project="/srv/shop",
        stack=stack.model_copy(update={"name": "shop"}),
        logs=Logs(),
        programs=Programs(),
        apps={"app": App(server=server or Server())},
        sites={"site": site or Site()},
    )


@st.composite
def configs(draw: st.DrawFn) -> Config:
    engine = draw(st.sampled_from(list(APP_SERVERS)))
    server = Server(
        engine=engine,
        protocol=draw(st.sampled_from(["auto", *APP_SERVERS[engine].PROTOCOLS])),
        timeout=draw(SECONDS),
        stop_within=draw(AUTO | SECONDS),
        backlog=draw(AUTO | st.integers(1, 65535)),
    )
    stack = Stack(max_header=draw(st.integers(1024, 65536)))
    webs = [each for each in WEB_SERVERS if each != DIRECT or APP_SERVERS[engine].FACES_CLIENTS]
    return whole(stack, server, Site(web=draw(st.sampled_from(webs)), max_body=draw(AUTO | BYTES)))


@st.composite
def machines(draw: st.DrawFn, found: Config) -> Facts:
    machine = facts(found, somaxconn=draw(st.integers(1, 65535)))
    takes = draw(st.none() | st.integers(0, 2**40))
    apps = {name: dataclasses.replace(app, max_content_length=takes) for name, app in machine.apps.items()}
    return dataclasses.replace(machine, apps=apps)


@given(st.data())
def test_every_chain_holds_or_is_refused_by_its_rule_and_nothing_else_is(data: st.DataObject) -> None:
    found = data.draw(configs())
    machine = data.draw(machines(found))
    broken = {ABOUT[each.topic] for each in chains(found, machine) if not each.holds}
    refused = {each.rule for each in problems(found, machine, plan(found, machine)) if each.kind}
    assert refused & set(ABOUT.values()) == broken


@given(st.data())
def test_what_nobody_has_set_never_contradicts_anything(data: st.DataObject) -> None:
    server = Server(timeout=data.draw(SECONDS))
    found = whole(server=server, site=Site(web=data.draw(st.sampled_from(list(WEB_SERVERS)))))
    machine = data.draw(machines(found))
    assert all(each.holds for each in chains(found, machine))


@given(st.data())
def test_a_chain_that_holds_is_in_order(data: st.DataObject) -> None:
    found = data.draw(configs())
    for chain in chains(found, data.draw(machines(found))):
        values = [each.value for each in chain.limits]
        if chain.topic == "time":
            assert chain.holds == all(one < other for one, other in pairwise(values))
        else:
            assert chain.holds == (values == sorted(values, reverse=chain.topic == "body"))


def named(found: Config, machine: Facts) -> Iterator[tuple[str, Limit]]:
    for chain in chains(found, machine):
        for each in chain.limits:
            yield f"{chain.topic} {each.name}", each


def values(found: Config, machine: Facts | None = None) -> dict[str, float]:
    return {name: each.value for name, each in named(found, machine or facts(found))}


def test_the_chains_of_the_defaults() -> None:
    assert values(whole()) == {
        "time request": 30,
        "time worker": 31,
        "time read": 35,
        "time drain": 40,
        "time shutdown": 41,
        "time web stop": 45,
        "time systemd": 95,
        "header line": 8192,
        "header head": 33792,
        "header packet": 37888,
        "header buffer": 65535,
        "body web body": 32 * 1024**2,
        "backlog public": 511,
        "backlog kernel": 4096,
        "backlog app": 1024,
    }


def test_what_is_not_ours_or_not_there_has_no_link() -> None:
    external = values(whole(site=Site(web="external")))
    assert "time read" in external
    assert not {"time shutdown", "time web stop", "backlog public"} & external.keys()
    assert external["time systemd"] == 50
    direct = values(whole(site=Site(web="none")))
    assert not {"time read", "header head", "body web body"} & direct.keys()
    assert direct["body server body"] == 32 * 1024**2


def test_the_web_server_lets_in_a_little_more_than_the_app_takes() -> None:
    found = whole()
    machine = facts(found)
    takes = dataclasses.replace(machine.apps["app"], max_content_length=64 * 1024**2)
    shown = values(found, dataclasses.replace(machine, apps={"app": takes}))
    assert (shown["body web body"], shown["body app body"]) == (65 * 1024**2, 64 * 1024**2)


def test_the_numbers_of_a_stack_are_those_of_its_slowest_app() -> None:
    found = whole().model_copy(
        update={"apps": {"a": App(), "b": App(server=Server(timeout=300))}, "sites": {"s": Site(app="a")}}
    )
    numbers = limits(found, facts(found))
    assert [each.drain for each in numbers.apps.values()] == [40, 310]
    assert (numbers.shutdown, numbers.web_stop, numbers.systemd_stop) == (311, 315, 635)
    assert all(each.holds for each in chains(found, facts(found)))


@given(st.data())
def test_systemd_waits_as_long_as_all_services_may_take(data: st.DataObject) -> None:
    found = data.draw(configs())
    machine = data.draw(machines(found))
    made = plan(found, machine)
    tiers: dict[int, float] = {}
    for each in made.services:
        tiers[each.tier] = max(tiers.get(each.tier, 0.0), each.stop_within)
    stop = limits(found, machine).systemd_stop
    assert sum(tiers.values()) < stop
    assert unit.stop_within(made) == math.ceil(stop)


@given(st.integers(1024, 11 * 1024), st.integers(0, 400), st.data())
def test_a_head_that_nginx_lets_in_is_a_packet_that_the_hop_can_carry(
    line: int, fields: int, data: st.DataObject
) -> None:
    """The URL goes twice; a field grows by HTTP_ and two sizes, less what stood between it and the next."""
    found = whole(Stack(max_header=line), Server(protocol="uwsgi"))
    app, head = limits(found, facts(found)).apps["app"], limits(found, facts(found)).head
    url = data.draw(st.integers(1, line))
    grown = (head - url) + 7 * fields + 2 * url + 1000
    assert grown <= app.packet <= BUFFER


def test_the_numbers_that_the_bundled_server_has_of_its_own_are_these() -> None:
    assert master.STUCK_SHOW + master.SHOWN_KILL == master.QUICK == KILL_AFTER
    assert http.HEAD_LIMIT >= BUFFER


def made_of(**server: Any) -> Config:
    return whole(server=Server(**server), site=Site(max_body=3 * 1024**2))


@pytest.mark.parametrize(("engine", "protocol"), [("bundled", each) for each in bundled.PROTOCOLS])
def test_what_is_explained_stands_in_what_is_rendered(engine: str, protocol: str) -> None:
    found = made_of(engine=engine, protocol=protocol, timeout=7, backlog=99)
    machine = facts(found)
    made = plan(found, machine)
    told = dict(named(found, machine))
    text = "\n".join(each.text for each in made.files if each.path.startswith("nginx/"))
    directives = dict(re.findall(r"^ *([a-z_]+) (.*);", text, re.MULTILINE))
    assert directives[told["time read"].key] == f"{told['time read'].value:g}s" == "12s"
    assert directives[told["time shutdown"].key] == f"{told['time shutdown'].value:g}s" == "18s"
    assert directives[told["body web body"].key] == "3m"
    count, size = directives[told["header line"].key].split()
    first = directives["client_header_buffer_size"]
    assert int(size.removesuffix("k")) * 1024 == told["header line"].value
    assert int(count) * told["header line"].value + int(first.removesuffix("k")) * 1024 == told["header head"].value
    argv = made.services[0].argv
    for name in ("time request", "time drain", "backlog app"):
        assert argv[argv.index(told[name].key) + 1] == f"{told[name].value:g}"
    assert made.services[0].stop_within == told["time drain"].value
    assert made.services[1].stop_within == told["time web stop"].value
    assert {each.backlog for each in made.listeners} == {told["backlog public"].value}


def test_a_chain_says_what_each_hop_adds() -> None:
    found = whole()
    for chain in chains(found, facts(found)):
        assert chain.rule
        for each in chain.limits:
            assert each.program
            assert each.key
            assert each.origin
            assert each.why
            assert len(each.why) <= 69, "it stands on one line of 80 columns"


def test_every_server_says_what_enforces_its_limits() -> None:
    for name, each in APP_SERVERS.items():
        assert {"timeout", "kill", "drain", "buffer", "backlog"} <= each.ENFORCES.keys(), name
