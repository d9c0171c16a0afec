"""Draws the program: what runs, in docs/images/running.svg, and what it declares, in docs/architecture.md.

`make diagram` runs it; a test compares both with the program, so that neither can drift.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from infra.layout import LABEL_PREFIX
from tests.unit.program import Program, Registration, run

ROOT = Path(__file__).resolve().parent.parent
PICTURE = "docs/images/running.svg"
PAGE = "docs/architecture.md"
BEGIN = "<!-- The resources, written by `make diagram`. -->"
END = "<!-- End of the resources. -->"
STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.faint { fill: #59636e; }
.host { fill: none; stroke: #8c959f; stroke-dasharray: 4 3; }
.container { fill: #ddf4ff; stroke: #0969da; }
.volume { fill: #fff8c5; stroke: #bf8700; }
.gate { fill: #dafbe1; stroke: #1a7f37; }
.arrow { fill: none; stroke: #59636e; stroke-width: 1.5; marker-end: url(#head); }
#head path { fill: #59636e; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .faint { fill: #9198a1; }
  .container { fill: #121d2f; stroke: #4493f8; }
  .volume { fill: #272115; stroke: #d29922; }
  .gate { fill: #12261e; stroke: #3fb950; }
  .arrow { stroke: #9198a1; }
  #head path { fill: #9198a1; }
}"""
WIDTH, ROW = 900, 84  # pixels; a row is a replica


def picture(program: Program) -> str:
    """The running system: the layout is drawn by hand, what stands in it is the program's."""
    (nginx,) = _of_role("nginx", program)
    replicas = _of_role("replica", program)
    (gate,) = program.of_type(":Release").values()
    (network,) = program.of_type(":Network").values()
    (port,) = nginx.inputs["ports"]
    bottom = 70 + max(2, len(replicas)) * ROW
    parts = [
        _box("container", 10, 82, 90, 40, "clients"),
        _arrow("M100 102 H216", f"{port['ip']}:{port['external']}", 158, 94),
        _box("host", 196, 10, 694, bottom + 76),
        _text(206, 28, f"Docker host; on the stack's {network.name} nothing but NGINX is published", "faint"),
        _box("container", 220, 50, 176, 104, nginx.name, f"NGINX, {_image(nginx, program)}", *_limits(nginx)),
        _box("volume", 430, 50, 200, max(104, len(replicas) * ROW - 16), "sockets"),
    ]
    for number, replica in enumerate(replicas):
        top = 50 + number * ROW
        environment = dict(line.split("=", 1) for line in replica.inputs["envs"])
        socket = environment["REPLICA_SOCKET"].rpartition("/")[2].replace(program.exports["release"], "RELEASE")
        work = f"{environment['UWSGI_PROCESSES']} processes × {environment['UWSGI_THREADS']} threads"
        parts += [
            _box("container", 680, top, 190, 68, replica.name, f"uWSGI + app, {_image(replica, program)}", work),
            _arrow(f"M396 102 C440 102 430 {top + 40} 470 {top + 40} H676", socket, 530, top + 34),
        ]
    parts += [
        _box("volume", 220, bottom + 14, 100, 52, "nginx-live", "configuration"),
        _box("volume", 328, bottom + 14, 78, 52, "metrics", "requests"),
        _arrow(f"M262 154 V{bottom + 10}"),
        _arrow(f"M364 154 V{bottom + 10}"),
        _box(
            "gate",
            *(220, bottom + 118, 650, 64),
            f"{gate.name}: the gate between new replicas and traffic",
            "waits for their health → tests the configuration → asks the app through a probe, once for every replica",
            "→ swaps and reloads → waits for the old workers. Or it says in words why not, and nothing has changed.",
        ),
        _arrow(f"M262 {bottom + 118} V{bottom + 70}", "swaps", 284, bottom + 104),
        _arrow(f"M775 {bottom + 118} V{bottom - 32 - ROW * (2 - min(2, len(replicas)))}", "asks", 796, bottom + 104),
    ]
    drawn = "\n".join(parts)
    missing = [name for name, one in sorted(program.resources.items()) if one.custom and escape(name) not in drawn]
    if missing:
        raise ValueError(f"the picture has no place for {', '.join(missing)}: draw it in tooling/diagram.py")
    height = bottom + 192
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="Clients reach NGINX, which asks the replicas over unix sockets; the gate lets releases in">\n'
        f"<style>\n{STYLE}\n</style>\n"
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z"/></marker>\n' + drawn + "\n</svg>\n"
    )


def _box(kind: str, x: int, y: int, width: int, height: int, title: str = "", *lines: str) -> str:
    texts = [_text(x + 10, y + 19, title, "title")] if title else []
    texts += [_text(x + 10, y + 37 + 16 * number, line) for number, line in enumerate(lines)]
    rect = f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'
    return "\n".join([rect, *texts])


def _text(x: int, y: int, text: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _arrow(path: str, label: str = "", x: int = 0, y: int = 0) -> str:
    arrow = f'<path class="arrow" d="{path.strip()}"/>'
    return f"{arrow}\n{_text(x, y, label, 'faint', 'middle')}" if label else arrow


def _of_role(role: str, program: Program) -> list[Registration]:
    label = {"label": f"{LABEL_PREFIX}role", "value": role}
    return [one for _, one in sorted(program.containers.items()) if label in one.inputs["labels"]]


def _image(container: Registration, program: Program) -> str:
    (image,) = (name for name in container.dependencies if program.types[name].endswith(":Image"))
    return image


def _limits(container: Registration) -> Iterator[str]:
    yield f"user {container.inputs['user']}"
    yield f"read-only, {container.inputs['memory']} MiB"


def graph(program: Program) -> Iterator[str]:
    """Mermaid's lines: the resources, in the components that they are children of, and what each waits for."""
    yield "flowchart LR"
    for parent in ("", *sorted(name for name, one in program.resources.items() if not one.custom)):
        children = [one for one in program.resources.values() if one.custom and one.parent == parent]
        indent = "  "
        if parent:
            yield f'  subgraph {parent}["{parent}"]'
            indent = "    "
        for one in sorted(children, key=lambda child: child.name):
            yield f'{indent}{one.name}["{one.name}<br>{one.type.rpartition(":")[2]}"]'
        if parent:
            yield "  end"
    for name, one in sorted(program.resources.items()):
        for needed in sorted(one.dependencies - _implied(program, one.dependencies)):
            yield f"  {name} --> {needed}"


def _implied(program: Program, names: set[str]) -> set[str]:
    """What those wait for themselves."""
    further = {name for one in names for name in program[one].dependencies}
    return further | _implied(program, further) if further else further


def page(text: str, program: Program) -> str:
    """docs/architecture.md with its graph drawn anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([before + BEGIN, "", "```mermaid", *graph(program), "```", "", END]) + after


def main() -> None:
    """Draws both."""
    program = run()
    (ROOT / PICTURE).write_text(picture(program), encoding="utf-8")
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    (ROOT / PAGE).write_text(page(text, program), encoding="utf-8")


if __name__ == "__main__":
    main()
