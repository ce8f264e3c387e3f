"""Writes one function of a random program, and keeps in mind roughly what each register holds.

What it keeps is a guess that makes the program plausible, not a judgement: the verifiers judge.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import (
    ALU32,
    ALU64,
    ALU_CODES,
    CALL_KFUNC,
    CALL_SUBPROGRAM,
    FRAME_POINTER,
    JMP,
    JMP32,
    JUMP_CODES,
    LD_IMM64_OPCODE,
    LDX,
    MODE_MEM,
    MODE_MEMSX,
    PSEUDO_FUNC,
    PSEUDO_MAP_IDX,
    PSEUDO_MAP_IDX_VALUE,
    SIZE_BITS,
    SRC_REG,
    ST,
    STX,
    Op,
)
from simulator.program import MapDef
from tests.agreement.code import Code, Node

SCALAR, CONTEXT, MEMORY, PACKET, OTHER = "scalar", "context", "memory", "packet", "other"


@dataclass(frozen=True, slots=True)
class Value:
    """What a register is thought to hold: of memory and packets `size` bytes may be reached from it; of a scalar
    `bound` is its greatest value where that is known."""

    kind: str
    size: int = 0
    bound: int | None = None


@dataclass(frozen=True, slots=True)
class Callee:
    """A function that is still to be written: its label, what it finds in its registers, whether a helper calls
    it, so that it may return 0 or 1 alone, and whether that is later, so that it has to return 0."""

    label: int
    registers: dict[int, Value]
    callback: bool = False
    is_global: bool = False
    later: bool = False


@dataclass
class Parts:
    """What the functions of one program share. `inside` writes the inside of a condition, `inside_loop` of a loop.

    `typed` says that the program has to have the types of `types`.
    `repeatable` asks for programs that do the same in every run: without time, chance and what is the host's.
    """

    random: random.Random
    type: str
    attach_type: str
    inside: Callable[[Writer], None]
    inside_loop: Callable[[Writer], None]
    repeatable: bool = False
    maps: list[MapDef] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    tiers: set[str] = field(default_factory=set)
    functions: list[Callee] = field(default_factory=list)
    typed: bool = False

    def code(self) -> Code:
        """What was written so far."""
        return Code(tuple(self.nodes), tuple(self.labels))


class Writer:
    """One function being written. `depth` counts the conditions and loops around it, `loops` all loops so far,
    `pasts` are labels past a test that are still to be placed, `indexes` says of which map a register's value is."""

    def __init__(self, parts: Parts, registers: dict[int, Value]) -> None:
        self.parts = parts
        self.random = parts.random
        self.registers = registers
        self.kept: set[int] = {FRAME_POINTER}
        self.stack: dict[int, Value] = {}
        self.depth = 0
        self.loops = 0
        self.fail = self.label()
        self.pasts: list[int] = []
        self.indexes: dict[int, int] = {}

    def label(self) -> int:
        """A label that is not placed yet."""
        self.parts.labels.append(-1)
        return len(self.parts.labels) - 1

    def place(self, label: int) -> None:
        """Puts a label before what is written next."""
        self.parts.labels[label] = len(self.parts.nodes)

    def emit(self, insn: Insn, to: int | None = None) -> None:
        """Writes an instruction."""
        self.parts.nodes.append(Node(insn, to))

    def used(self, tier: str) -> None:
        """Notes that the program has something of this tier."""
        self.parts.tiers.add(tier)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random.random() < probability

    def choice(self, *options: int) -> int:
        """One of the options."""
        return self.random.choice(options)

    def holding(self, kind: str) -> list[int]:
        """The registers that hold such a value."""
        return [register for register, value in self.registers.items() if value.kind == kind]

    def free(self, but: tuple[int, ...] = (), saved: bool = False) -> int:
        """A register to write to: one that holds nothing if there is one, else a scalar's; `saved` over calls."""
        registers = range(6, 10) if saved else range(10)
        usable = [register for register in registers if register not in self.kept and register not in but]
        usable = (
            usable or [register for register in range(10) if register not in but and register not in self.kept] or [0]
        )
        empty = [register for register in usable if register not in self.registers]
        plain = [register for register in usable if register in self.holding(SCALAR)]
        register = self.random.choice(empty or plain or usable)
        self.registers.pop(register, None)
        return register

    def move(self, dst: int, src: int) -> None:
        """dst = src."""
        self.emit(Insn(ALU64 | SRC_REG | ALU_CODES[Op.MOV], dst, src))
        if src in self.registers:
            self.registers[dst] = self.registers[src]

    def constant(self, dst: int, number: int) -> None:
        """dst = number."""
        if not -1 << 31 <= number < 1 << 31:
            low, high = number & 0xFFFFFFFF, number >> 32 & 0xFFFFFFFF
            low, high = (part - (1 << 32) if part >> 31 else part for part in (low, high))
            self.emit(Insn(LD_IMM64_OPCODE, dst, imm=low, imm_high=high))
        else:
            self.emit(Insn((ALU64 if number < 0 or self.chance(0.8) else ALU32) | ALU_CODES[Op.MOV], dst, imm=number))
        self.registers[dst] = Value(SCALAR, bound=number if number >= 0 else None)

    def alu(self, op: Op, dst: int, imm: int = 0, src: int | None = None, width: int = 64) -> None:
        """dst op= imm or src."""
        opcode = (ALU64 if width == 64 else ALU32) | ALU_CODES[op]
        self.emit(Insn(opcode, dst, imm=imm) if src is None else Insn(opcode | SRC_REG, dst, src))

    def jump(self, op: Op, dst: int, to: int, imm: int = 0, src: int | None = None, width: int = 64) -> None:
        """if dst op imm or src goto to."""
        opcode = (JMP if width == 64 else JMP32) | JUMP_CODES[op]
        self.emit(Insn(opcode, dst, imm=imm) if src is None else Insn(opcode | SRC_REG, dst, src), to)

    def goto(self, to: int) -> None:
        """Jumps always; now and then with the long form."""
        self.emit(Insn(0x06 if self.chance(0.1) else 0x05), to)

    def load(self, dst: int, src: int, off: int, size: int, signed: bool = False) -> None:
        """dst = *(size *)(src + off)."""
        mode = MODE_MEMSX if signed and size < 8 else MODE_MEM
        self.emit(Insn(LDX | mode | SIZE_BITS[size], dst, src, off))
        bound = (1 << size * 8) - 1 if size < 8 and mode == MODE_MEM else None
        self.registers[dst] = Value(SCALAR, bound=bound)

    def store(self, dst: int, off: int, size: int, src: int | None = None, imm: int = 0) -> None:
        """*(size *)(dst + off) = src or imm."""
        if src is None:
            self.emit(Insn(ST | MODE_MEM | SIZE_BITS[size], dst, 0, off, imm))
        else:
            self.emit(Insn(STX | MODE_MEM | SIZE_BITS[size], dst, src, off))

    def call(self, helper: int) -> None:
        """Calls a helper; r1 to r5 are gone, r0 is a scalar until the caller says otherwise."""
        self.emit(Insn(0x85, imm=helper))
        self._after_call()

    def call_kernel(self, name: str) -> None:
        """Calls a kernel function; what it gives back is not known."""
        self.parts.nodes.append(Node(Insn(0x85, src=CALL_KFUNC), None, name))
        self._after_call()
        self.registers[0] = Value(OTHER)

    def call_function(self, label: int) -> None:
        """Calls a function of the program."""
        self.emit(Insn(0x85, src=CALL_SUBPROGRAM), label)
        self._after_call()

    def load_function(self, dst: int, label: int) -> None:
        """dst = the address of a function of the program, for a helper that calls it."""
        self.emit(Insn(LD_IMM64_OPCODE, dst, PSEUDO_FUNC), label)
        self.registers[dst] = Value(OTHER)

    def forget(self, kind: str) -> None:
        """What registers hold of this kind is no longer good."""
        for register in self.holding(kind):
            del self.registers[register]

    def _after_call(self) -> None:
        for register in range(1, 6):
            self.registers.pop(register, None)
        self.registers[0] = Value(SCALAR)

    def load_map(self, dst: int, index: int) -> None:
        """dst = the map."""
        self.emit(Insn(LD_IMM64_OPCODE, dst, PSEUDO_MAP_IDX, imm=index))
        self.registers[dst] = Value(OTHER)

    def load_map_value(self, dst: int, index: int, off: int) -> None:
        """dst = the address of a byte of an array's only value."""
        self.emit(Insn(LD_IMM64_OPCODE, dst, PSEUDO_MAP_IDX_VALUE, imm=index, imm_high=off))
        self.registers[dst] = Value(MEMORY, self.parts.maps[index].value_size - off)

    def new_map(self, definition: MapDef) -> int:
        """The index of a map more, or of one like it that is there already."""
        for index, have in enumerate(self.parts.maps):
            if replace(have, name="") == definition:
                return index
        self.parts.maps.append(replace(definition, name=f"m{len(self.parts.maps)}"))
        return len(self.parts.maps) - 1

    def number(self) -> int:
        """A number that fits an immediate, small ones and edges first."""
        if self.chance(0.6):
            return self.random.choice((0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 100, 255, 256, 1500))
        if self.chance(0.6):
            return self.random.choice((-1, -2, -8, -128, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, -0x80000000, 65536))
        return self.random.randrange(-1 << 31, 1 << 31)

    def save(self, register: int) -> int:
        """A copy in a register that calls leave alone."""
        if register >= 6:
            return register
        copy = self.free(but=(register,), saved=True)
        self.move(copy, register)
        return copy

    def joined(self, other: dict[int, Value]) -> None:
        """After two ways met: what both agree on."""
        both = {}
        for register, value in self.registers.items():
            there = other.get(register)
            if there == value:
                both[register] = value
            elif there is not None and there.kind == value.kind == SCALAR:
                both[register] = Value(SCALAR)
        self.registers = both
