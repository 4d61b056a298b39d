"""What is concluded from what visitors met and from what the supervisor knows; the whole of it is in e2e."""

from __future__ import annotations

import json

import pytest

from stack.cli import proof as reports
from stack.errors import ConfigError
from stack.operations.prove import Handover, Proof, _handover
from stack.operations.visitors import Load, Request, Visit

ASKED = Request("GET", "/", "127.0.0.1:1", "h", 1.0)
BEGAN = 1000.0
TIMELINE = {"started": 1001.0, "ready": 1002.0, "linked": 1002.0, "fenced": 1003.0, "ended": 1004.0}
LOADS = {"before": Load(2, seconds=(0.001, 0.002)), "during": Load(3, 1, ("GET /: refused",)), "after": Load(again=7)}


def visits(*moments: tuple[float, float]) -> list[Visit]:
    return [
        Visit(ASKED, "during", BEGAN + began, BEGAN + ended, ended - began, "", again=False) for began, ended in moments
    ]


def test_new_code_answers_from_the_link_on_and_the_old_until_the_fence() -> None:
    met = visits((0.5, 1.75), (1.5, 2.25), (2.5, 2.75), (2.75, 3.5), (3.25, 3.375))
    assert _handover(met, TIMELINE, BEGAN, shared=False) == Handover(new_from=2.25, old_until=3.5, either=3)


def test_apps_that_share_a_socket_may_both_answer_until_the_old_one_has_ended() -> None:
    met = visits((0.5, 1.5), (1.75, 2.25), (4.5, 4.75))
    assert _handover(met, TIMELINE, BEGAN, shared=True) == Handover(new_from=1.5, old_until=2.25, either=2)


def test_what_has_not_happened_is_not_known() -> None:
    found = _handover(visits((0.5, 2.5)), {"started": 1001.0, "linked": 1002.0}, BEGAN, shared=False)
    assert found == Handover(new_from=2.5, old_until=None, either=0)


@pytest.mark.parametrize(
    ("proof", "code"),
    [
        (Proof(BEGAN, 1.0, {"before": Load(2)}, {}), 0),
        (Proof(BEGAN, 1.0, LOADS, {}), 4),
        (Proof(BEGAN, 1.0, LOADS, {}, refusal=ConfigError("no")), 3),
        (Proof(BEGAN, 1.0, {}, {}, refusal=ConfigError("no")), 3),
    ],
)
def test_a_refusal_decides_the_exit_code_before_a_failed_request_does(proof: Proof, code: int) -> None:
    assert proof.exit_code == code


def test_the_table_fits_a_terminal_and_says_it_all() -> None:
    handovers = {"a-name-of-more-than-thirty-two-ch": Handover(123.456, 134.567, 12345), "b": Handover(1.0, None, 0)}
    lines = reports.table(Proof(BEGAN, 134.5, LOADS, handovers)).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["before", "2", "0", "1.0", "2.0"]
    assert lines[2].split()[:3] == ["during", "3", "1"]
    text = " ".join(" ".join(lines).split())
    assert "new code from +123.46 s on, old code until +134.57 s; 12345 answers may be either's" in text
    assert "b: new code from +1.00 s on; the old code has not let go of all its connections yet" in text
    assert "closed by the server between requests: 7, asked again" in text


def test_failures_are_told_by_phase() -> None:
    told = reports.failures(Proof(BEGAN, 1.0, LOADS, {}))
    assert told == "1 of 3 requests failed during the reload:\n    GET /: refused"


def test_json_holds_everything() -> None:
    found = json.loads(json.dumps(reports.as_json(Proof(BEGAN, 1.0, LOADS, {"app": Handover(1.0, None, 2)}, ("x",)))))
    assert (found["ok"], found["exit_code"], found["refused"]) == (False, 4, "")
    assert (found["requests"], found["failed"], found["changes"]) == (5, 1, ["x"])
    assert found["apps"] == {"app": {"new_from": 1.0, "old_until": None, "either": 2}}
    assert found["phases"]["during"]["failures"] == ["GET /: refused"]
    assert found["phases"]["after"]["asked_again"] == 7
