"""The intermediate form: functions of blocks, in static single assignment, every value a 64-bit word.

A value is a leaf (constant, address of a map, of data, of a stack slot, of a function), a parameter (of a function or
of a block), or an instruction. Where control flow joins, a block takes parameters and every edge to it hands over
arguments; there are no phi instructions. Leaves stand in no block: they are written wherever they are used, and the
back end decides in which register they live, or whether they become immediates.

Nothing here is typed: a pointer is a word. Arithmetic of width 32 takes the low halves and zero-extends its result.
A load of the context names itself (`ContextLoad`), since the kernel allows the context only at constant offsets.

Build functions with `bpflisp.ir.builder.Builder`; `bpflisp.ir.text` prints and parses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from bpflisp.lean import dataclass, field
from bpflisp.spec.alu import M64
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Op


class Position(NamedTuple):
    """Where in the source an instruction comes from; lines and columns from 1."""

    file: str
    line: int
    column: int


class Value:
    """A 64-bit word that instructions take as operand."""

    __slots__ = ()


class Leaf(Value):
    """A value that needs no computation and stands in no block. Equal leaves are the same value."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Const(Leaf):
    """A number, unsigned, 64 bits. Make it with `const`, which wraps."""

    number: int


def const(number: int) -> Const:
    """The constant `number` modulo 2**64."""
    return Const(number & M64)


@dataclass(frozen=True, slots=True)
class MapRef(Leaf):
    """The map of that name, as helpers take it."""

    symbol: str


@dataclass(frozen=True, slots=True)
class DataRef(Leaf):
    """The address of global data: the named object (or section) plus `addend` bytes."""

    symbol: str
    addend: int = 0


@dataclass(frozen=True, slots=True)
class FuncRef(Leaf):
    """A subprogram as value, for the helpers that call back."""

    symbol: str


@dataclass(frozen=True, slots=True)
class TypeRef(Leaf):
    """The kernel object that a BTF id names (`ld_imm64` with BPF_PSEUDO_BTF_ID)."""

    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Slot(Leaf):
    """The address of `size` bytes of this function's stack, aligned to `align` (at most 8) bytes.

    The bytes are not initialised: see `Zero`. The slot lives as long as the function, loops included.
    """

    size: int
    align: int = 8
    name: str = ""


@dataclass(slots=True, eq=False)
class Param(Value):
    """A parameter of a function or of a block; `name` is for the reader only."""

    name: str = ""


@dataclass(slots=True, eq=False, kw_only=True)
class Instr(Value):
    """An instruction; its result is the value itself. `args` are its operands."""

    args: list[Value] = field(default_factory=list)
    position: Position | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Binary(Instr):
    """`args[0] op args[1]` at 32 or 64 bits, by the meaning of `spec.alu.compute`.

    Operations: ADD SUB MUL DIV MOD SDIV SMOD AND OR XOR LSH RSH ARSH.
    """

    op: Op
    width: int = 64


@dataclass(slots=True, eq=False, kw_only=True)
class Compare(Instr):
    """1 where `args[0] op args[1]` holds at that width, else 0. Operations as of `spec.alu.compare`."""

    op: Op
    width: int = 64


@dataclass(slots=True, eq=False, kw_only=True)
class Extend(Instr):
    """The low `bits` (8, 16 or 32) of its operand, sign- or zero-extended to 64."""

    bits: int
    signed: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class ByteOrder(Instr):
    """The low `bits` (16, 32 or 64) of its operand, zero-extended: reversed bytes (TO_BE, SWAP) or not (TO_LE)."""

    op: Op
    bits: int


