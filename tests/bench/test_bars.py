"""When a bar is met, and that the page has them all."""

from __future__ import annotations

import dataclasses

import pytest

from stack.operations.bench import Report, Wanted
from stack.operations.bench.figures import series
from tests.bench.bars import Bar, bars
from tests.bench.page import line, page
from tests.operations.turns import turns

PROFILE = {"answered": 10, "functions": [["/x/lib/python3.11/socket.py:1 accept", 20, 0.3], ["<built-in len>", 5, 0.1]]}


def report(**requests: int) -> Report:
    """Servers by how many requests each answered; CPU time and all else are the same."""
    taken = [turn for server, each in requests.items() for turn in turns(server.replace("_", "-"), requests=[each] * 3)]
    return Report("of the test", Wanted(()), 2, 4, (), series(taken), {"cpus": "2"})


@pytest.mark.parametrize(
    ("ratio", "missed", "stretched"),
    [(0.96, True, False), (0.951, False, False), (0.95, False, False), (0.86, False, False), (0.85, False, True)],
)
def test_a_bar_is_met_as_it_is_printed(ratio: float, *, missed: bool, stretched: bool) -> None:
    bar = Bar("what", "uwsgi", ratio, 0.95, 0.85)
    assert (bar.is_missed, bar.is_stretched) == (missed, stretched)


def test_what_has_only_a_stretch_is_not_missed() -> None:
    assert not Bar("what", "uwsgi", 9.0, None, 0.5).is_missed


def test_twice_the_requests_and_half_the_cpu_are_a_half_each() -> None:
    found = list(bars({"raw": report(bundled=8000, uwsgi=4000)}, 0.0))
    assert [(each.than, each.ratio) for each in found] == [("uwsgi", 0.5), ("uwsgi", 0.5)]
    (many,) = bars({"raw-64": report(bundled=4000, uwsgi=8000)}, 0.0)
    assert many.ratio == 2.0
    assert many.is_missed


def test_the_server_above_the_app_is_what_the_app_alone_leaves() -> None:
    ours = {"bundled": 8000, "bundled_uwsgi": 8000, "bundled_logging": 8000}
    found = [*bars({"hello-close": report(uwsgi=6000, **ours)}, 100e-6)]
    (above,) = (each for each in found if "above" in each.what)
    assert above.ratio == pytest.approx(0.5)  # of 150 and 200 us


def test_the_best_peer_of_the_mixed_load_is_the_one_with_the_least_p99() -> None:
    found = report(bundled=8000, uwsgi=8000, granian=8000)
    quick = dataclasses.replace(found.series[2].figures["p99"], median=0.005)
    granian = dataclasses.replace(found.series[2], figures=found.series[2].figures | {"p99": quick})
    (bar,) = bars({"mixed": dataclasses.replace(found, series=(*found.series[:2], granian))}, 0.0)
    assert (bar.than, bar.ratio) == ("granian, the best", 2.5)


def test_the_page_has_every_bar_and_the_profile() -> None:
    reports = {"raw": report(bundled=8000, uwsgi=4000)}
    found = [*bars(reports, 0.0)]
    text = page(reports, found, 145e-6, PROFILE)
    assert text.count("| better still |") == len(found) + 1
    assert "| raw WSGI callable: CPU per request | uwsgi | 0.50 | 0.75 | 0.60 | better still |" in text
    assert "145.0 us" in text
    assert "| `python3.11/socket.py:1 accept` | 2.0 | 30000.0 | 75% |" in text
    assert line(found[0]).startswith("better still")
