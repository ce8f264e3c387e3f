"""A function's control flow laid out in rows: where each block and each jump is to be drawn.

Blocks stand as deep as the longest way to them; a jump over several rows has a place in each of them, so that it passes
between the blocks. Jumps backwards go round the right side. No foreign program draws: numbers in, numbers out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Node = tuple[int, int]
"""A block's slot and 0; or a place that a jump passes: minus the number of the jump less 1, and its row."""

_SWEEPS = 6


@dataclass(frozen=True, slots=True)
class Jump:
    """From a block to one that may follow; `taken` is None where it is the only one."""

    start: int
    to: int
    taken: bool | None = None


@dataclass(slots=True)
class Placed:
    """A layout. `boxes` has for each block its left, top, width and height; `paths` the points that a jump passes."""

    width: float = 0
    height: float = 0
    boxes: dict[int, tuple[float, float, float, float]] = field(default_factory=dict)
    paths: dict[Jump, list[tuple[float, float]]] = field(default_factory=dict)
    back: set[Jump] = field(default_factory=set)
    """The jumps that go backwards."""


@dataclass(frozen=True, slots=True)
class Gaps:
    """Distances between what is drawn."""

    row: float = 44
    column: float = 28
    lane: float = 14
    margin: float = 16


def place(
    start: int, sizes: Mapping[int, tuple[float, float]], jumps: Sequence[Jump], gaps: Gaps | None = None
) -> Placed:
    """Lays out the blocks (slot -> width and height) that are reached from `start`."""
    gaps = gaps or Gaps()
    back = _backward(start, jumps)
    depth = _depths(start, sizes, [jump for jump in jumps if jump not in back])
    forward = [jump for jump in jumps if jump not in back]
    rows, ways = _rows(depth, forward)
    _order(rows, ways)
    placed = Placed(back=back)
    spans = _place_rows(placed, rows, sizes, gaps)
    for jump, way in zip(forward, ways, strict=True):
        placed.paths[jump] = [point for node in way for point in spans[node]]
    _finish_forward(placed)
    _place_back(placed, sorted(back, key=lambda jump: (jump.to, jump.start)), gaps)
    return placed


def _backward(start: int, jumps: Sequence[Jump]) -> set[Jump]:
    """The jumps to a block on the way to which they are: found by walking depth first, without recursion."""
    following: dict[int, list[Jump]] = {}
    for jump in jumps:
        following.setdefault(jump.start, []).append(jump)
    back, state = set[Jump](), {start: 1}
    stack = [(start, iter(following.get(start, ())))]
    while stack:
        at, rest = stack[-1]
        onward = next(rest, None)
        if onward is None:
            state[at] = 2
            stack.pop()
        elif state.get(onward.to) == 1:
            back.add(onward)
        elif onward.to not in state:
            state[onward.to] = 1
            stack.append((onward.to, iter(following.get(onward.to, ()))))
    return back


def _depths(start: int, sizes: Mapping[int, tuple[float, float]], forward: Sequence[Jump]) -> dict[int, int]:
    depth = dict.fromkeys(sizes, 0)
    for _ in sizes:
        changed = False
        for jump in forward:
            if depth[jump.to] < depth[jump.start] + 1:
                depth[jump.to], changed = depth[jump.start] + 1, True
        if not changed:
            break
    return depth


def _rows(depth: Mapping[int, int], forward: Sequence[Jump]) -> tuple[list[list[Node]], list[list[Node]]]:
    """What stands in each row, and for each jump the nodes on its way."""
    rows: list[list[Node]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for slot in sorted(depth):
        rows[depth[slot]].append((slot, 0))
    ways = []
    for number, jump in enumerate(forward):
        passed = [(-number - 1, row) for row in range(depth[jump.start] + 1, depth[jump.to])]
        for node in passed:
            rows[node[1]].append(node)
        ways.append([(jump.start, 0), *passed, (jump.to, 0)])
    return rows, ways


def _order(rows: list[list[Node]], ways: Sequence[Sequence[Node]]) -> None:
    """Orders each row by the middle of its neighbours, down and up a few times, so that fewer lines cross."""
    above: dict[Node, list[Node]] = {}
    below: dict[Node, list[Node]] = {}
    for way in ways:
        for upper, lower in pairwise(way):
            above.setdefault(lower, []).append(upper)
            below.setdefault(upper, []).append(lower)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        order = range(1, len(rows)) if down else range(len(rows) - 2, -1, -1)
        for row in order:
            other = rows[row - 1] if down else rows[row + 1]
            position = {node: at for at, node in enumerate(other)}
            near = above if down else below
            own = {node: at for at, node in enumerate(rows[row])}
            rows[row].sort(key=lambda node: _middle(node, near, position, own))


def _middle(
    node: Node, near: Mapping[Node, Sequence[Node]], position: Mapping[Node, int], own: Mapping[Node, int]
) -> float:
    places = [position[other] for other in near.get(node, ()) if other in position]
    return sum(places) / len(places) if places else own[node]


def _place_rows(
    placed: Placed, rows: Sequence[Sequence[Node]], sizes: Mapping[int, tuple[float, float]], gaps: Gaps
) -> dict[Node, list[tuple[float, float]]]:
    """Sets the boxes row by row, each row centred. The points of each node: where a line goes through, two."""

    def width(node: Node) -> float:
        return gaps.lane if node[0] < 0 else sizes[node[0]][0]

    widths = [sum(map(width, row)) + gaps.column * max(0, len(row) - 1) for row in rows]
    placed.width = max(widths, default=0) + 2 * gaps.margin
    spans, top = dict[Node, list[tuple[float, float]]](), gaps.margin
    for row, total in zip(rows, widths, strict=True):
        tall = max((sizes[node[0]][1] for node in row if node[0] >= 0), default=0)
        left = (placed.width - total) / 2
        for node in row:
            x = left + width(node) / 2
            spans[node] = [(x, top)] if node[0] >= 0 else [(x, top), (x, top + tall)]
            if node[0] >= 0:
                placed.boxes[node[0]] = left, top, *sizes[node[0]]
            left += width(node) + gaps.column
        top += tall + gaps.row
    placed.height = top - gaps.row + gaps.margin
    return spans


def _finish_forward(placed: Placed) -> None:
    """Lets lines start at the lower edge of a box, of two the one that goes further left at the left."""
    leaving: dict[int, list[tuple[float, Jump]]] = {}
    for jump, path in placed.paths.items():
        leaving.setdefault(jump.start, []).append((path[1][0], jump))
    for start, jumps in leaving.items():
        left, top, wide, high = placed.boxes[start]
        jumps.sort(key=lambda leaves: (leaves[0], not leaves[1].taken))
        for number, (_, jump) in enumerate(jumps):
            shift = 0.5 if len(jumps) == 1 else 0.3 + 0.4 * number
            placed.paths[jump][0] = left + wide * shift, top + high


def _place_back(placed: Placed, back: Sequence[Jump], gaps: Gaps) -> None:
    """Leads jumps backwards round the right side, each in a lane of its own."""
    for number, jump in enumerate(back):
        lane = placed.width + number * gaps.lane
        left, top, wide, high = placed.boxes[jump.start]
        to_left, to_top, to_wide, _ = placed.boxes[jump.to]
        out, into = left + wide * (0.85 if jump.taken else 0.9), to_left + to_wide * 0.8
        below, above = top + high + gaps.row / 3, to_top - gaps.row / 3
        placed.paths[jump] = [
            (out, top + high),
            (out, below),
            (lane, below),
            (lane, above),
            (into, above),
            (into, to_top),
        ]
    if back:
        placed.width += len(back) * gaps.lane