@dataclass(frozen=True, slots=True)
class CoreAccess:
    """A CO-RE relocation that the loader applies to an access's offset: which member of which type."""

    type_name: str
    access: str
    kind: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class Load(Instr):
    """`size` bytes at `args[0] + off`, zero- or sign-extended."""

    size: int
    off: int = 0
    signed: bool = False
    core: CoreAccess | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class ContextLoad(Instr):
    """`size` bytes at offset `off` of the context `args[0]`.

    `scalar` promises that the field is a number below 2**(8*size). Without it the result may be any word: the kernel
    hands out 64-bit pointers for the 4-byte fields `data`, `data_end` and `data_meta`.
    """

    size: int
    off: int = 0
    signed: bool = False
    scalar: bool = False
    core: CoreAccess | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Store(Instr):
    """Write the low `size` bytes of `args[1]` at `args[0] + off`. It gives no value."""

    size: int
    off: int = 0
    core: CoreAccess | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class ContextStore(Instr):
    """Write the low `size` bytes of `args[1]` at offset `off` of the context `args[0]`. It gives no value."""

    size: int
    off: int = 0
    core: CoreAccess | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Zero(Instr):
    """Write `size` zero bytes at `args[0] + off`, `args[0]` a slot. It gives no value."""

    size: int
    off: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class Atomic(Instr):
    """Atomically combine `size` (4 or 8) bytes at `args[0] + off` with `args[1]`.

    ADD AND OR XOR give the old value where `fetch` is set, else nothing. XCHG always gives the old value. CMPXCHG
    takes `args[1]` as the expected value and `args[2]` as the new one, and gives the old. Results are zero-extended.
    """

    op: Op
    size: int
    off: int = 0
    fetch: bool = False


class CallKind(StrEnum):
    """What a call calls."""

    HELPER = "helper"
    SUBPROGRAM = "subprogram"
    KFUNC = "kfunc"


@dataclass(slots=True, eq=False, kw_only=True)
class Call(Instr):
    """Call a helper (by `number`), or a subprogram or kfunc (by `symbol`), with up to five arguments; gives r0.

    A tail call is a call of helper 12: where it fails, the program goes on after it.
    """

    kind: CallKind = CallKind.HELPER
    number: int = 0
    symbol: str = ""


@dataclass(slots=True, eq=False, kw_only=True)
class Asm(Instr):
    """One raw instruction, between register moves.

    `args[i]` is put into machine register `inputs[i]` before it; its value is what register `result` holds after it
    (None: it gives no value). The instruction may write the registers `result` and `clobbers` and no others, and may
    read and write any memory. It may not jump.
    """

    insn: Insn
    inputs: tuple[int, ...] = ()
    result: int | None = None
    clobbers: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class Edge:
    """A way into `block`, with one argument for each of its parameters."""

    block: Block
    args: list[Value] = field(default_factory=list)


@dataclass(slots=True, eq=False, kw_only=True)
class Terminator(Instr):
    """The last instruction of a block. It gives no value."""

    def edges(self) -> tuple[Edge, ...]:
        """The ways out, in order."""
        return ()

    def targets(self) -> list[Block]:
        """Where the ways out lead, in order: asked for so often that each kind says it by itself."""
        return []


@dataclass(slots=True, eq=False, kw_only=True)
class Jump(Terminator):
    """Go on at `to`."""

    to: Edge

    def edges(self) -> tuple[Edge, ...]:
        """The one way out."""
        return (self.to,)

    def targets(self) -> list[Block]:
        """Where it leads."""
        return [self.to.block]


@dataclass(slots=True, eq=False, kw_only=True)
class Branch(Terminator):
    """Go on at `then` where `args[0] op args[1]` holds at that width, else at `other`."""

    op: Op
    then: Edge
    other: Edge
    width: int = 64

    def edges(self) -> tuple[Edge, ...]:
        """Taken, then not taken."""
        return (self.then, self.other)

    def targets(self) -> list[Block]:
        """Where they lead."""
        return [self.then.block, self.other.block]


@dataclass(slots=True, eq=False, kw_only=True)
class Return(Terminator):
    """Leave the function with the value `args[0]`, or without one where `args` is empty."""


@dataclass(slots=True, eq=False, kw_only=True)
class Unreachable(Terminator):
    """Control cannot come here; that it may is a bug of who built the function."""


@dataclass(slots=True, eq=False)
class Block:
    """Instructions that run one after the other, the terminator last."""

    params: list[Param] = field(default_factory=list)
    body: list[Instr] = field(default_factory=list)
    end: Terminator | None = None
    name: str = ""

    @property
    def terminator(self) -> Terminator:
        """The last instruction; ValueError where the block has none yet."""
        if self.end is None:
            raise ValueError(f"block {self.name or '?'} has no terminator")
        return self.end

    def instructions(self) -> Iterator[Instr]:
        """The body, then the terminator."""
        yield from self.body
        yield self.terminator

    def successors(self) -> list[Block]:
        """Where control may go from here; a block that is reached by two edges comes twice."""
        return (self.end or self.terminator).targets()


