"""Control-flow graphs of programs as SVG, plain or coloured by how often each block and jump ran."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from math import log

from bpflisp.spec.isa import Kind
from simulator.engines.source.blocks import Block, blocks_of, function_starts
from simulator.flowgraph import Gaps, Jump, Placed, place
from simulator.program import Program
from simulator.results import insn_line

_LINE, _CHARACTER, _PADDING, _MOST = 14.0, 6.7, 8.0, 56
_STYLE = """
text{font:11px ui-monospace,Menlo,Consolas,monospace;fill:#1a1a1a}
.head{font-weight:bold;font-size:13px}.slot{fill:#777}.count{fill:#444;font-size:10px}
.edge{fill:none;stroke:#555;stroke-width:1.3}.taken{stroke:#2a6}.fallen{stroke:#36c}
.never{stroke:#c33;stroke-dasharray:4 3}rect{stroke:#555}rect.never{stroke:#c33;stroke-dasharray:none}
"""
_PLAIN, _NEVER = "#f4f4f4", "#fbdcdc"


def flow_svg(
    program: Program,
    *,
    executed: Sequence[int] | None = None,
    outcomes: Sequence[int] | None = None,
    functions: Mapping[int, str] | None = None,
) -> str:
    """The control-flow graph of every function of a program, one below the other, as an SVG document.

    `executed` has the count of each slot and colours the blocks; `outcomes` at 2 * slot how often a branch fell
    through and after that how often it was taken: of the class `simulator.coverage.ProgramCoverage`. `functions` names
    slots where functions start.
    """
    parts: list[str] = []
    width, top = 0.0, 0.0
    most = max(executed, default=0) if executed is not None else 0
    for start in function_starts(program.code):
        drawing = _Function(program, start, executed, outcomes, most)
        name = (functions or {}).get(start) or (program.name or program.type if not start else f"function at {start}")
        parts.append(f'<g transform="translate(0,{top:g})">')
        parts.append(f'<text class="head" x="16" y="20">{escape(name)}</text><g transform="translate(0,24)">')
        parts += drawing.lines()
        parts.append("</g></g>")
        width = max(width, drawing.placed.width, 32 + 8 * len(name))
        top += drawing.placed.height + 32
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{top:g}" viewBox="0 0 {width:g} {top:g}">'
        f"<title>{escape(program.name or program.type)}</title><style>{_STYLE}</style>"
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#555"/></marker></defs>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


class _Function:
    """One function's drawing."""

    def __init__(
        self, program: Program, start: int, executed: Sequence[int] | None, outcomes: Sequence[int] | None, most: int
    ) -> None:
        self._program, self._executed, self._outcomes, self._most = program, executed, outcomes, most
        self._blocks = blocks_of(program.code, start)
        self._texts = {at: list(_texts(program, block)) for at, block in self._blocks.items()}
        self._jumps = [jump for block in self._blocks.values() for jump in _jumps(block)]
        sizes = {at: _size(texts, executed is not None) for at, texts in self._texts.items()}
        self.placed: Placed = place(start, sizes, self._jumps, Gaps())

    def lines(self) -> Iterator[str]:
        """The elements: jumps below, blocks above them."""
        for jump in self._jumps:
            yield from self._edge(jump)
        for at in self._blocks:
            yield from self._box(at)

    def _box(self, at: int) -> Iterator[str]:
        left, top, wide, high = self.placed.boxes[at]
        count = self._count(at)
        kind = ' class="never"' if count == 0 else ""
        yield (
            f'<rect{kind} x="{left:g}" y="{top:g}" width="{wide:g}" height="{high:g}" rx="3" '
            f'fill="{self._colour(count)}"/>'
        )
        y = top + _PADDING + 9
        if count is not None:
            ran = f"ran {count} {'time' if count == 1 else 'times'}"
            yield f'<text class="count" x="{left + _PADDING:g}" y="{y:g}">{ran}</text>'
            y += _LINE
        for slot, text in self._texts[at]:
            yield (
                f'<text x="{left + _PADDING:g}" y="{y:g}" xml:space="preserve">'
                f'<tspan class="slot">{slot:4} </tspan>{escape(text)}</text>'
            )
            y += _LINE

    def _edge(self, jump: Jump) -> Iterator[str]:
        points = self.placed.paths[jump]
        count = self._passes(jump)
        kind = "never" if count == 0 else "" if jump.taken is None else "taken" if jump.taken else "fallen"
        path = _straight(points) if jump in self.placed.back else _curve(points)
        yield f'<path class="edge {kind}" d="{path}" marker-end="url(#end)"/>'
        if jump.taken is not None:
            x, y = points[0]
            label = "yes" if jump.taken else "no"
            text = label if count is None else f"{label} {count}"
            left, _, wide, _ = self.placed.boxes[jump.start]
            beside, anchor = (-4, "end") if x < left + wide / 2 else (4, "start")
            yield f'<text class="count" x="{x + beside:g}" y="{y + 12:g}" text-anchor="{anchor}">{text}</text>'

    def _count(self, at: int) -> int | None:
        if self._executed is None:
            return None
        return self._executed[at] if at < len(self._executed) else 0

    def _passes(self, jump: Jump) -> int | None:
        last = self._blocks[jump.start].insns[-1][0]
        if jump.taken is None or self._outcomes is None:
            return None if self._executed is None else self._executed[last]
        return self._outcomes[2 * last + jump.taken]

    def _colour(self, count: int | None) -> str:
        """From a pale green to a full one by the logarithm of the count; another colour for what never ran."""
        if count is None:
            return _PLAIN
        if not count:
            return _NEVER
        share = log(count + 1) / log(self._most + 1)
        return f"hsl(130,45%,{93 - 30 * share:.0f}%)"


def _texts(program: Program, block: Block) -> Iterator[tuple[int, str]]:
    if block.bad:
        yield block.start, "no instruction"
    for slot, _ in block.insns:
        text = insn_line(program, slot)
        yield slot, text if len(text) <= _MOST else text[: _MOST - 1] + "…"


def _jumps(block: Block) -> Iterator[Jump]:
    last = block.last
    if last is not None and last[1].row.kind in (Kind.BRANCH, Kind.MAY_GOTO) and len(block.next) == 2:
        yield Jump(block.start, block.next[0], True)
        yield Jump(block.start, block.next[1], False)
        return
    yield from (Jump(block.start, to) for to in block.next)


def _size(texts: Sequence[tuple[int, str]], counted: bool) -> tuple[float, float]:
    wide = max((len(text) for _, text in texts), default=10) + 5
    return wide * _CHARACTER + 2 * _PADDING, (len(texts) + counted) * _LINE + 2 * _PADDING - 3


def _straight(points: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{x:g},{y:g}" for x, y in points)


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """Curves that leave and reach every point vertically."""
    text = f"M{points[0][0]:g},{points[0][1]:g}"
    for (x, y), (to_x, to_y) in pairwise(points):
        half = (y + to_y) / 2
        text += f" C{x:g},{half:g} {to_x:g},{half:g} {to_x:g},{to_y:g}"
    return text
