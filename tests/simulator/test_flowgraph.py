"""Layout of control flow: nothing overlaps, every jump is drawn, lines pass between the blocks."""

from __future__ import annotations

from itertools import combinations
from xml.etree import ElementTree as Xml

import pytest

from simulator import Program, flow_svg, load
from simulator.flowgraph import Jump, place
from tests.agreement.fixtures import all_fixtures
from tests.agreement.plausible import draft
from tests.plugin.objects import RETURNS_2, xdp

_PROGRAMS = [program for found in all_fixtures() for program in load(found.twin).values()]
_DRAWN = [draft(seed).program() for seed in range(30)]


def test_a_loop_goes_round_the_right_side() -> None:
    placed = place(0, dict.fromkeys((0, 4, 9), (100, 30)), [Jump(0, 4), Jump(4, 4, True), Jump(4, 9, False)])
    assert placed.back == {Jump(4, 4, True)}
    right = max(left + wide for left, _, wide, _ in placed.boxes.values())
    assert max(x for x, _ in placed.paths[Jump(4, 4, True)]) > right
    tops = [placed.boxes[slot][1] for slot in (0, 4, 9)]
    assert tops == sorted(tops)


def test_a_long_jump_passes_beside_the_blocks_between() -> None:
    jumps = [Jump(0, 2, False), Jump(0, 9, True), Jump(2, 4), Jump(4, 9)]
    placed = place(0, dict.fromkeys((0, 2, 4, 9), (100, 30)), jumps)
    for x, y in placed.paths[Jump(0, 9, True)][1:-1]:
        for left, top, wide, high in placed.boxes.values():
            assert not (left < x < left + wide and top < y < top + high)


@pytest.mark.parametrize("program", [*_PROGRAMS, *_DRAWN], ids=lambda program: program.name)
def test_every_program_is_drawn_whole(program: Program) -> None:
    graph = Xml.fromstring(flow_svg(program))
    boxes = []
    for group in (element for element in graph if element.get("transform")):
        own = [box for box in group.iter() if box.tag.endswith("rect")]
        boxes += own
        places = [tuple(float(box.get(name, "")) for name in ("x", "y", "width", "height")) for box in own]
        for (x, y, wide, high), (u, v, broad, tall) in combinations(places, 2):
            assert x + wide <= u or u + broad <= x or y + high <= v or v + tall <= y
    assert boxes


def test_counts_colour_blocks_and_jumps() -> None:
    program = xdp(f"b700000001000000 5500010001000000 {RETURNS_2}")
    graph = flow_svg(program, executed=[3, 3, 3, 3], outcomes=[0, 0, 3, 0, 0, 0, 0, 0])
    assert "ran 3 times" in graph
    assert graph.count('class="edge never"') == 1
    assert "no 3" in graph
