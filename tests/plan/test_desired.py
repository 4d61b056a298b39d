"""Any plan is the same after a way through JSON."""

from __future__ import annotations

import types
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stack.desired import VERSION, Check, File, Listener, Logs, Plan, Probe, Service, from_json, to_json

TEXT = st.text(max_size=6)
NUMBER = st.floats(0, 1e6)


def built(kind: type, **fields: Any) -> st.SearchStrategy[Any]:
    """A dataclass of texts, but for these fields."""
    plain = {name: TEXT for name, hint in kind.__annotations__.items() if hint == "str"}
    return st.builds(kind, **(plain | fields))


def several(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=2).map(tuple)


PROBES = built(Probe, within=NUMBER, status=st.integers(0, 599))
SERVICES = built(
    Service,
    tier=st.integers(0, 2),
    argv=several(TEXT),
    env=st.dictionaries(TEXT, TEXT, max_size=2),
    probe=st.none() | PROBES,
    listeners=several(TEXT),
    logs=several(TEXT),
    start_within=NUMBER,
    stop_within=NUMBER,
)
PLANS = built(
    Plan,
    files=several(built(File, mode=st.integers(0, 0o777))),
    checks=several(built(Check, argv=several(TEXT))),
    listeners=several(built(Listener, backlog=st.integers(1, 9))),
    services=several(SERVICES),
    probes=several(PROBES),
    summary=several(st.tuples(TEXT, TEXT)),
    overrides=several(st.tuples(TEXT, TEXT, TEXT)),
    logs=built(Logs, size=st.integers(0), keep=st.integers(1)),
    version=st.just(VERSION),
)


@settings(max_examples=50)  # each fills every field of every part
@given(plan=PLANS)
def test_json_and_back(plan: Plan) -> None:
    assert from_json(to_json(plan)) == plan


def test_the_strategies_fill_every_field() -> None:
    for kind in (Probe, Service, Plan, File, Check, Listener, Logs):
        assert isinstance(kind.__annotations__, dict | types.MappingProxyType)
        assert "str" in kind.__annotations__.values()
