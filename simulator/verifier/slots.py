"""A program as the kernel's early checks see it: five columns of raw fields, one entry a slot.

Invariant: every slot has an entry, the second half of a 64-bit load too (its opcode is 0 when it is well formed). The
checks that come before a program is known to be sound read these; what comes after reads decoded instructions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from bpflisp.spec.insn import SLOT_SIZE
from bpflisp.spec.isa import (
    ALU32,
    ALU64,
    CALL_CODE,
    CALL_HELPER,
    CALL_KFUNC,
    CALL_SUBPROGRAM,
    EXIT_CODE,
    JA_CODE,
    JMP,
    JMP32,
    LD,
    LD_IMM64_OPCODE,
    LDX,
    MAY_GOTO_CODE,
    MODE_ABS,
    MODE_IND,
    MODE_MEM,
    PSEUDO_FUNC,
    SIZE_BITS,
    ST,
    STX,
)

OP_MASK: Final = 0xF0
"""The operation bits of an opcode of arithmetic or a jump."""
MODE_MASK: Final = 0xE0
"""The mode bits of an opcode of a load or store."""
CLASS_MASK: Final = 0x07

CALL_OPCODE: Final = JMP | CALL_CODE
EXIT_OPCODE: Final = JMP | EXIT_CODE
JA_OPCODE: Final = JMP | JA_CODE
JA32_OPCODE: Final = JMP32 | JA_CODE
MAY_GOTO_OPCODE: Final = JMP | MAY_GOTO_CODE
SPILL_OPCODE: Final = STX | MODE_MEM | SIZE_BITS[8]
FILL_OPCODE: Final = LDX | MODE_MEM | SIZE_BITS[8]

TAIL_CALL: Final = 12
"""The number of the helper bpf_tail_call."""

_RAW = struct.Struct("<BBhi")

__all__ = [
    "ALU32",
    "ALU64",
    "CALL_OPCODE",
    "CLASS_MASK",
    "EXIT_OPCODE",
    "FILL_OPCODE",
    "JA32_OPCODE",
    "JA_OPCODE",
    "JMP",
    "JMP32",
    "LD",
    "LDX",
    "MAY_GOTO_OPCODE",
    "MODE_MASK",
    "OP_MASK",
    "SPILL_OPCODE",
    "ST",
    "STX",
    "TAIL_CALL",
    "Slots",
]


_STRAIGHT: Final = tuple(
    0 if opcode & CLASS_MASK in (JMP, JMP32) else 2 if opcode == LD_IMM64_OPCODE else 1 for opcode in range(256)
)


@dataclass(frozen=True, slots=True)
class Slots:
    """The columns, each as long as the program; `off` is signed, 16 bits, and `imm` signed, 32 bits.

    `straight` says how many slots on control always goes: 1 or 2 (a 64-bit load), and 0 for jumps, calls, exits and
    loads of functions, of which more has to be known. `after` has the slots that may run next inside the same
    function: the next first, then the jump's target; a call goes on at the next. That order decides the numbering of
    loops and the order of propagation.
    """

    opcode: tuple[int, ...]
    dst: tuple[int, ...]
    src: tuple[int, ...]
    off: tuple[int, ...]
    imm: tuple[int, ...]
    straight: list[int] = field(init=False, repr=False, compare=False)
    after: list[tuple[int, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        widths = [_STRAIGHT[opcode] for opcode in self.opcode]
        after = [(at + width,) if width else self._successors(at) for at, width in enumerate(widths)]
        for at, width in enumerate(widths):
            if width == 2 and self.src[at] == PSEUDO_FUNC:
                widths[at] = 0
        object.__setattr__(self, "straight", widths)
        object.__setattr__(self, "after", after)

    @staticmethod
    def of(code: bytes) -> Slots:
        """The columns of raw instructions. Raises ValueError where the length is not a multiple of eight."""
        if len(code) % SLOT_SIZE:
            raise ValueError(f"{len(code)} bytes are not whole instructions of {SLOT_SIZE} bytes")
        if not code:
            return Slots((), (), (), (), ())
        opcode, registers, off, imm = zip(*_RAW.iter_unpack(code), strict=True)
        return Slots(
            opcode, tuple([both & 15 for both in registers]), tuple([both >> 4 for both in registers]), off, imm
        )

    def __len__(self) -> int:
        return len(self.opcode)

    def width(self, at: int) -> int:
        """How many slots the instruction at `at` fills: two for a 64-bit load, else one."""
        return 2 if self.opcode[at] == LD_IMM64_OPCODE else 1

    def is_helper_call(self, at: int) -> bool:
        """A call of a helper by number."""
        return self.opcode[at] == CALL_OPCODE and self.src[at] == CALL_HELPER

    def is_subprogram_call(self, at: int) -> bool:
        """A call of another function of the program."""
        return self.opcode[at] == CALL_OPCODE and self.src[at] == CALL_SUBPROGRAM

    def is_kfunc_call(self, at: int) -> bool:
        """A call of a kernel function by its BTF id."""
        return self.opcode[at] == CALL_OPCODE and self.src[at] == CALL_KFUNC

    def is_function_load(self, at: int) -> bool:
        """A 64-bit load of the address of another function of the program, for a callback."""
        return self.opcode[at] == LD_IMM64_OPCODE and self.src[at] == PSEUDO_FUNC

    def is_packet_load(self, at: int) -> bool:
        """A legacy packet load, LD_ABS or LD_IND."""
        opcode = self.opcode[at]
        return opcode & CLASS_MASK == LD and opcode & MODE_MASK in (MODE_ABS, MODE_IND)

    def is_may_goto(self, at: int) -> bool:
        """may_goto, the conditional jump on a hidden counter."""
        return self.opcode[at] == MAY_GOTO_OPCODE and self.src[at] == 0

    def is_jump_class(self, at: int) -> bool:
        """Any jump, call or exit, of 64 or 32 bits."""
        return self.opcode[at] & CLASS_MASK in (JMP, JMP32)

    def jump_distance(self, at: int) -> int:
        """The distance of a jump in slots, from the slot after it."""
        return self.imm[at] if self.opcode[at] == JA32_OPCODE else self.off[at]

    def crossings(self) -> Iterator[int]:
        """The slots where control may go elsewhere than straight on: `straight` is 0 there."""
        return (at for at, width in enumerate(self.straight) if not width)

    def _successors(self, at: int) -> tuple[int, ...]:
        opcode = self.opcode[at]
        if opcode & CLASS_MASK not in (JMP, JMP32):
            return (at + self.width(at),)
        operation = opcode & OP_MASK
        if operation == EXIT_CODE:
            return ()
        if operation == CALL_CODE:
            return (at + 1,)
        target = at + self.jump_distance(at) + 1
        return (target,) if operation == JA_CODE else (at + 1, target)
