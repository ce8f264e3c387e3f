"""Control flow: compiled programs do what the reference engine does, whatever their jumps look like.

Programs are made of blocks that change registers and stack, and of jumps to any block at all: forwards and backwards,
out of loops, into loops, with exits anywhere. Most of them are nothing that a compiler writes.
"""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Op
from simulator.outcome import Outcome
from tests.simulator.assembly import (
    EXIT,
    branch,
    branch_reg,
    call_function,
    copy,
    imm,
    jump,
    load,
    mov,
    program,
    reg,
    store,
    store_imm,
)
from tests.simulator.engines.both import agreed, both

REGISTERS = st.sampled_from([0, 2, 3, 6, 7])
OPS = st.sampled_from([Op.ADD, Op.SUB, Op.MUL, Op.XOR, Op.AND, Op.OR, Op.RSH, Op.LSH, Op.ARSH, Op.DIV, Op.MOD])
WIDTHS = st.sampled_from([64, 64, 32])
SMALL = st.integers(-4, 9)
SLOTS = st.sampled_from([(8, -8), (8, -16), (4, -8), (4, -20), (1, -24), (2, -30), (8, -40)])
COMPARISONS = st.sampled_from([Op.EQ, Op.NE, Op.GT, Op.GE, Op.LT, Op.LE, Op.SGT, Op.SLT, Op.SGE, Op.SLE, Op.SET])

STRAIGHT = st.one_of(
    st.builds(imm, OPS, REGISTERS, SMALL, WIDTHS),
    st.builds(reg, OPS, REGISTERS, REGISTERS, WIDTHS),
    st.builds(mov, REGISTERS, SMALL),
    st.builds(copy, REGISTERS, REGISTERS),
    st.builds(lambda slot, src: store(slot[0], 10, slot[1], src), SLOTS, REGISTERS),
    st.builds(lambda slot, value: store_imm(slot[0], 10, slot[1], value), SLOTS, SMALL),
    st.builds(lambda slot, dst, signed: load(slot[0], dst, 10, slot[1], signed and slot[0] < 8), SLOTS, REGISTERS,
              st.booleans()),
    st.builds(lambda dst: load(1, dst, 1, 3), REGISTERS),
    st.builds(lambda dst: load(8, dst, 1, 0), REGISTERS),
)  # fmt: skip


@st.composite
def flows(draw: st.DrawFn) -> list[Insn]:
    """Blocks, each of a few instructions and a way to go on, to any block."""
    count = draw(st.integers(1, 9))
    blocks = [draw(st.lists(STRAIGHT, max_size=4)) for _ in range(count)]
    ends = [draw(st.sampled_from(["fall", "fall", "jump", "branch", "branch", "branch", "exit"])) for _ in range(count)]
    sizes = [len(block) + (end != "fall") for block, end in zip(blocks, ends, strict=True)]
    starts = [sum(sizes[:index]) for index in range(count + 1)]
    code: list[Insn] = []
    for block, end in zip(blocks, ends, strict=True):
        code += block
        distance = starts[draw(st.integers(0, count))] - len(code) - 1
        if end == "jump":
            code.append(jump(distance))
        elif end == "exit":
            code.append(EXIT)
        elif end == "branch" and draw(st.booleans()):
            code.append(branch(draw(COMPARISONS), draw(REGISTERS), draw(SMALL), distance, draw(WIDTHS)))
        elif end == "branch":
            code.append(branch_reg(draw(COMPARISONS), draw(REGISTERS), draw(REGISTERS), distance, draw(WIDTHS)))
    return [*code, EXIT]


def assert_counts_alike(reference: Outcome, native: list[Outcome]) -> None:
    """The native engine counts instructions as the reference engine does, and stops where that does."""
    for outcome in native:
        assert (outcome.fault, outcome.r0) == (reference.fault, reference.r0)
        assert outcome.insns_executed == reference.insns_executed


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(flows(), st.binary(min_size=16, max_size=16))
def test_any_flow(code: list[Insn], memory: bytes) -> None:
    reference, python, *native = both(program(code), {"memory": memory}, fuel=400)
    assert_counts_alike(reference, native)
    if reference.fault is not None and reference.fault.kind == "fuel":
        return  # The python engine counts turns of loops: it may still come to an end.
    assert python.fault == reference.fault
    assert python.r0 == reference.r0


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(flows(), flows(), st.binary(min_size=16, max_size=16))
def test_functions(caller: list[Insn], callee: list[Insn], memory: bytes) -> None:
    """The callee has r1 to r5 and its own frame; the caller's other registers survive."""
    code = [copy(6, 1), mov(7, 3), call_function(4), copy(1, 6), reg(Op.ADD, 0, 7), copy(2, 0), EXIT]
    reference, python, *native = both(program([*code, *callee]), {"memory": memory}, fuel=400)
    assert_counts_alike(reference, native)
    if reference.fault is None or reference.fault.kind != "fuel":
        assert python.fault == reference.fault
        assert python.r0 == reference.r0


def test_nested_loops() -> None:
    """for i in 5: for j in i: sum += i * j, leaving both loops above 30."""
    code = [
        mov(0, 0), mov(2, 0),
        mov(3, 0),
        copy(4, 2), reg(Op.MUL, 4, 3), reg(Op.ADD, 0, 4), branch(Op.GT, 0, 30, 6),
        imm(Op.ADD, 3, 1), branch_reg(Op.LE, 3, 2, -6),
        imm(Op.ADD, 2, 1), branch(Op.LT, 2, 5, -9),
        EXIT,
        jump(0), imm(Op.ADD, 0, 1000), EXIT,
    ]  # fmt: skip
    assert agreed(program(code)).r0 == 1037


def test_a_loop_with_two_entries() -> None:
    code = [
        load(1, 2, 1), mov(0, 0), branch(Op.SET, 2, 1, 1),
        imm(Op.ADD, 0, 1),
        imm(Op.ADD, 0, 10), imm(Op.SUB, 2, 1), branch(Op.SGT, 2, 0, -4),
        EXIT,
    ]  # fmt: skip
    for turns in range(8):
        agreed(program(code), {"memory": bytes([turns])})


def test_a_long_program_with_many_joins() -> None:
    """Two hundred ifs that meet again two blocks later: more than may be written twice, deeper than may be nested."""
    code: list[Insn] = [load(8, 2, 1), mov(0, 0)]
    for index in range(200):
        code += [copy(3, 2), imm(Op.RSH, 3, index % 60), branch(Op.SET, 3, 1, 3)]
        code += [imm(Op.ADD, 0, index), branch(Op.SET, 0, 2, 3), jump(1), imm(Op.XOR, 0, 77), imm(Op.MUL, 0, 3)]
    code.append(EXIT)
    for word in (0, (1 << 64) - 1, 0x123456789ABCDEF0):
        agreed(program(code), {"memory": word.to_bytes(8, "little")})


def test_a_load_is_not_moved_behind_a_store() -> None:
    code = [load(8, 0, 10, -8), store(8, 10, -8, 2), EXIT]
    assert agreed(program(code), {"memory": bytes(16)}).r0 == 0
    code = [load(8, 0, 10, -8), imm(Op.ADD, 0, 1), store(8, 10, -8, 2), EXIT]
    assert agreed(program(code), {"memory": bytes(16)}).r0 == 1
