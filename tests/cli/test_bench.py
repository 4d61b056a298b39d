"""What a bench's figures look like: the table, the JSON, the picture."""

from __future__ import annotations

import dataclasses
import json
from xml.etree import ElementTree as ET

import pytest

from stack.cli import picture, standings
from stack.operations.bench import Report, Wanted
from stack.operations.bench.contenders import CONTENDERS
from stack.operations.bench.figures import MEASURES, series
from tests.operations.turns import turns

SVG = "{http://www.w3.org/2000/svg}"
LONG = "/a/rather/long/path?with=a&query=of<its>own"


def report(*paths: str) -> Report:
    """All of them, each slower than the one before it."""
    taken = [
        turn
        for path in paths or ("/",)
        for number, each in enumerate(CONTENDERS)
        for turn in turns(each.name, path, requests=[160000 // (number + 1)] * 3)
    ]
    return Report(
        name="shop",
        wanted=Wanted((), connections=64, rounds=3),
        workers=16,
        threads=4,
        contenders=tuple(dataclasses.replace(each, version="27.0.1", protocol="http") for each in CONTENDERS),
        series=series(taken),
        machine={"cpus": "2", "kernel": "Linux 6.1.0-28-amd64", "python": "3.11.7", "nginx": "1.22.1", "wrk": "4.1.0"},
    )


def test_the_table_has_80_columns() -> None:
    lines = standings.table(report("/", LONG)).splitlines()
    assert max(len(line) for line in lines if LONG not in line) == 80
    assert lines[lines.index(LONG) + 1] == next(line for line in lines if line.startswith("/ "))[1:].rjust(80)


def test_the_table_has_medians_and_under_them_how_many_times_the_first_ones() -> None:
    lines = standings.table(report()).splitlines()
    row = next(number for number, line in enumerate(lines) if line.startswith("uwsgi "))
    assert lines[row].split() == ["uwsgi", "40000", "3.1", "12.5", "15.0", "5.0", "20.0", "50.0"]
    assert lines[row + 1].split() == ["to", "bundled", "x0.50", "x1.00", "x1.00", "x2.00", "x2.00", "x2.00", "x1.00"]
    first = next(number for number, line in enumerate(lines) if line.startswith("bundled ") and "27" not in line)
    assert "to bundled" not in lines[first + 1]


def test_the_table_names_versions_protocols_and_how_quiet_it_was() -> None:
    said = standings.table(report())
    for each in CONTENDERS:
        assert f"{each.name} 27.0.1 (http)" in said
    assert "shop: 16 workers of 4 threads, 64 connections, 3 rounds of 4 s\n" in said
    assert "nginx 1.22.1, wrk 4.1.0\n" in said
    assert "rounds lie up to 0% apart; other programs had 2% of the CPUs\n" in said


def test_json_has_each_figure_with_its_rounds_spread_and_ratio() -> None:
    told = json.loads(json.dumps(standings.as_json(report("/", "/a"))))
    assert [each["name"] for each in told["servers"]] == [each.name for each in CONTENDERS]
    assert [(each["path"], each["server"]) for each in told["results"]][:2] == [("/", "bundled"), ("/", "uwsgi")]
    uwsgi = told["results"][len(CONTENDERS) + 1]
    assert uwsgi["path"] == "/a"
    assert uwsgi["requests"] == 240000
    assert {each.name for each in MEASURES} < uwsgi.keys()
    assert uwsgi["per_second"] == {"median": 40000, "spread": 0, "ratio": 0.5, "rounds": [40000, 40000, 40000]}
    assert uwsgi["both_each"]["median"] == 20e-6
    assert told["doubts"] == []


@pytest.mark.parametrize("path", ["/", LONG])
def test_the_picture_is_svg_with_bars_as_long_as_their_figures(path: str) -> None:
    root = ET.fromstring(picture.drawn(report(path, "/b")))
    assert root.tag == f"{SVG}svg"
    texts = [each.text for each in root.iter(f"{SVG}text")]
    assert path in texts
    assert texts.count("waitress") == 2
    rates = [float(each.attrib["width"]) for each in root.iter(f"{SVG}rect") if each.attrib["class"] == "rate"]
    assert rates[1] == pytest.approx(rates[0] / 2, abs=0.1)
    width, height = (float(root.attrib[each]) for each in ("width", "height"))
    for each in root.iter(f"{SVG}rect"):
        assert float(each.attrib["x"]) + float(each.attrib["width"]) < width
    assert all(0 < float(each.attrib["y"]) < height for each in (*root.iter(f"{SVG}rect"), *root.iter(f"{SVG}text")))
