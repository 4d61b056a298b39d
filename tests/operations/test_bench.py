"""What is made of wrk's words and of the turns, and who takes them; that turns are taken is in e2e."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from math import isclose
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stack.appservers import APP_SERVERS, PEERS
from stack.errors import MissingProgramError, UsageError
from stack.facts import Interpreter
from stack.operations.bench import usage, wrk
from stack.operations.bench.contenders import CONTENDERS, Contender, chosen
from stack.operations.bench.figures import MEASURES, doubts, others, series
from stack.render import render

from .turns import TURN, turns

HERE = Interpreter(sys.executable, tuple(sys.version_info[:3]), "the test")
NOWHERE = Interpreter("/nowhere/bin/python", (3, 11), "the test")
LINE = (
    '{"requests":8000,"duration":2000000,"bytes":1,"p50":1500,"p99":20000,"longest":30000,'
    '"connect":0,"read":%d,"write":0,"status":%d,"timeout":0}'
)


# wrk's words.


def test_of_what_wrk_says_the_line_of_the_script_counts() -> None:
    said = f"Running 2s test @ http://127.0.0.1:8000/\n  8000 requests in 2.00s\n\n{LINE % (0, 0)}\n"
    assert wrk.counted(said) == wrk.Counted(8000, 2.0, 0.0015, 0.02, {})


def test_failures_are_told_in_words() -> None:
    found = wrk.counted(LINE % (3, 8000))
    assert found is not None
    assert found.failures == {"broke off": 3, "answered 400 or more": 8000}


@pytest.mark.parametrize("said", ["", "unable to connect to 127.0.0.1:1\n", "{}", "[]", '{"requests":1}'])
def test_what_is_not_of_the_script_is_nothing(said: str) -> None:
    assert wrk.counted(said) is None


@settings(deadline=None)
@given(st.text())
def test_lua_gets_the_bytes_of_a_text(text: str) -> None:
    script = render("wrk/turn.lua.j2", method="POST", body=text, headers={}, think=0)
    quoted = next((line for line in script.splitlines() if line.startswith("wrk.body = ")), 'wrk.body = ""')
    inside = quoted.removeprefix('wrk.body = "').removesuffix('"')
    assert inside.isascii()
    assert inside.isprintable()
    assert decimal_escapes(inside) == text.encode("utf-8", "surrogatepass")


def decimal_escapes(inside: str) -> bytes:
    """What Lua makes of it: `\\ddd` is a byte."""
    found, rest = bytearray(), inside
    while rest:
        if rest[0] == "\\":
            found.append(int(rest[1:4]))
            rest = rest[4:]
        else:
            assert rest[0] != '"'
            found.append(ord(rest[0]))
            rest = rest[1:]
    return bytes(found)


# Figures.


def test_a_figure_is_the_median_of_its_rounds_and_how_far_they_lie_apart() -> None:
    (found,) = series(turns("bundled", requests=[1000, 4000, 2000]))
    figure = found.figures["per_second"]
    assert (figure.median, figure.least, figure.most) == (1000, 500, 2000)
    assert figure.spread == 1.5


def test_cpu_is_for_each_request_of_both_processes_together() -> None:
    turn = dataclasses.replace(TURN, requests=1000, server_cpu=0.2, web_cpu=0.05)
    assert isclose(turn.server_each, 200e-6)
    assert isclose(turn.web_each, 50e-6)
    assert isclose(turn.both_each, 250e-6)


def test_series_go_path_by_path_with_the_servers_in_their_order() -> None:
    rounds = [
        turn for _ in range(3) for server in "ba" for path in ("/x", "/a") for turn in turns(server, path=path)[:1]
    ]
    found = series(rounds)
    assert [(each.path, each.server, len(each.turns)) for each in found] == [
        ("/x", "b", 3),
        ("/x", "a", 3),
        ("/a", "b", 3),
        ("/a", "a", 3),
    ]


def test_a_ratio_is_of_medians() -> None:
    ours, theirs = series([*turns("a", requests=[100, 200, 900]), *turns("b", requests=[400, 50, 500])])
    assert ours.ratio("per_second", theirs) == 0.5
    assert theirs.ratio("per_second", ours) == 2.0
    assert isclose(ours.ratio("both_each", theirs), 2.0)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=9))
def test_a_median_lies_between_the_least_and_the_most(requests: list[int]) -> None:
    (found,) = series(turns("a", requests=requests))
    for measure in MEASURES:
        figure = found.figures[measure.name]
        assert figure.least <= figure.median <= figure.most
        assert figure.spread >= 0


# Whether to believe it.


def test_quiet_rounds_leave_no_doubt() -> None:
    assert list(doubts(series(turns("a", requests=[1000, 1050, 1100])))) == []


def test_few_rounds_are_doubted() -> None:
    assert list(doubts(series(turns("a", requests=[1000, 1000])))) == [
        "fewer than 3 rounds: how far they lie apart is not known"
    ]


def test_rounds_that_lie_far_apart_are_doubted_by_name() -> None:
    found = series([*turns("a", requests=[1000, 1000, 1000]), *turns("b", path="/b", requests=[1000, 1000, 1200])])
    assert list(doubts(found)) == [
        "b at /b: requests/s lies 20% apart from round to round",
        "b at /b: CPU per request lies 17% apart from round to round",
    ]


def test_a_machine_with_other_work_is_doubted() -> None:
    busy = [dataclasses.replace(each, others=share) for each, share in zip(turns("a"), (0.0, 0.3, 0.9), strict=True)]
    assert others(series(busy)) == 0.3
    assert list(doubts(series(busy))) == ["other programs had 30% of this machine's CPUs meanwhile"]


# Who takes turns.


def test_every_app_server_and_every_peer_can_take_a_turn() -> None:
    assert {each.engine for each in CONTENDERS} == {*APP_SERVERS, *PEERS}
    assert len({each.name for each in CONTENDERS}) == len(CONTENDERS)


def test_the_order_is_that_of_the_names_and_an_engine_may_stand_for_its_ways() -> None:
    found = chosen(["gunicorn", "bundled", "gunicorn-sync"], "", 4, HERE, os.environ)
    assert [each.name for each in found] == ["gunicorn-gthread", "gunicorn-sync", "bundled"]
    assert [each.threads for each in found] == [0, 1, 0]
    assert all(each.version for each in found)
    assert [each.protocol for each in found] == ["http", "http", APP_SERVERS["bundled"].PROTOCOLS[0]]


def test_gunicorn_with_one_thread_is_sync_alone() -> None:
    assert [each.name for each in chosen(["gunicorn"], "", 1, HERE, os.environ)] == ["gunicorn-sync"]


def test_without_names_it_is_whoever_is_installed_and_speaks_the_protocol(tmp_path: Path) -> None:
    assert [each.name for each in chosen([], "uwsgi", 4, HERE, os.environ)] == ["bundled", "uwsgi"]
    has_nothing = tmp_path / "python"
    has_nothing.write_text("#!/bin/sh\nexit 1\n")
    has_nothing.chmod(0o755)
    (alone,) = chosen([], "", 4, dataclasses.replace(HERE, path=str(has_nothing)), {"PATH": ""})
    assert alone.name == "bundled"


@pytest.mark.parametrize(
    ("names", "protocol", "python", "kind", "says"),
    [
        (["hypercorn"], "", HERE, UsageError, "--server hypercorn: there is no app server of that name to measure"),
        (["gunicorn"], "uwsgi", HERE, UsageError, "--protocol uwsgi: gunicorn-gthread does not speak it"),
        (["uwsgi"], "", NOWHERE, MissingProgramError, "--server uwsgi: it is not installed for /nowhere/bin/python"),
    ],
)
def test_who_is_named_must_be_there(
    names: list[str], protocol: str, python: Interpreter, kind: type[UsageError], says: str
) -> None:
    with pytest.raises(kind) as caught:
        chosen(names, protocol, 4, python, {"PATH": ""})
    assert caught.value.message == says
    assert caught.value.hint


# What processes use.


def test_cpu_and_memory_are_of_the_whole_family_and_of_those_that_have_ended(tmp_path: Path) -> None:
    script = (
        "import os, sys, time\n"
        "def burn():\n"
        "    while time.process_time() < 0.3: pass\n"
        "if not os.fork():\n    burn(); os._exit(0)\n"
        "os.wait()\n"
        "if not os.fork():\n    burn(); print('burnt', flush=True); time.sleep(60)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=tmp_path) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"burnt\n"
            assert usage.cpu(parent.pid) >= 0.6 - 0.05  # clock ticks
            assert usage.memory(parent.pid) > psutil.Process(parent.pid).memory_full_info().pss
        finally:
            for each in psutil.Process(parent.pid).children():
                each.kill()
            parent.kill()


def test_the_machine_has_used_no_more_than_there_was() -> None:
    busy, everything = usage.machine()
    assert 0 < busy <= everything


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda each: each.name)
def test_who_cannot_preload_is_measured_without(contender: Contender) -> None:
    told = {each.key: each.value for each in contender.overrides("")}
    assert ("server.preload" in told) is not contender.module.PRELOADS
