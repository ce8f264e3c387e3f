"""A program for every row of the instruction table, and what the kernel makes of it on boundary values.

`python -m tests.simulator.engines.every_row` writes fixtures/runs/instructions.json anew, from the running kernel.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import ATOMIC_ROWS, LD_IMM64_OPCODE, ROWS, Kind, Op, Row
from simulator.program import MapDef, Program
from simulator.run import run
from simulator.world import World
from tests.simulator.assembly import EXIT, copy, load, map_of, mov, program, store, store_imm, value_of

FILE = Path(__file__).resolve().parents[3] / "fixtures" / "runs" / "instructions.json"
NOT_RUN = frozenset({Kind.CALL_REG, Kind.UNKNOWN})
"""Kinds that no kernel runs: callx is refused."""

_BIG = 0x8123456789ABCDEF
PAIRS = (
    (0, 0), (5, 3), (3, 5), (5, _BIG), (_BIG, 5), (1 << 63, (1 << 64) - 1), ((1 << 64) - 1, 2),
    (0x80000000, 0xFFFFFFFF), (0x7FFFFFFF, 1), (0xFFFFFFFF00000005, 63),
    (0x123456789ABCDEF0, 0xFFFFFFFF00000000), (0xFF80, 0x80),
)  # fmt: skip
_OFFSETS = {Op.SDIV: 1, Op.SMOD: 1, Op.MOVSX8: 8, Op.MOVSX16: 16, Op.MOVSX32: 32}
_SHIFTS = frozenset({Op.LSH, Op.RSH, Op.ARSH})
_VALUES = MapDef("values", "array", 4, 16, 1)


def framed(body: Sequence[Insn], functions: Sequence[Insn] = (), maps: Sequence[MapDef] = ()) -> Program:
    """An XDP program: a in r7 and b in r8 from the packet, 5 in r0, 0 in r9; then r7, r8, r0 and r9 into the packet."""
    head = [load(4, 6, 1), load(4, 2, 1, 4), copy(3, 6), Insn(0x07, 3, imm=64)]
    start = [load(8, 7, 6), load(8, 8, 6, 8), mov(0, 5), mov(9, 0)]
    end = [store(8, 6, 16, 7), store(8, 6, 24, 8), store(8, 6, 32, 0), store(8, 6, 40, 9), mov(0, 0), EXIT]
    slots = sum(insn.slots for insn in (*start, *body, *end[:-2]))
    return program([*head, Insn(0x2D, 3, 2, slots), *start, *body, *end, *functions], "xdp", maps)


def cases() -> Iterator[tuple[str, Row, Program]]:
    """(name, row, program) of every row and every way in which it is written."""
    for row in ROWS:
        if row.kind not in NOT_RUN:
            for name, made in _of_row(row):
                fetch = " fetch" if row.fetch else ""
                yield f"{row.opcode:02x} {row.kind} {row.op or ''}{row.width or row.size or ''}{fetch}{name}", row, made


def _of_row(row: Row) -> Iterator[tuple[str, Program]]:
    match row.kind:
        case Kind.ALU if row.reg:
            yield " register", framed([Insn(row.opcode, 7, 8, _OFFSETS.get(row.op, 0))])
        case Kind.ALU:
            for number in (3, 31) if row.op in _SHIFTS else (1, -2, 0x7FFFFFFF, -0x80000000):
                yield f" {number}", framed([Insn(row.opcode, 7, 0, _OFFSETS.get(row.op, 0), number)])
        case Kind.NEG:
            yield "", framed([Insn(row.opcode, 7)])
        case Kind.END:
            for bits in (16, 32, 64):
                yield f" {bits}", framed([Insn(row.opcode, 7, imm=bits)])
        case Kind.BRANCH:
            for number in (0,) if row.reg else (0, 5, -1, -0x80000000):
                test = Insn(row.opcode, 7, 8 if row.reg else 0, 1, 0 if row.reg else number)
                yield f" {number}", framed([mov(9, 1), test, mov(9, 2)])
        case Kind.JUMP:
            over = Insn(row.opcode, off=1) if row.width == 16 else Insn(row.opcode, imm=1)
            # What it jumps over is reached where a is 0: the kernel takes no code that nothing reaches.
            yield "", framed([mov(9, 1), Insn(0x15, 7, off=1), over, mov(9, 2)])
        case Kind.MAY_GOTO:
            yield "", framed([Insn(row.opcode, off=1), mov(9, 2)])
        case _:
            yield from _of_memory(row)


def _of_memory(row: Row) -> Iterator[tuple[str, Program]]:
    spilled = [store(8, 10, -8, 7)]
    match row.kind:
        case Kind.LOAD | Kind.LOAD_SIGNED:
            yield " packet", framed([Insn(row.opcode, 9, 6, 0)])
            yield " stack", framed([*spilled, Insn(row.opcode, 9, 10, -8)])
        case Kind.LOAD_ACQUIRE:
            yield "", framed([*spilled, Insn(row.opcode, 9, 10, -8, _imm_of(row))])
        case Kind.STORE | Kind.STORE_RELEASE:
            imm = _imm_of(row) if row.kind is Kind.STORE_RELEASE else 0
            yield "", framed([*spilled, Insn(row.opcode, 10, 8, -8, imm), load(8, 9, 10, -8)])
        case Kind.STORE_IMM:
            yield "", framed([*spilled, Insn(row.opcode, 10, 0, -8, -3), load(8, 9, 10, -8)])
        case Kind.ATOMIC:
            yield "", framed([*spilled, Insn(row.opcode, 10, 8, -8, _imm_of(row)), load(8, 9, 10, -8)])
        case Kind.LOAD_IMM64:
            yield from _of_wide_loads()
        case Kind.LOAD_PACKET:
            source = 7 if row.reg else 0
            for at in (0, 3, 60, 61, -0x100000, -0x200000 + 12):
                code = [copy(6, 1), mov(7, 1), Insn(row.opcode, 0, source, imm=at), EXIT]
                yield f" {at}", program(code, "sched_cls")
        case _:
            yield from _of_calls(row)


def _of_wide_loads() -> Iterator[tuple[str, Program]]:
    yield " number", framed([Insn(LD_IMM64_OPCODE, 9, imm=-0x76543211, imm_high=-0x7EDCBA99)])
    stores = [value_of(9, 0, 8), store(8, 9, 0, 7), load(8, 9, 9)]
    yield " value", framed(stores, maps=[_VALUES])
    lookup = [store_imm(4, 10, -4, 0), copy(2, 10), Insn(0x07, 2, imm=-4), map_of(1, 0), Insn(0x85, imm=1)]
    found = [Insn(0x15, 0, off=2), store(8, 0, 0, 7), load(8, 9, 0), mov(0, 1)]
    yield " map", framed([*lookup, *found], maps=[_VALUES])


def _of_calls(row: Row) -> Iterator[tuple[str, Program]]:
    if row.kind is Kind.EXIT:
        yield "", framed([])
        return
    assert row.kind is Kind.CALL
    # csum_diff(0, 0, fp - 8, 8, 5)
    diff = [store(8, 10, -8, 7), mov(1, 0), mov(2, 0), copy(3, 10), Insn(0x07, 3, imm=-8), mov(4, 8), mov(5, 5)]
    yield " helper", framed([*diff, Insn(0x85, imm=28)])
    # r0 = a - 2 * b, by a function that keeps registers of its own
    ours = [copy(6, 1), copy(7, 2), Insn(0x1F, 6, 7), Insn(0x1F, 6, 7), copy(0, 6), EXIT]
    yield " function", framed([copy(1, 7), copy(2, 8), Insn(0x85, src=1, imm=6)], ours)
    again = [copy(9, 0), copy(1, 9), copy(2, 8), Insn(0x85, src=1, imm=6)]
    yield " function twice", framed([copy(1, 7), copy(2, 8), Insn(0x85, src=1, imm=10), *again], ours)


def _imm_of(row: Row) -> int:
    return next(imm for (_, imm), other in ATOMIC_ROWS.items() if other == row)


def results(made: Program, engine: str) -> list[str]:
    """What the program leaves for each pair: the return value, and of XDP r7, r8, r0 and r9."""
    world, seen = World(), []
    for a, b in PAIRS if made.type == "xdp" else PAIRS[:1]:
        packet = struct.pack("<QQ", a, b) + (bytes(48) if made.type == "xdp" else bytes(range(48)))
        outcome = run(made, packet, world, engine)
        if outcome.fault is not None or outcome.packet is None:
            seen.append(f"fault: {outcome.fault}")
            continue
        left = struct.unpack_from("<4Q", outcome.packet, 16) if made.type == "xdp" else ()
        seen.append(" ".join(f"{value:x}" for value in (outcome.retval, *left)))
    return seen


def main() -> int:
    """Writes the file anew."""
    found = {name: results(made, "kernel") for name, _, made in cases()}
    FILE.write_text(json.dumps(found, indent=0) + "\n")
    print(f"{len(found)} programs of {len({row for _, row, _ in cases()})} rows, in {FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
