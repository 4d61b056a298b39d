"""What a bench has measured, as a picture: SVG that stands by itself, in a light page and in a dark one. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from xml.sax.saxutils import escape

from stack.cli.standings import amount, heading
from stack.operations.bench import Report
from stack.operations.bench.figures import MEASURES, Series

__all__ = ["drawn"]

WIDTH, LINE, MARGIN = 760, 22, 20
NAMES = 130  # for the names of the app servers
BARS = 210  # for the longest bar of each of the two columns
GAP = 75  # for the figure behind it
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #222 }
.title { font-size: 16px; font-weight: 600 }
.small { font-size: 11px; fill: #666 }
.server { fill: #2f6fb0 } .web { fill: #a9c6e2 } .rate { fill: #3d9970 }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd } .small { fill: #999 }
  .server { fill: #5a9bdc } .web { fill: #34526e } .rate { fill: #52b788 }
}
"""
BY_NAME = {each.name: each for each in MEASURES}


def drawn(report: Report) -> str:
    """For each path, a bar for each app server: CPU time per request, of app server and nginx, and requests/s."""
    body = list(_body(report))
    height = MARGIN + LINE * _lines(report) + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img">\n<title>{escape(report.name)}</title>\n<style>{STYLE}</style>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _lines(report: Report) -> int:
    paths = len({each.path for each in report.series})
    return 3 + 3 * paths + len(report.series)


def _body(report: Report) -> Iterator[str]:
    left, right = MARGIN + NAMES, MARGIN + NAMES + BARS + GAP
    y = MARGIN + LINE // 2
    yield _text(MARGIN, y, report.name, "title")
    yield _text(MARGIN, y + LINE, heading(report), "small")
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    yield _text(MARGIN, y + 2 * LINE - 4, machine, "small")
    y += 3 * LINE
    for path, group in groupby(report.series, key=lambda each: each.path):
        found = list(group)
        most = max(each.figures["both_each"].median for each in found)
        fastest = max(each.figures["per_second"].median for each in found)
        yield _text(MARGIN, y, path)
        y += LINE
        yield _text(left, y, "CPU us per request: app server, nginx", "small")
        yield _text(right, y, "requests/s", "small")
        for each in found:
            y += LINE
            yield _text(MARGIN, y, each.server)
            yield from _cpu(each, left, y, BARS / most)
            yield _bar(right, y, each.figures["per_second"].median * BARS / fastest, "rate")
            end = right + each.figures["per_second"].median * BARS / fastest
            yield _text(end + 6, y, amount(BY_NAME["per_second"], each))
        y += 2 * LINE


def _cpu(series: Series, x: float, y: float, scale: float) -> Iterator[str]:
    server, web = (series.figures[name].median * scale for name in ("server_each", "web_each"))
    yield _bar(x, y, server, "server")
    yield _bar(x + server, y, web, "web")
    yield _text(x + server + web + 6, y, amount(BY_NAME["both_each"], series))


def _bar(x: float, y: float, width: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y - 12}" width="{width:.1f}" height="15"/>'


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y}">{escape(text)}</text>'
