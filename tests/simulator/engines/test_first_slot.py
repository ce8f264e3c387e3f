"""The slot where a program begins is not always in the first frame: it may be a function, or the end of a tail call."""

from __future__ import annotations

import pytest

from bpflisp.spec.isa import Op
from simulator.program import MapDef
from simulator.world import World
from tests.simulator.assembly import (
    EXIT,
    branch,
    call,
    call_function,
    copy,
    function,
    imm,
    load,
    map_of,
    mov,
    program,
    reg,
    store,
    store_imm,
    value_of,
)
from tests.simulator.engines.both import agreed

PACKET = bytes(64)
COUNT = MapDef("count", "array", 4, 8, 1)
JUMPS = MapDef("jumps", "prog_array", 4, 4, 2)
LOOP, TAIL_CALL = 181, 12
_KEPT = [copy(2, 10), imm(Op.ADD, 2, -8), value_of(3, 0), store(8, 3, 0, 2)]
"""Keeps the address of a slot of the stack, so that the slot is memory."""


@pytest.mark.parametrize("memory", [False, True])
def test_a_program_that_calls_itself(memory: bool) -> None:
    """Each frame begins with zeros and keeps its own count."""
    head = [value_of(7, 0), load(8, 1, 7), imm(Op.ADD, 1, 1), store(8, 7, 0, 1)]
    kept = [copy(2, 10), imm(Op.ADD, 2, -8), store(8, 10, -16, 2)] if memory else []
    body = [load(8, 3, 10, -8), store(8, 10, -8, 1), reg(Op.ADD, 1, 3), branch(Op.GE, 1, 3, 3)]
    rest = [mov(1, 0), call_function(0), load(8, 4, 10, -8), reg(Op.ADD, 0, 4), EXIT, mov(0, 100), EXIT]
    code = [*head, *kept, *body, *rest]
    at = len(head) + 1 + len(kept) + len(body) + 1  # value_of takes two slots
    code[len(head) + len(kept) + len(body) - 1] = branch(Op.GE, 1, 3, 5)
    code[len(head) + len(kept) + len(body) + 1] = call_function(-at - 1)
    assert agreed(program(code, "xdp", (COUNT,)), PACKET).r0 == 100 + 2 + 1


def test_a_program_that_is_its_own_callback() -> None:
    """The loop's index comes in r1, not the context."""
    code = [
        branch(Op.LE, 1, 9, 8), mov(1, 3), function(2, -3), mov(3, 0), mov(4, 0), call(LOOP),
        imm(Op.ADD, 0, 50), EXIT, value_of(2, 0), load(8, 3, 2), reg(Op.ADD, 3, 1), store(8, 2, 0, 3), mov(0, 0), EXIT,
    ]  # fmt: skip
    world = World([COUNT])
    assert agreed(program(code, "xdp", (COUNT,)), PACKET, world=world).r0 == 53


@pytest.mark.parametrize("kept", [False, True])
def test_a_tail_call_out_of_a_function_leaves_the_caller_s_frame(kept: bool) -> None:
    """The other program has the function's frame, and what the first has on its stack stays."""
    keep = _KEPT if kept else []
    target = program([store_imm(8, 10, -8, 99), *keep, load(8, 0, 10, -8), EXIT], "xdp", (COUNT,), name="target")
    body = [store_imm(8, 10, -8, 5), *keep, call_function(3), load(8, 3, 10, -8), reg(Op.ADD, 0, 3), EXIT]
    code = [*body, map_of(2, 1), mov(3, 0), call(TAIL_CALL), mov(0, 7), EXIT]
    world = World([COUNT, JUMPS])
    world.maps.jumps[0] = target
    assert agreed(program(code, "xdp", (COUNT, JUMPS)), PACKET, world=world).r0 == 104


def test_a_call_of_what_is_before_the_first_slot() -> None:
    """There is no instruction: a fault, as at a jump there."""
    fault = agreed(program([mov(0, 1), call_function(-5), EXIT], "xdp"), PACKET).fault
    assert fault is not None
    assert fault.kind == "jump"
