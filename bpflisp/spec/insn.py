"""One instruction: bytes <-> Insn.

Invariant: `decode` and `encode` are inverses on every multiple of eight bytes, sound or not. What is not an
instruction decodes to a row of kind UNKNOWN, so that a reader can name it; nobody but this module looks at raw bits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from bpflisp.lean import dataclass, field
from bpflisp.spec.isa import LD_IMM64_OPCODE, Row, row_of

SLOT_SIZE = 8
_RAW = struct.Struct("<BBhi")


@dataclass(frozen=True, slots=True)
class Insn:
    """An instruction in the normal form: five fields and the row that gives them meaning.

    `imm` is signed, 32 bits; `imm_high` is the immediate of the second slot of a 64-bit load, signed, else 0.
    """

    opcode: int
    dst: int = 0
    src: int = 0
    off: int = 0
    imm: int = 0
    imm_high: int = 0
    row: Row = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "row", row_of(self.opcode, self.off, self.imm))

    @property
    def slots(self) -> int:
        """How many 8-byte slots it fills: two for a 64-bit load, else one."""
        return 2 if self.opcode == LD_IMM64_OPCODE else 1

    @property
    def imm64(self) -> int:
        """The immediate of a 64-bit load, unsigned."""
        return (self.imm & 0xFFFFFFFF) | (self.imm_high & 0xFFFFFFFF) << 32

    def reserved(self) -> list[str]:
        """The fields that must be zero and are not."""
        return [name for name in ("dst", "src", "off", "imm") if name not in self.row.uses and getattr(self, name)]

    def encode(self) -> bytes:
        """Eight bytes, or sixteen for a 64-bit load."""
        first = _RAW.pack(self.opcode, self.dst | self.src << 4, self.off, self.imm)
        return first + _RAW.pack(0, 0, 0, self.imm_high) if self.slots == 2 else first


def decode(code: bytes) -> list[Insn | None]:
    """One entry a slot: the instruction that starts there, None for the second half of a 64-bit load.

    A 64-bit load without its second half, or whose second half is no zero instruction, is kept as it is written: its
    first slot with `imm_high` 0, and the next slot as an instruction of its own, which the verifier then refuses.
    Raises ValueError where the length is not a multiple of eight.
    """
    if len(code) % SLOT_SIZE:
        raise ValueError(f"{len(code)} bytes are not whole instructions of {SLOT_SIZE} bytes")
    raw = list(_RAW.iter_unpack(code))
    insns: list[Insn | None] = []
    while len(insns) < len(raw):
        at = len(insns)
        row = raw[at]
        if row[0] == LD_IMM64_OPCODE and at + 1 < len(raw) and raw[at + 1][:3] == (0, 0, 0):
            insns += [_insn(row, raw[at + 1][3]), None]
        else:
            insns.append(_MADE.get(row) or _insn(row))
    return insns


_MADE: dict[tuple[int, int, int, int], Insn] = {}
_MOST_MADE = 1 << 15
"""Instructions repeat, within a program and among programs, and are values: so many are made once alone."""


def _insn(row: tuple[int, int, int, int], high: int = 0) -> Insn:
    opcode, registers, off, imm = row
    made = Insn(opcode, registers & 15, registers >> 4, off, imm, high)
    if opcode != LD_IMM64_OPCODE:
        if len(_MADE) >= _MOST_MADE:
            _MADE.clear()
        _MADE[row] = made
    return made


def encode(insns: Iterable[Insn | None]) -> bytes:
    """The bytes of instructions in the form that `decode` gives."""
    return b"".join(insn.encode() for insn in insns if insn is not None)
