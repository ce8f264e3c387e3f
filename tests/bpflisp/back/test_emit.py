"""Emission: far jumps, frames, relocations, lines; and what the target cannot hold is refused."""

import pytest

from bpflisp.back import BackError, compile_function
from bpflisp.ir.builder import Builder
from bpflisp.ir.parse import parse_function
from bpflisp.ir.ssa import Position, const
from bpflisp.spec.isa import JMP32, Kind, Op

LONG = 33_000


def far_jump() -> Builder:
    """A branch over more stores than 16 bits can count."""
    b = Builder("far", position=Position("f.lisp", 3, 1))
    data = b.context_load(b.params[0], 12, 4, scalar=True)
    rest, done = b.block("rest"), b.block("done")
    b.branch(Op.EQ, data, const(1), done, rest)
    b.seal(rest)
    b.start(rest)
    slot = b.slot(8)
    for number in range(LONG):
        b.store(slot, 0, 8, const(number))
    b.jump(done)
    b.seal(done)
    b.start(done)
    b.ret(const(2))
    return b


def test_a_jump_that_is_too_far_is_an_error_below_v4() -> None:
    with pytest.raises(BackError, match="too far"):
        compile_function(far_jump().finish(), "v3", opt=0)


def test_with_v4_it_goes_by_a_far_jump() -> None:
    code = compile_function(far_jump().finish(), "v4", opt=0)
    far = [insn for insn in code.insns if insn.opcode == JMP32 and insn.row.kind is Kind.JUMP]
    assert [insn.imm for insn in far] == [LONG]


def test_a_frame_over_512_bytes_is_an_error_with_its_place() -> None:
    b = Builder("big", position=Position("f.lisp", 7, 2))
    for _ in range(3):
        b.store(b.slot(200), 0, 8, const(1))
    b.ret(const(0))
    with pytest.raises(BackError, match="512 bytes, and this function needs 600") as caught:
        compile_function(b.finish(), opt=0)
    assert caught.value.position == Position("f.lisp", 7, 2)


def test_atomics_that_fetch_need_v3() -> None:
    b = Builder("fetch")
    b.ret(b.atomic(Op.ADD, b.slot(8, zeroed=True), 0, 8, const(1), fetch=True))
    function = b.finish()
    assert compile_function(function, "v3").slots
    with pytest.raises(BackError, match="needs --mcpu v3"):
        compile_function(function, "v2")


def test_an_unknown_target_is_an_error() -> None:
    with pytest.raises(ValueError, match="v1, v2, v3 and v4"):
        compile_function(parse_function("program @f(%ctx) {\nb0:\n  return 0\n}\n"), "v5")


def test_relocations_and_lines_are_at_their_slots() -> None:
    text = """
program @f(%ctx) {
b0:
  %0 = call helper 1 (map @m, data @d + 4) !3:1 'a.lisp'
  %1 = call subprogram @g (func @g, 5) !4:1 'a.lisp'
  %2 = call kfunc @k () !4:1 'a.lisp'
  return %2 !5:1 'a.lisp'
}
"""
    code = compile_function(parse_function(text))
    found = [(r.at, r.kind, r.symbol, r.addend) for r in code.relocations]
    assert found == [
        (0, "map", "m", 0), (2, "data", "d", 4), (6, "func", "g", 0), (8, "call", "g", 0), (9, "kfunc", "k", 0),
    ]  # fmt: skip
    assert [(slot, position.line) for slot, position in code.lines] == [(0, 3), (5, 4), (10, 5)]


def test_values_over_32_bits_and_addresses_far_off() -> None:
    text = """
program @f(%ctx) {
b0:
  %0 = call helper 7 ()
  %1 = load8 %0 + 0
  %2 = add %1, 81985529216486895
  %3 = add %2, 4294967295
  return %3
}
"""
    assert [insn.row.kind for insn in compile_function(parse_function(text), "v1").insns if insn.slots == 2] == [
        Kind.LOAD_IMM64,
        Kind.LOAD_IMM64,
    ]
    assert sum(insn.slots == 2 for insn in compile_function(parse_function(text), "v3").insns) == 1
