"""The instruction table: one row an instruction, generated from operation x width x source.

Encoder, decoder, text, engines and verifier read the same rows. An instruction is found by its opcode byte and, where
RFC 9669 overloads an opcode, by its offset (MOVSX, SDIV, SMOD) or immediate (the atomics).

Source: RFC 9669; what Linux adds to it (may_goto, load-acquire, store-release) from include/uapi/linux/bpf.h of 6.12
and its successors, and from what kernel 6.18 answered.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Final

from bpflisp.lean import dataclass

# The class: the low three bits of an opcode.
LD, LDX, ST, STX, ALU32, JMP, JMP32, ALU64 = range(8)

# The source bit, of arithmetic and jumps.
SRC_IMM, SRC_REG = 0x00, 0x08

# The mode of loads and stores.
MODE_IMM, MODE_ABS, MODE_IND, MODE_MEM, MODE_MEMSX, MODE_ATOMIC = 0x00, 0x20, 0x40, 0x60, 0x80, 0xC0

SIZE_BITS: Final = MappingProxyType({4: 0x00, 2: 0x08, 1: 0x10, 8: 0x18})
"""Access size in bytes -> the size bits of a load's or store's opcode."""

LD_IMM64_OPCODE: Final = LD | MODE_IMM | SIZE_BITS[8]

# What the source register of a 64-bit immediate load says that the immediate is.
PSEUDO_MAP_FD, PSEUDO_MAP_VALUE, PSEUDO_BTF_ID, PSEUDO_FUNC, PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE = range(1, 7)

# What the source register of a call says that the immediate is.
CALL_HELPER, CALL_SUBPROGRAM, CALL_KFUNC = range(3)

FRAME_POINTER: Final = 10
STACK_SIZE: Final = 512
"""Bytes of stack that one call chain may use in all."""


class Kind(StrEnum):
    """What shape of thing an instruction is; the first thing that a reader of instructions asks."""

    ALU = "alu"  # dst = dst OP (src | imm); MOV and MOVSX too
    NEG = "neg"  # dst = -dst
    END = "end"  # dst = byte order of dst; the immediate is 16, 32 or 64
    LOAD = "load"  # dst = *(size *)(src + off), zero-extended
    LOAD_SIGNED = "load_signed"  # the same, sign-extended
    STORE = "store"  # *(size *)(dst + off) = src
    STORE_IMM = "store_imm"  # *(size *)(dst + off) = imm
    ATOMIC = "atomic"  # read, modify and write of *(size *)(dst + off)
    LOAD_ACQUIRE = "load_acquire"
    STORE_RELEASE = "store_release"
    LOAD_IMM64 = "load_imm64"  # dst = 64-bit immediate, or what the source register says; two slots
    LOAD_PACKET = "load_packet"  # r0 = legacy packet load, absolute or indirect
    JUMP = "jump"  # always; the distance is off, or imm in the 32-bit class
    BRANCH = "branch"  # if dst OP (src | imm)
    MAY_GOTO = "may_goto"
    CALL = "call"  # a helper, a subprogram or a kfunc, by src
    CALL_REG = "call_reg"  # a helper by register; the kernel refuses it
    EXIT = "exit"
    UNKNOWN = "unknown"


class Op(StrEnum):
    """Operations of arithmetic, comparison and atomics. One meaning each: `spec.alu`."""

    NONE = ""
    ADD = "add"
    SUB = "sub"
    MUL = "mul"
    DIV = "div"
    SDIV = "sdiv"
    OR = "or"
    AND = "and"
    LSH = "lsh"
    RSH = "rsh"
    MOD = "mod"
    SMOD = "smod"
    XOR = "xor"
    MOV = "mov"
    MOVSX8 = "movsx8"
    MOVSX16 = "movsx16"
    MOVSX32 = "movsx32"
    ARSH = "arsh"
    NEG = "neg"
    TO_LE = "le"
    TO_BE = "be"
    SWAP = "bswap"
    EQ = "eq"
    NE = "ne"
    GT = "gt"
    GE = "ge"
    LT = "lt"
    LE = "lower_equal"
    SET = "set"
    SGT = "sgt"
    SGE = "sge"
    SLT = "slt"
    SLE = "sle"
    XCHG = "xchg"
    CMPXCHG = "cmpxchg"


@dataclass(frozen=True, slots=True)
class Row:
    """One instruction of the table.

    `size` is the bytes that a memory access touches, `width` the bits that arithmetic or a comparison works on.
    `reg` says that the second operand is the source register. `uses` names the fields among dst, src, off, imm that
    carry meaning: the others are reserved and must be zero. `isa` is the -mcpu version that brought it.
    """

    opcode: int
    kind: Kind
    op: Op = Op.NONE
    width: int = 0
    size: int = 0
    reg: bool = False
    fetch: bool = False
    uses: frozenset[str] = frozenset()
    isa: int = 1


ALU_CODES: Final = MappingProxyType(
    {
        Op.ADD: 0x00, Op.SUB: 0x10, Op.MUL: 0x20, Op.DIV: 0x30, Op.OR: 0x40, Op.AND: 0x50, Op.LSH: 0x60,
        Op.RSH: 0x70, Op.MOD: 0x90, Op.XOR: 0xA0, Op.MOV: 0xB0, Op.ARSH: 0xC0,
    }
)  # fmt: skip
NEG_CODE, END_CODE = 0x80, 0xD0

# Overloads of an arithmetic opcode by its offset field: (operation, offset) -> operation.
ALU_BY_OFFSET: Final = MappingProxyType(
    {
        (Op.DIV, 1): Op.SDIV,
        (Op.MOD, 1): Op.SMOD,
        (Op.MOV, 8): Op.MOVSX8,
        (Op.MOV, 16): Op.MOVSX16,
        (Op.MOV, 32): Op.MOVSX32,
    }
)

JUMP_CODES: Final = MappingProxyType(
    {
        Op.EQ: 0x10, Op.GT: 0x20, Op.GE: 0x30, Op.SET: 0x40, Op.NE: 0x50, Op.SGT: 0x60, Op.SGE: 0x70,
        Op.LT: 0xA0, Op.LE: 0xB0, Op.SLT: 0xC0, Op.SLE: 0xD0,
    }
)  # fmt: skip
JA_CODE, CALL_CODE, EXIT_CODE, MAY_GOTO_CODE = 0x00, 0x80, 0x90, 0xE0

FETCH: Final = 0x01
# The immediate of an atomic instruction -> its operation and whether the old value comes back.
ATOMICS: Final = MappingProxyType(
    {
        0x00: (Op.ADD, False), 0x40: (Op.OR, False), 0x50: (Op.AND, False), 0xA0: (Op.XOR, False),
        0x01: (Op.ADD, True), 0x41: (Op.OR, True), 0x51: (Op.AND, True), 0xA1: (Op.XOR, True),
        0xE1: (Op.XCHG, True), 0xF1: (Op.CMPXCHG, True),
    }
)  # fmt: skip
LOAD_ACQUIRE_IMM, STORE_RELEASE_IMM = 0x100, 0x110

_SIGNED_COMPARISONS_OF_V2 = frozenset({Op.LT, Op.LE, Op.SLT, Op.SLE})


def _arithmetic() -> list[tuple[Row, int | None]]:
    rows: list[tuple[Row, int | None]] = []
    for cls, width in ((ALU64, 64), (ALU32, 32)):
        isa = 1 if width == 64 else 3
        for op, code in ALU_CODES.items():
            for source in (SRC_IMM, SRC_REG):
                fields = frozenset({"dst", "src" if source else "imm"})
                rows.append((Row(cls | source | code, Kind.ALU, op, width, reg=bool(source), uses=fields, isa=isa), 0))
        for (base, off), op in ALU_BY_OFFSET.items():
            if op is Op.MOVSX32 and width == 32:
                continue
            for source in (SRC_IMM, SRC_REG):
                if base is Op.MOV and not source:
                    continue
                fields = frozenset({"dst", "off", "src" if source else "imm"})
                opcode = cls | source | ALU_CODES[base]
                rows.append((Row(opcode, Kind.ALU, op, width, reg=bool(source), uses=fields, isa=4), off))
        rows.append((Row(cls | NEG_CODE, Kind.NEG, Op.NEG, width, uses=frozenset({"dst"}), isa=isa), None))
    for op, opcode, isa in (
        (Op.TO_LE, ALU32 | END_CODE | SRC_IMM, 1),
        (Op.TO_BE, ALU32 | END_CODE | SRC_REG, 1),
        (Op.SWAP, ALU64 | END_CODE | SRC_IMM, 4),
    ):
        rows.append((Row(opcode, Kind.END, op, 64, uses=frozenset({"dst", "imm"}), isa=isa), None))
    return rows


def _jumps() -> list[Row]:
    rows = []
    for cls, width in ((JMP, 64), (JMP32, 32)):
        for op, code in JUMP_CODES.items():
            isa = 3 if width == 32 else 2 if op in _SIGNED_COMPARISONS_OF_V2 else 1
            for source in (SRC_IMM, SRC_REG):
                fields = frozenset({"dst", "off", "src" if source else "imm"})
                rows.append(Row(cls | source | code, Kind.BRANCH, op, width, reg=bool(source), uses=fields, isa=isa))
    rows.append(Row(JMP | JA_CODE, Kind.JUMP, width=16, uses=frozenset({"off"})))
    rows.append(Row(JMP32 | JA_CODE, Kind.JUMP, width=32, uses=frozenset({"imm"}), isa=4))
    rows.append(Row(JMP | MAY_GOTO_CODE, Kind.MAY_GOTO, uses=frozenset({"off"}), isa=4))
    rows.append(Row(JMP | CALL_CODE, Kind.CALL, uses=frozenset({"src", "off", "imm"})))
    rows.append(Row(JMP | CALL_CODE | SRC_REG, Kind.CALL_REG, reg=True, uses=frozenset({"dst"})))
    rows.append(Row(JMP | EXIT_CODE, Kind.EXIT))
    return rows


def _memory() -> list[Row]:
    rows = [Row(LD_IMM64_OPCODE, Kind.LOAD_IMM64, size=8, uses=frozenset({"dst", "src", "off", "imm"}))]
    for size, bits in SIZE_BITS.items():
        address = frozenset({"dst", "src", "off"})
        rows.append(Row(LDX | MODE_MEM | bits, Kind.LOAD, size=size, uses=address))
        if size < 8:
            rows.append(Row(LDX | MODE_MEMSX | bits, Kind.LOAD_SIGNED, size=size, uses=address, isa=4))
            rows.append(Row(LD | MODE_ABS | bits, Kind.LOAD_PACKET, size=size, uses=frozenset({"imm"})))
            indirect = frozenset({"src", "imm"})
            rows.append(Row(LD | MODE_IND | bits, Kind.LOAD_PACKET, size=size, reg=True, uses=indirect))
        rows.append(Row(STX | MODE_MEM | bits, Kind.STORE, size=size, reg=True, uses=address))
        rows.append(Row(ST | MODE_MEM | bits, Kind.STORE_IMM, size=size, uses=frozenset({"dst", "off", "imm"})))
    return rows


def _atomics() -> dict[tuple[int, int], Row]:
    rows = {}
    fields = frozenset({"dst", "src", "off", "imm"})
    for size, bits in SIZE_BITS.items():
        opcode = STX | MODE_ATOMIC | bits
        if size >= 4:
            for imm, (op, fetch) in ATOMICS.items():
                isa = 1 if imm == 0 else 3
                rows[opcode, imm] = Row(
                    opcode, Kind.ATOMIC, op, size * 8, size, reg=True, fetch=fetch, uses=fields, isa=isa
                )
        rows[opcode, LOAD_ACQUIRE_IMM] = Row(opcode, Kind.LOAD_ACQUIRE, size=size, reg=True, uses=fields, isa=4)
        rows[opcode, STORE_RELEASE_IMM] = Row(opcode, Kind.STORE_RELEASE, size=size, reg=True, uses=fields, isa=4)
    return rows


ATOMIC_ROWS: Final = MappingProxyType(_atomics())
"""(opcode, immediate) -> the row of an atomic instruction."""

ALU_ROWS: Final = MappingProxyType({(row.opcode, off or 0): row for row, off in _arithmetic()})
"""(opcode, offset) -> the row of an arithmetic instruction whose offset selects its meaning."""

PLAIN_ROWS: Final = MappingProxyType(
    {row.opcode: row for row in _jumps() + _memory()} | {row.opcode: row for row, off in _arithmetic() if off is None}
)
"""opcode -> the row of an instruction that its opcode alone names."""

ROWS: Final = tuple(dict.fromkeys([*ALU_ROWS.values(), *PLAIN_ROWS.values(), *ATOMIC_ROWS.values()]))


@cache
def row_of(opcode: int, off: int, imm: int) -> Row:
    """The row for these fields; of kind UNKNOWN where no instruction has them."""
    if opcode in PLAIN_ROWS:
        return PLAIN_ROWS[opcode]
    if opcode & 7 in (ALU32, ALU64):
        return ALU_ROWS.get((opcode, off)) or ALU_ROWS.get((opcode, 0)) or Row(opcode, Kind.UNKNOWN)
    return ATOMIC_ROWS.get((opcode, imm)) or Row(opcode, Kind.UNKNOWN)
