"""The typed tree: a program whose names are resolved, whose types are checked, and whose macros are gone.

Every node is an expression and has the type of its value. `span` is the user's form that it stands for. What a node
does is what `front.lower` makes of it; what can go wrong has been said by the checker before.
"""

from __future__ import annotations

from collections.abc import Sequence

from bpflisp.diagnostics import Span
from bpflisp.front.types import U64, Type
from bpflisp.front.types import Number as NumberType
from bpflisp.ir.ssa import CoreAccess
from bpflisp.lean import dataclass, field
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Op


@dataclass(slots=True, eq=False)
class Local:
    """A variable. `declared` is the type that stores truncate to, if one was given; `type` what is known by now.

    `examined`: its value went somewhere but into an address; it may have been tested for null. `addressed`: the
    address of its bytes on the stack is taken somewhere.
    """

    name: str
    type: Type = U64
    declared: NumberType | None = None
    span: Span | None = None
    reads: int = 0
    examined: bool = False
    assigned: bool = False
    addressed: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class Tree:
    """An expression."""

    type: Type = U64
    span: Span | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Number(Tree):
    """A number, as a 64-bit word: 0 to 2**64 - 1."""

    value: int


@dataclass(slots=True, eq=False, kw_only=True)
class Read(Tree):
    """What a variable holds."""

    local: Local


@dataclass(slots=True, eq=False, kw_only=True)
class Assign(Tree):
    """Give a variable a value, new or again; its value is what the variable then holds."""

    local: Local
    value: Tree


@dataclass(slots=True, eq=False, kw_only=True)
class AddressOf(Tree):
    """The address of a variable's bytes on the stack.

    They are the variable from here on, until it is assigned: then it has a value of its own again, and they stay as
    they are.
    """

    local: Local


@dataclass(slots=True, eq=False, kw_only=True)
class Progn(Tree):
    """One after the other; the value is that of the last, 0 of none."""

    items: Sequence[Tree]


@dataclass(slots=True, eq=False, kw_only=True)
class If(Tree):
    """Where the test is not 0, `then`, else `other`."""

    test: Tree
    then: Tree
    other: Tree


@dataclass(slots=True, eq=False, kw_only=True)
class Logic(Tree):
    """`and` (the last operand, or 0) or `or` (the first that is not 0, or 0); stops as soon as it is decided."""

    conjunction: bool
    items: Sequence[Tree]


@dataclass(slots=True, eq=False, kw_only=True)
class Not(Tree):
    """1 of 0, else 0."""

    operand: Tree


@dataclass(slots=True, eq=False)
class LoopMark:
    """Which loop a `break` or `continue` belongs to."""

    cleanups: int = 0
    broken: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class Count(Tree):
    """Run the body with the variable 0, 1, ... below `limit`, which is evaluated once; `signed`: it may be below 0."""

    local: Local
    limit: Tree
    body: Tree
    mark: LoopMark
    signed: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class Each(Tree):
    """Run the body with the variable each of some numbers: the body is there once for each."""

    local: Local
    values: Sequence[int]
    body: Tree
    mark: LoopMark


@dataclass(slots=True, eq=False, kw_only=True)
class While(Tree):
    """Run the body as long as the test is not 0."""

    test: Tree
    body: Tree
    mark: LoopMark


@dataclass(slots=True, eq=False, kw_only=True)
class Leave(Tree):
    """Leave a loop, or go on with its next turn (`again`), after `cleanups`."""

    mark: LoopMark
    again: bool
    cleanups: Sequence[Tree] = ()


@dataclass(slots=True, eq=False)
class BlockMark:
    """Which block a `return-from` leaves; `type` what its values are by now, None while there is none."""

    name: str
    cleanups: int = 0
    type: Type | None = None
    zero: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class Block(Tree):
    """The value of the body, or of what leaves the block."""

    body: Tree
    mark: BlockMark


@dataclass(slots=True, eq=False, kw_only=True)
class Exit(Tree):
    """Leave a block with a value; `cleanups` run after the value is known."""

    mark: BlockMark
    value: Tree
    cleanups: Sequence[Tree] = ()


@dataclass(slots=True, eq=False, kw_only=True)
class Return(Tree):
    """Leave the function with a value; `cleanups` run after the value is known."""

    value: Tree
    cleanups: Sequence[Tree] = ()


@dataclass(slots=True, eq=False, kw_only=True)
class Binary(Tree):
    """Arithmetic at 64 bits."""

    op: Op
    left: Tree
    right: Tree


@dataclass(slots=True, eq=False, kw_only=True)
class Compare(Tree):
    """1 where the comparison holds, else 0; at 64 bits."""

    op: Op
    left: Tree
    right: Tree


@dataclass(slots=True, eq=False, kw_only=True)
class Extend(Tree):
    """The low bits, extended to 64."""

    operand: Tree
    bits: int
    signed: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class Swap(Tree):
    """The low bits in the other byte order, zero-extended."""

    operand: Tree
    bits: int


@dataclass(slots=True, eq=False, kw_only=True)
class Load(Tree):
    """Bytes at an address. `core` is by what a loader moves the offset."""

    address: Tree
    off: int
    size: int
    signed: bool = False
    core: CoreAccess | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Store(Tree):
    """Write the low bytes of a value at an address; its own value is the value. `core` as of a load."""

    address: Tree
    off: int
    size: int
    value: Tree
    core: CoreAccess | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Context(Tree):
    """The pointer to the context."""


@dataclass(slots=True, eq=False, kw_only=True)
class ContextLoad(Tree):
    """A part of the context. `scalar`: it is known to be a number, and no pointer."""

    off: int
    size: int
    signed: bool = False
    scalar: bool = True
    core: CoreAccess | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class ContextStore(Tree):
    """Write a part of the context; its own value is the value."""

    off: int
    size: int
    value: Tree


@dataclass(slots=True, eq=False, kw_only=True)
class Atomic(Tree):
    """An atomic operation on 4 or 8 bytes."""

    op: Op
    address: Tree
    off: int
    size: int
    values: Sequence[Tree]
    fetch: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class Reserve(Tree):
    """The address of stack bytes, zeroed here."""

    size: int
    zeroed: bool = True


@dataclass(slots=True, eq=False, kw_only=True)
class Spill(Tree):
    """The address of `size` stack bytes that hold a value, zero-extended; good until the next call only."""

    value: Tree
    size: int


@dataclass(slots=True, eq=False, kw_only=True)
class MapAddress(Tree):
    """A map, as helpers take it; by its C name."""

    symbol: str


@dataclass(slots=True, eq=False, kw_only=True)
class DataAddress(Tree):
    """The address of global data; by its C name."""

    symbol: str


@dataclass(slots=True, eq=False, kw_only=True)
class TypeAddress(Tree):
    """The kernel object that a BTF id names."""

    number: int


@dataclass(slots=True, eq=False, kw_only=True)
class FunctionAddress(Tree):
    """A subprogram as a value; by its C name."""

    symbol: str


@dataclass(slots=True, eq=False, kw_only=True)
class CallHelper(Tree):
    """Call a helper by number."""

    number: int
    args: Sequence[Tree]


@dataclass(slots=True, eq=False, kw_only=True)
class CallFunction(Tree):
    """Call a subprogram by its C name."""

    symbol: str
    args: Sequence[Tree]


@dataclass(slots=True, eq=False, kw_only=True)
class Asm(Tree):
    """One raw instruction between register moves: (register, value) in, the register of the result out."""

    insn: Insn
    inputs: Sequence[tuple[int, Tree]] = field(default_factory=list)
    result: int | None = None
    clobbers: Sequence[int] = ()
