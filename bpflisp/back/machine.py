"""Machine code before emission: instructions over virtual and machine registers, in blocks.

Registers are ints: 0 to 10 are the machine's, `FIRST_VIRTUAL` and above are virtual. Instructions have the opcodes and
fields of `spec.isa`, besides what only the back end knows: which stack slot an offset is relative to, which symbol an
immediate stands for, which registers a call reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from bpflisp.ir.ssa import CoreAccess, Position, Slot
from bpflisp.lean import dataclass, field
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import (
    ALU32,
    ALU64,
    ALU_CODES,
    FRAME_POINTER,
    MODE_ATOMIC,
    SRC_IMM,
    SRC_REG,
    STX,
    Kind,
    Op,
    Row,
    row_of,
)

FIRST_VIRTUAL = 16
CALLER_SAVED = (0, 1, 2, 3, 4, 5)
CALLEE_SAVED = (6, 7, 8, 9)
ALLOCATABLE = CALLER_SAVED + CALLEE_SAVED
ARGUMENTS = (1, 2, 3, 4, 5)

MOV_REG = ALU64 | SRC_REG | ALU_CODES[Op.MOV]
MOV_IMM = ALU64 | SRC_IMM | ALU_CODES[Op.MOV]
ADD_IMM = ALU64 | SRC_IMM | ALU_CODES[Op.ADD]


@dataclass(frozen=True, slots=True)
class Symbol:
    """What the linker has to put into an immediate: `kind` is `map`, `data`, `func`, `call` or `kfunc`."""

    kind: str
    name: str
    addend: int = 0


@dataclass(slots=True, eq=False)
class MInsn:
    """One instruction that is no jump.

    `slot`: the offset (of a memory access by r10) or the immediate (of `lea`) is relative to that stack slot.
    `number` identifies it before and after allocation, for the audit; what allocation adds has 0.
    `reads`, `writes`: registers beyond those that the fields name (the arguments of a call, what an `asm` touches).
    """

    opcode: int
    dst: int = 0
    src: int = 0
    off: int = 0
    imm: int = 0
    imm_high: int = 0
    position: Position | None = None
    symbol: Symbol | None = None
    core: CoreAccess | None = None
    slot: Slot | None = None
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    raw: bool = False
    number: int = 0

    @property
    def row(self) -> Row:
        """The row of the instruction table."""
        return row_of(self.opcode, self.off, self.imm)

    @property
    def is_copy(self) -> bool:
        """Whether it is a 64-bit move between two registers that the allocator may choose."""
        return self.opcode == MOV_REG and self.off == 0 and FRAME_POINTER not in (self.dst, self.src) and not self.raw

    @property
    def is_lea(self) -> bool:
        """Whether it is `dst = r10 + imm`, which emission writes as two instructions."""
        return self.opcode == ADD_IMM and self.src == FRAME_POINTER

    def copy(self) -> MInsn:
        """Another one with the same fields."""
        return MInsn(
            *(self.opcode, self.dst, self.src, self.off, self.imm, self.imm_high),
            position=self.position,
            symbol=self.symbol,
            core=self.core,
            slot=self.slot,
            reads=self.reads,
            writes=self.writes,
            raw=self.raw,
            number=self.number,
        )

    def uses(self) -> tuple[int, ...]:
        """Registers that are read; r10 aside, which never changes."""
        if self.raw or self.is_lea:
            return self.reads
        role = _ROLES.get(self.opcode) or _role(self)
        dst, src = self.dst, self.src
        found = self.reads
        if role & _READS_SRC and src != FRAME_POINTER:
            found = (src, *found)
        if role & _READS_DST and dst != FRAME_POINTER:
            found = (dst, *found)
        return (0, *found) if role & _READS_R0 else found

    def defs(self) -> tuple[int, ...]:
        """Registers that are written, by a call's clobbering too."""
        if self.raw:
            return self.writes
        role = _ROLES.get(self.opcode) or _role(self)
        if role & _WRITES_DST:
            return (self.dst, *self.writes)
        if role & _WRITES_SRC:
            return (self.src, *self.writes)
        if role & _WRITES_R0:
            return (0, *self.writes)
        return CALLER_SAVED if role & _CLOBBERS else self.writes


