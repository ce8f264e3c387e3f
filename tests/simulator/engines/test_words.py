"""Words of map values, which compiled code finds by pages of words: the same as by any other way."""

from __future__ import annotations

import pytest

from bpflisp.spec.isa import Op
from simulator.program import MapDef
from simulator.run import run
from simulator.world import World
from tests.engines import HERE
from tests.simulator.assembly import EXIT, atomic, branch, call, copy, imm, map_of, mov, program, store_imm
from tests.simulator.engines.both import compiled_world


@pytest.mark.parametrize("start", [0, 65520, 65528, 65532])
@pytest.mark.parametrize("offsets", [(0, 8), (8, 0), (0, 0), (0, 8, 16), (16, 8, 0), (8, 16, 0)])
@pytest.mark.parametrize("between", ["nothing", "moves", "moves the base", "another value", "a call"])
def test_additions_to_words_of_one_value(start: int, offsets: tuple[int, ...], between: str) -> None:
    """Next to each other in a value of two pages, and with all that may come between them."""
    large, other = MapDef("large", "array", 4, 1 << 17, 1), MapDef("other", "array", 4, 64, 1)
    start -= start % 8
    lookup = [store_imm(4, 10, -4, 0), copy(2, 10), imm(Op.ADD, 2, -4)]
    code = [*lookup, map_of(1, 1), call(1), branch(Op.NE, 0, 0, 1), EXIT, copy(9, 0)]
    code += [*lookup, map_of(1, 0), call(1), branch(Op.NE, 0, 0, 1), EXIT, imm(Op.ADD, 0, start), copy(7, 0), mov(6, 3)]
    for number, off in enumerate(offsets):
        code += [atomic(8, 0, 7, off, 6)]
        if between == "moves":
            code += [imm(Op.MUL, 6, 5), copy(8, 6)]
        elif between == "moves the base" and number == 0:
            code += [imm(Op.ADD, 7, 8)]
        elif between == "another value":
            code += [atomic(8, 0, 9, 0, 6)]
        elif between == "a call":
            code += [call(8), imm(Op.ADD, 6, 1)]
    code += [mov(0, 0), EXIT]
    made, worlds = program(code, "xdp", (large, other)), {name: World() for name in HERE}
    compiled_world(worlds["python"], made)
    left = []
    for engine, world in worlds.items():
        assert run(made, bytes(64), world, engine).fault is None
        left.append([world.maps[name].lookup(bytes(4)) for name in ("large", "other")])
    assert left[1:] == left[:1] * (len(left) - 1)
    assert any(left[0][0] or b"")
