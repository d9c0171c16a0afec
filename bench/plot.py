"""The figures as a picture: an SVG that reads well on a light page and on a dark one."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bench.contenders import TITLES
from bench.results import NODES
from bench.throughput import SCENARIOS

WIDTH, PANEL = 860, 420  # two panels beside each other
LABEL, BAR, GAP, HEAD = 190, 14, 6, 34
SPACE = 20  # between panels
OURS = ("port", "host", "no_log", "one", "two", "three")
ROOM = 74  # to the right of the longest bar, for its figure

STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.ours { fill: #0969da; }
.peer { fill: #8c959f; }
.ceiling { fill: none; stroke: #8c959f; stroke-dasharray: 3 2; }
.spread { stroke: #1f2328; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .ours { fill: #4493f8; }
  .peer { fill: #6e7681; }
  .ceiling { stroke: #8b949e; }
  .spread { stroke: #e6edf3; }
}"""


Runs = Mapping[str, Sequence[Mapping[str, Any]]]  # by key


def svg(throughput: Mapping[str, Runs], nodes: Mapping[str, Any]) -> str:
    """A panel of bars for each scenario: the median, with a line from the lowest to the highest round."""
    charts = {SCENARIOS[name].title: (TITLES, by_key) for name, by_key in throughput.items()}
    if "throughput" in nodes:
        titles = {key: title for key, (title, _) in NODES.items()}
        charts[f"nodes of {nodes['quota']:.2g} cores each"] = (titles, nodes["throughput"])
    panels = []
    left = right = 0  # how far down each column reaches
    for title, (titles, by_key) in charts.items():
        height = HEAD + len(by_key) * (BAR + GAP)
        x, y = (0, left) if left <= right else (PANEL + SPACE, right)
        panels.append(_panel(x, y, title, titles, by_key))
        if x:
            right += height + SPACE
        else:
            left += height + SPACE
    height = max(left, right, SPACE) - SPACE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="Requests a second by scenario and contender">\n<style>\n{STYLE}\n</style>\n'
        + "\n".join(panels)
        + "\n</svg>\n"
    )


def _panel(x: float, y: float, title: str, titles: Mapping[str, str], by_key: Runs) -> str:
    rates = {key: [run["rate"] for run in by_key[key]] for key in titles if key in by_key}
    scale = (PANEL - LABEL - ROOM) / max(max(found) for found in rates.values())
    lines = [
        f'<g transform="translate({x} {y})">',
        f'<text class="title" x="0" y="14">{escape(title)}, requests/s</text>',
    ]
    for number, (key, found) in enumerate(rates.items()):
        top = HEAD - 8 + number * (BAR + GAP)
        middle, low, high = statistics.median(found), min(found), max(found)
        kind = "ceiling" if key == "ceiling" else "ours" if key in OURS else "peer"
        base = top + BAR - 3
        lines += [
            f'<text x="{LABEL - 6}" y="{base}" text-anchor="end">{escape(titles[key])}</text>',
            f'<rect class="{kind}" x="{LABEL}" y="{top}" width="{middle * scale:.1f}" height="{BAR}"/>',
            f'<line class="spread" x1="{LABEL + low * scale:.1f}" x2="{LABEL + high * scale:.1f}" '
            f'y1="{top + BAR / 2}" y2="{top + BAR / 2}"/>',
            f'<text x="{LABEL + high * scale + 6:.1f}" y="{base}">{middle:,.0f}</text>',
        ]
    return "\n".join([*lines, "</g>"])