_READS_DST, _READS_SRC, _READS_R0, _WRITES_DST, _WRITES_SRC, _WRITES_R0, _CLOBBERS = (1 << bit for bit in range(7))
_MOVES = frozenset({Op.MOV, Op.MOVSX8, Op.MOVSX16, Op.MOVSX32})
_ROLES: dict[int, int] = {}
"""By opcode, what instructions do with their register fields, of those met so far: an offset or an immediate makes no
difference to that but to an atomic's."""


def _role(insn: MInsn) -> int:
    """What an instruction does with its register fields."""
    role = _ROLES.get(insn.opcode)
    if role is None:
        if insn.opcode & 7 == STX and insn.opcode & 0xE0 == MODE_ATOMIC:
            return _role_of(insn.opcode, 0, insn.imm)
        role = _ROLES[insn.opcode] = _role_of(insn.opcode, insn.off if insn.opcode & 7 in (ALU32, ALU64) else 0, 0)
    return role


@cache
def _role_of(opcode: int, off: int, imm: int) -> int:
    row = row_of(opcode, off, imm)
    source = _READS_SRC if row.reg else 0
    match row.kind:
        case Kind.ALU:
            return _WRITES_DST | source | (0 if row.op in _MOVES else _READS_DST)
        case Kind.NEG | Kind.END:
            return _READS_DST | _WRITES_DST
        case Kind.LOAD | Kind.LOAD_SIGNED:
            return _READS_SRC | _WRITES_DST
        case Kind.LOAD_IMM64:
            return _WRITES_DST
        case Kind.STORE_IMM:
            return _READS_DST
        case Kind.STORE:
            return _READS_DST | _READS_SRC
        case Kind.ATOMIC:
            fetched = _WRITES_R0 if row.op is Op.CMPXCHG else _WRITES_SRC
            return _READS_DST | _READS_SRC | (fetched if row.fetch else 0)
        case Kind.BRANCH:
            return _READS_DST | source
        case Kind.EXIT:
            return _READS_R0
        case Kind.CALL:
            return _CLOBBERS
    return 0


def lea(register: int, slot: Slot, position: Position | None) -> MInsn:
    """The address of a stack slot."""
    return MInsn(ADD_IMM, register, FRAME_POINTER, slot=slot, position=position)


@dataclass(slots=True, eq=False)
class MBlock:
    """A block: `end` is a branch, an exit, or None for a plain jump to `targets[0]`.

    A branch goes to `targets[0]` where it is taken and to `targets[1]` where it is not; an exit has no targets.
    """

    body: list[MInsn] = field(default_factory=list)
    end: MInsn | None = None
    targets: list[MBlock] = field(default_factory=list)
    position: Position | None = None
    depth: int = 0

    def instructions(self) -> Iterator[MInsn]:
        """The body, then the branch or exit."""
        yield from self.body
        if self.end is not None:
            yield self.end


@dataclass(slots=True, eq=False)
class MFunction:
    """A function in machine form; `blocks[0]` is the entry. `next_register` is the next free virtual register."""

    name: str
    blocks: list[MBlock] = field(default_factory=list)
    next_register: int = FIRST_VIRTUAL

    def register(self) -> int:
        """A new virtual register."""
        self.next_register += 1
        return self.next_register - 1

    def instructions(self) -> Iterator[MInsn]:
        """All instructions, block by block."""
        for block in self.blocks:
            yield from block.instructions()


@dataclass(slots=True)
class Relocation:
    """At slot `at` the linker puts the number of a symbol; see `Symbol` for the kinds."""

    at: int
    kind: str
    symbol: str
    addend: int = 0


@dataclass(slots=True)
class CoreRelocation:
    """At slot `at` the loader patches the offset by a member's place in the running kernel."""

    at: int
    access: CoreAccess


@dataclass(slots=True)
class Code:
    """A compiled function.

    `lines` pairs the slot where the code of a source position begins with that position, in ascending order.
    `stack` is the bytes of stack that it uses.
    """

    name: str
    insns: list[Insn]
    relocations: list[Relocation] = field(default_factory=list)
    core: list[CoreRelocation] = field(default_factory=list)
    lines: list[tuple[int, Position]] = field(default_factory=list)
    stack: int = 0

    @property
    def slots(self) -> int:
        """Its length in slots of eight bytes."""
        return sum(insn.slots for insn in self.insns)


class BackError(Exception):
    """A function that cannot be compiled for this target; `position` is where, if known, `because` why."""

    def __init__(self, message: str, position: Position | None = None, because: str = "") -> None:
        super().__init__(message)
        self.position = position
        self.because = because