@dataclass(slots=True, eq=False)
class Function:
    """A program, which takes its context, or a subprogram of up to five parameters. `blocks[0]` is the entry."""

    name: str
    params: list[Param] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    program: bool = True
    position: Position | None = None

    @property
    def entry(self) -> Block:
        """Where it starts; no edge leads there."""
        return self.blocks[0]

    def instructions(self) -> Iterator[Instr]:
        """All instructions, block by block."""
        for block in self.blocks:
            yield from block.body
            yield block.terminator

    def slots(self) -> list[Slot]:
        """The stack slots that some instruction mentions, in order of their first mention."""
        seen: dict[Slot, None] = {}
        for instr in self.instructions():
            for value in operands(instr):
                if isinstance(value, Slot):
                    seen[value] = None
        return list(seen)


@dataclass(slots=True)
class Data:
    """A global object: `section` is `.rodata`, `.data` or `.bss`."""

    name: str
    section: str
    content: bytes
    align: int = 8


@dataclass(slots=True)
class Module:
    """What one source file compiles to: functions, global data, and the names of the maps they may mention."""

    functions: dict[str, Function] = field(default_factory=dict)
    data: dict[str, Data] = field(default_factory=dict)
    maps: list[str] = field(default_factory=list)


BINARY_OPS = (
    *(Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.MOD, Op.SDIV, Op.SMOD),
    *(Op.AND, Op.OR, Op.XOR, Op.LSH, Op.RSH, Op.ARSH),
)
"""The operations that a `Binary` may have."""

COMPARE_OPS = (Op.EQ, Op.NE, Op.GT, Op.GE, Op.LT, Op.LE, Op.SET, Op.SGT, Op.SGE, Op.SLT, Op.SLE)
"""The operations that a `Compare` or a `Branch` may have."""

MEMORY = (Load, Store, Zero, Atomic)
"""The instructions that read or write memory at an address and a distance, the context's aside."""

NO_RESULT = (Store, ContextStore, Zero, Terminator)


def has_result(instr: Instr) -> bool:
    """Whether the instruction gives a value that others may use."""
    if isinstance(instr, Atomic):
        return instr.fetch or instr.op in (Op.XCHG, Op.CMPXCHG)
    if isinstance(instr, Asm):
        return instr.result is not None
    return not isinstance(instr, NO_RESULT)


def operands(instr: Instr) -> Sequence[Value]:
    """Every value that the instruction reads, arguments of its edges included."""
    if not isinstance(instr, Terminator):
        return instr.args
    found = list(instr.args)
    for edge in instr.edges():
        found += edge.args
    return found


def replace_values(function: Function, new: Mapping[Value, Value]) -> None:
    """Write `new[v]` wherever an operand is `v`, through chains. `new` may not map in a circle."""
    if not new:
        return

    def final(value: Value) -> Value:
        while value in new:
            value = new[value]
        return value

    for instr in function.instructions():
        found = {v: final(v) for v in operands(instr) if v in new}
        if found:
            replace_operands(instr, found)


def replace_operands(instr: Instr, new: Mapping[Value, Value]) -> None:
    """Write `new[v]` for each operand `v` of this instruction that `new` has; edges' arguments included."""
    if not new:
        return
    instr.args[:] = [new.get(v, v) for v in instr.args]
    if isinstance(instr, Terminator):
        for edge in instr.edges():
            edge.args[:] = [new.get(v, v) for v in edge.args]


def incoming_edges(function: Function) -> dict[Block, list[tuple[Block, Edge]]]:
    """For each block, the edges that lead to it, each with the block that it leaves."""
    incoming: dict[Block, list[tuple[Block, Edge]]] = {block: [] for block in function.blocks}
    for block in function.blocks:
        end = block.end or block.terminator
        for edge in end.edges():
            incoming[edge.block].append((block, edge))
    return incoming


def count_uses(instructions: Iterable[Instr]) -> dict[Value, int]:
    """How often each value that is no leaf is read."""
    uses: dict[Value, int] = {}
    for instr in instructions:
        for value in operands(instr):
            if not isinstance(value, Leaf):
                uses[value] = uses.get(value, 0) + 1
    return uses
