"""Runs one after the other in one world, on engines and inputs that change: each is as if it were the only one."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Op
from simulator.outcome import Outcome
from simulator.packet import InputRefused
from simulator.program import MapDef, Program
from simulator.run import run
from simulator.world import World
from tests.engines import HERE
from tests.simulator.assembly import (
    EXIT,
    branch,
    branch_reg,
    call,
    copy,
    imm,
    load,
    map_of,
    mov,
    program,
    reg,
    store,
    store_imm,
)

SEEN = MapDef("seen", "hash", 8, 8, 64)
_HEAD = [load(4, 2, 1, 0), load(4, 3, 1, 4), copy(4, 2), imm(Op.ADD, 4, 14)]
_LOOKUP = [copy(2, 10), imm(Op.ADD, 2, -8), map_of(1, 0), call(1)]


def _reader(written: bool) -> list[Insn]:
    """Looks the first bytes up, with a key that is whole or of which a half is what the stack has."""
    key = [store(4, 10, -8, 6)] + ([store_imm(4, 10, -4, 0)] if written else [])
    return [
        *_HEAD, mov(0, 1), branch_reg(Op.GT, 4, 3, 10 + len(key)), load(4, 6, 2, 0), *key, *_LOOKUP, mov(7, 9),
        branch(Op.EQ, 0, 0, 1), load(8, 7, 0, 0), copy(0, 7), EXIT,
    ]  # fmt: skip


PROGRAMS = [
    program(_reader(written=True), "xdp", (SEEN,), name="reader"),
    program(_reader(written=False), "xdp", (SEEN,), name="half"),
    program(
        [*_HEAD, mov(0, 1), branch_reg(Op.GT, 4, 3, 4), load(1, 5, 2, 3), imm(Op.ADD, 5, 1), store(1, 2, 3, 5),
         mov(0, 2), EXIT], "xdp", name="writer",
    ),
    program(
        [load(4, 0, 1, 12), store_imm(4, 1, 12, 7), load(4, 2, 1, 12), reg(Op.ADD, 0, 2), EXIT], "xdp", name="field"
    ),
    program([load(4, 2, 1, 0), load(8, 0, 2, 60), EXIT], "xdp", name="beyond"),
    program([store_imm(8, 10, -8, 77), mov(0, 5), EXIT], "xdp", name="leaves"),
]  # fmt: skip

STEPS = st.lists(
    st.tuples(
        st.sampled_from(PROGRAMS),
        st.sampled_from([14, 20, 64, 65, 100]),
        st.integers(0, 255),
        st.sampled_from(["python"] * 6 + ["reference", "native"]),
        st.sampled_from([None, None, None, {"data": 8}, {"rx_queue_index": 3, "ingress_ifindex": 1}]),
    ),
    min_size=3,
    max_size=25,
)


def _world() -> World:
    world = World([SEEN])
    for first in range(0, 256, 3):
        if len(world.maps.seen) < SEEN.max_entries:
            world.maps.seen[bytes([first] * 4 + [0] * 4)] = first + 100
    return world


def _told(program: Program, packet: bytes, world: World, engine: str, context: Any) -> Outcome | str:
    try:
        found = run(program, packet, world, engine, context=context) if context else run(program, packet, world, engine)
    except InputRefused as refused:
        return str(refused)
    found.insns_executed = 0
    return found


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_a_run_knows_nothing_of_the_one_before(steps: list[Any]) -> None:
    world = _world()
    for made, size, byte, engine, context in steps:
        packet = bytes([byte] * size)
        wanted = _told(made, packet, _world(), "reference", context)
        assert _told(made, packet, world, engine if engine in HERE else "python", context) == wanted
        assert _told(made, packet, world, "python", None) == _told(made, packet, _world(), "reference", None)
