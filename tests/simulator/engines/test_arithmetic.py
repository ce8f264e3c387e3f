"""Every arithmetic instruction and comparison, on boundary values, against `bpflisp.spec.alu`."""

from __future__ import annotations

import itertools
import struct

import pytest

from bpflisp.spec.alu import M32, M64, byte_order, compare, compute, signed
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import ALU_ROWS, ATOMIC_ROWS, LOAD_ACQUIRE_IMM, PLAIN_ROWS, STORE_RELEASE_IMM, Kind, Op, Row
from simulator.engines.engine import Options
from simulator.packet import Input
from simulator.run import engine_named
from simulator.world import World
from tests.engines import as_parameters
from tests.simulator.assembly import EXIT, atomic, load, mov, program, store
from tests.simulator.engines.both import compiled_world

BOUNDARIES = sorted(
    {0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, M32, M32 + 1}
    | {(1 << 63) - 1, 1 << 63, (1 << 63) + 1, M64 - 1, M64, 0x123456789ABCDEF0, 0xFEDCBA9876543210}
)
PAIRS = list(itertools.product(BOUNDARIES, BOUNDARIES))
IMMEDIATES = (0, 1, 2, 31, 32, 63, 127, 0x7FFFFFFF, -1, -2, -0x80000000)


def results(code: list[Insn], pairs: list[tuple[int, int]], engine: str) -> list[int]:
    """r0 for each pair, given in r6 and r7. Both come from memory, so that nothing is known of them."""
    made = program([load(8, 6, 1), load(8, 7, 1, 8), *code, EXIT])
    world = compiled_world(World(), made)
    found, runner = [], engine_named(engine)
    for a, b in pairs:
        outcome = runner.run(made, Input(None, {"memory": struct.pack("<QQ", a, b)}), world, Options())
        assert outcome.fault is None, outcome.fault
        found.append(outcome.r0)
    return found


ALU = [row for row in ALU_ROWS.values() if row.kind is Kind.ALU]
OFFSETS = {Op.SDIV: 1, Op.SMOD: 1, Op.MOVSX8: 8, Op.MOVSX16: 16, Op.MOVSX32: 32}


@pytest.mark.parametrize("engine", as_parameters())
@pytest.mark.parametrize("row", [row for row in ALU if row.reg], ids=lambda row: f"{row.op}{row.width}")
def test_arithmetic_by_register(row: Row, engine: str) -> None:
    pairs = PAIRS if engine == "python" else PAIRS[::7]
    code = [Insn(row.opcode, 6, 7, OFFSETS.get(row.op, 0)), Insn(0xBF, 0, 6)]
    assert results(code, pairs, engine) == [compute(row.op, row.width, a, b) for a, b in pairs]


@pytest.mark.parametrize("row", [row for row in ALU if not row.reg], ids=lambda row: f"{row.op}{row.width}")
def test_arithmetic_by_number(row: Row) -> None:
    for number in IMMEDIATES:
        code = [Insn(row.opcode, 6, 0, OFFSETS.get(row.op, 0), number), Insn(0xBF, 0, 6)]
        pairs = [(a, 0) for a in BOUNDARIES]
        expected = [compute(row.op, row.width, a, number & M64) for a in BOUNDARIES]
        assert results(code, pairs, "python") == expected, number


@pytest.mark.parametrize("opcode", [0x87, 0x84])
def test_negation(opcode: int) -> None:
    pairs = [(a, 0) for a in BOUNDARIES]
    width = 64 if opcode == 0x87 else 32
    expected = [compute(Op.NEG, width, a, 0) for a in BOUNDARIES]
    assert results([Insn(opcode, 6), Insn(0xBF, 0, 6)], pairs, "python") == expected


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize(("opcode", "op"), [(0xD4, Op.TO_LE), (0xDC, Op.TO_BE), (0xD7, Op.SWAP)])
def test_byte_order(opcode: int, op: Op, bits: int) -> None:
    pairs = [(a, 0) for a in BOUNDARIES]
    expected = [byte_order(op, bits, a) for a in BOUNDARIES]
    assert results([Insn(opcode, 6, imm=bits), Insn(0xBF, 0, 6)], pairs, "python") == expected


BRANCHES = [row for row in PLAIN_ROWS.values() if row.kind is Kind.BRANCH]


@pytest.mark.parametrize("row", BRANCHES, ids=lambda row: f"{row.op}{row.width}{'r' if row.reg else 'k'}")
def test_branches(row: Row) -> None:
    for number in (0,) if row.reg else IMMEDIATES:
        code = [mov(0, 1), Insn(row.opcode, 6, 7 if row.reg else 0, 1, 0 if row.reg else number), mov(0, 0)]
        pairs = PAIRS if row.reg else [(a, 0) for a in BOUNDARIES]
        expected = [int(compare(row.op, row.width, a, b if row.reg else number & M64)) for a, b in pairs]
        assert results(code, pairs, "python") == expected, number


def atomic_name(row: Row) -> str:
    return f"{row.op}{row.width}{'-fetch' if row.fetch else ''}"


@pytest.mark.parametrize("row", [row for row in ATOMIC_ROWS.values() if row.kind is Kind.ATOMIC], ids=atomic_name)
def test_atomics(row: Row) -> None:
    """The word at r10 - 8 is `a`, the register `b`, r0 what a comparison exchanges with; the sum tells all three."""
    imm = next(imm for (opcode, imm), other in ATOMIC_ROWS.items() if other == row)
    mask = (1 << row.width) - 1
    code = [store(8, 10, -8, 6), mov(0, 1), Insn(row.opcode, 10, 7, -8, imm), load(8, 2, 10, -8)]
    code += [Insn(0x27, 2, imm=3), Insn(0x0F, 0, 2), Insn(0x27, 0, imm=5), Insn(0x0F, 0, 7)]
    expected = []
    for a, b in PAIRS:
        old, r0, source = a & mask, 1, b
        if row.op is Op.CMPXCHG:
            new, r0 = (b & mask if old == 1 else old), old
        else:
            new = compute(row.op, row.width, old, b & mask)
            source = old if row.fetch else b
        word = (a & ~mask & M64) | new
        expected.append(((word * 3 + r0) * 5 + source) & M64)
    assert results(code, PAIRS, "python") == expected
    assert results(code, PAIRS[::9], "reference") == expected[::9]


@pytest.mark.parametrize("engine", as_parameters())
@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("way", ["plain", "signed", "acquire"])
def test_loads_and_stores(size: int, way: str, engine: str) -> None:
    if way == "signed" and size == 8:
        pytest.skip("a signed load of eight bytes is no instruction")
    write, read = store(size, 1, 0, 7), load(size, 0, 1, 0, way == "signed")
    if way == "acquire":
        write, read = atomic(size, STORE_RELEASE_IMM, 1, 0, 7), atomic(size, LOAD_ACQUIRE_IMM, 0, 0, 1)
    mask = (1 << 8 * size) - 1
    expected = [signed(b, 8 * size) & M64 if way == "signed" else b & mask for _, b in PAIRS[:99]]
    assert results([write, read], PAIRS[:99], engine) == expected
