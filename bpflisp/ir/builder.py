"""Builds a function from the top, and turns mutable variables into SSA values on the way.

The construction is the one of Braun et al., "Simple and Efficient Construction of Static Single Assignment Form"
(2013), with block parameters for phis. A front end makes blocks with `block`, fills the current one, says with
`write_variable` what a variable holds from here on, asks with `read_variable` what it holds here, and calls `seal` on
a block once every jump to it has been emitted (at once for the arms of an `if`, after the back edge for a loop's
header). `finish` seals what is left, drops parameters that turned out to be needless, and hands the function over.

    b = Builder("count")
    ctx = b.params[0]
    data = b.context_load(ctx, 0, 4)
    more, short = b.block("more"), b.block("short")
    b.branch(Op.GT, b.add(data, const(14)), b.context_load(ctx, 4, 4), short, more)
    b.seal(more); b.seal(short)
    b.start(short); b.ret(const(2))
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

from bpflisp.ir import ssa
from bpflisp.ir.ssa import (
    Block,
    CallKind,
    CoreAccess,
    Edge,
    Function,
    Instr,
    Param,
    Position,
    Slot,
    Terminator,
    Value,
    const,
)
from bpflisp.ir.trivial import remove_trivial_params
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Op

AnyInstr = TypeVar("AnyInstr", bound=Instr)

TAIL_CALL = 12
"""The number of the helper `bpf_tail_call`."""


class Builder:
    """Appends instructions to a current block. `position` is written into every instruction that follows.

    `params` are the function's parameters: the context alone for a program. Emitting into a block that has its
    terminator already raises ValueError, so a front end asks `open` after what may have returned or broken out.
    """

    def __init__(
        self, name: str, params: Sequence[str] = ("ctx",), program: bool = True, position: Position | None = None
    ) -> None:
        self.function = Function(name, [Param(p) for p in params], program=program, position=position)
        self.position = position
        self._definitions: dict[Block, dict[Hashable, Value]] = {}
        self._incoming: dict[Block, list[tuple[Block, Edge]]] = {}
        self._sealed: set[Block] = set()
        self._unfilled: dict[Block, list[tuple[Hashable, Param]]] = {}
        self.current = self.block("entry")
        self.seal(self.current)

    @property
    def params(self) -> list[Param]:
        """The function's parameters."""
        return self.function.params

    @property
    def open(self) -> bool:
        """Whether the current block still takes instructions."""
        return self.current.end is None

    # Blocks

    def block(self, name: str = "") -> Block:
        """A new, empty block at the end of the function. It does not become the current one."""
        block = Block(name=name)
        self.function.blocks.append(block)
        self._definitions[block] = {}
        self._incoming[block] = []
        return block

    def start(self, block: Block) -> None:
        """Go on in this block."""
        self.current = block

    def seal(self, block: Block) -> None:
        """Say that no further jump to this block will come."""
        self._sealed.add(block)
        self._fill([(block, variable, param) for variable, param in self._unfilled.pop(block, [])])

    def finish(self) -> Function:
        """The function, in which every block can be reached and has its terminator."""
        for block in self.function.blocks:
            if block not in self._sealed:
                self.seal(block)
        self._drop_unreachable()
        remove_trivial_params(self.function)
        return self.function

    def _drop_unreachable(self) -> None:
        reached = {self.function.entry}
        todo = [self.function.entry]
        while todo:
            for successor in todo.pop().successors():
                if successor not in reached:
                    reached.add(successor)
                    todo.append(successor)
        self.function.blocks = [block for block in self.function.blocks if block in reached]

    # Variables

    def write_variable(self, variable: Hashable, value: Value) -> None:
        """From here on in the current block, the variable holds this value."""
        self._definitions[self.current][variable] = value

    def read_variable(self, variable: Hashable) -> Value:
        """What the variable holds here. KeyError where it is not written on some way to here.

        In a block that no jump leads to (what stands after two arms that both return) it is 0.
        """
        todo: list[tuple[Block, Hashable, Param]] = []
        value = self._look_up(self.current, variable, todo)
        self._fill(todo)
        return value

    def _look_up(self, block: Block, variable: Hashable, todo: list[tuple[Block, Hashable, Param]]) -> Value:
        """The definition that reaches the end of `block`; what has to be merged for it is put on `todo`."""
        passed = []
        while variable not in self._definitions[block]:
            passed.append(block)
            if block in self._sealed and len(self._incoming[block]) == 1:
                block = self._incoming[block][0][0]
                continue
            self._merge(block, variable, todo)
        value = self._definitions[block][variable]
        for earlier in passed:
            self._definitions[earlier][variable] = value
        return value

    def _merge(self, block: Block, variable: Hashable, todo: list[tuple[Block, Hashable, Param]]) -> None:
        """Give the block a parameter for the variable, to be filled once the block is sealed."""
        if block in self._sealed and not self._incoming[block]:
            if block is self.function.entry:
                raise KeyError(f"{variable!r} is read before it is written")
            self._definitions[block][variable] = const(0)  # Dead code: any value will do.
            return
        param = Param(str(getattr(variable, "name", variable)))
        block.params.append(param)
        self._definitions[block][variable] = param
        if block in self._sealed:
            todo.append((block, variable, param))
        else:
            self._unfilled.setdefault(block, []).append((variable, param))

    def _fill(self, todo: list[tuple[Block, Hashable, Param]]) -> None:
        """Hand over the variable on every edge to a block that merges it. No recursion: functions can be long.

        An edge's arguments have to stay in the order of the block's parameters, and parameters may be filled in
        another order than they were made in; so the edge takes the argument at the parameter's own index.
        """
        while todo:
            block, variable, param = todo.pop()
            index = block.params.index(param)
            for source, edge in self._incoming[block]:
                value = self._look_up(source, variable, todo)
                edge.args.extend([param] * (index + 1 - len(edge.args)))
                edge.args[index] = value

    # Instructions

    def emit(self, instr: AnyInstr) -> AnyInstr:
        """Append any instruction to the current block, at the current position."""
        if self.current.end is not None:
            raise ValueError(f"block {self.current.name or '?'} is closed already")
        if instr.position is None:
            instr.position = self.position
        if isinstance(instr, Terminator):
            self.current.end = instr
            for edge in instr.edges():
                if edge.block in self._sealed:
                    raise ValueError(f"block {edge.block.name or '?'} is sealed, and gets another edge")
                self._incoming[edge.block].append((self.current, edge))
        else:
            self.current.body.append(instr)
        return instr

    def binary(self, op: Op, left: Value, right: Value, width: int = 64) -> Value:
        """`left op right`: arithmetic of `spec.alu.compute`, NEG and MOV excepted."""
        return self.emit(ssa.Binary(args=[left, right], op=op, width=width))

    def add(self, left: Value, right: Value) -> Value:
        """The 64-bit sum."""
        return self.binary(Op.ADD, left, right)

    def negate(self, value: Value, width: int = 64) -> Value:
        """Zero minus the value."""
        return self.binary(Op.SUB, const(0), value, width)

    def compare(self, op: Op, left: Value, right: Value, width: int = 64) -> Value:
        """1 or 0. To branch on a comparison, `branch` takes it directly."""
        return self.emit(ssa.Compare(args=[left, right], op=op, width=width))

    def extend(self, value: Value, bits: int, signed: bool = False) -> Value:
        """The low 8, 16 or 32 bits, extended to 64."""
        return self.emit(ssa.Extend(args=[value], bits=bits, signed=signed))

    def byte_order(self, value: Value, bits: int, op: Op = Op.TO_BE) -> Value:
        """The low 16, 32 or 64 bits in the other byte order (TO_BE, SWAP) or in the same (TO_LE), zero-extended."""
        return self.emit(ssa.ByteOrder(args=[value], op=op, bits=bits))

    def load(self, address: Value, off: int, size: int, signed: bool = False, core: CoreAccess | None = None) -> Value:
        """1, 2, 4 or 8 bytes at `address + off`."""
        return self.emit(ssa.Load(args=[address], size=size, off=off, signed=signed, core=core))

    def store(self, address: Value, off: int, size: int, value: Value, core: CoreAccess | None = None) -> None:
        """Write the low bytes of the value at `address + off`."""
        self.emit(ssa.Store(args=[address, value], size=size, off=off, core=core))

    def context_load(
        self,
        context: Value,
        off: int,
        size: int,
        signed: bool = False,
        scalar: bool = False,
        core: CoreAccess | None = None,
    ) -> Value:
        """A field of the context. Say `scalar` where it is known to be a number and no pointer."""
        instr = ssa.ContextLoad(args=[context], size=size, off=off, signed=signed, scalar=scalar, core=core)
        return self.emit(instr)

    def context_store(self, context: Value, off: int, size: int, value: Value, core: CoreAccess | None = None) -> None:
        """Write a field of the context."""
        self.emit(ssa.ContextStore(args=[context, value], size=size, off=off, core=core))

    def slot(self, size: int, align: int = 8, zeroed: bool = False, name: str = "") -> Slot:
        """The address of a new stack slot; `zeroed` fills it with zeros here, each time control comes by."""
        slot = Slot(size, align, name)
        if zeroed:
            self.zero(slot, 0, size)
        return slot

    def zero(self, slot: Slot, off: int, size: int) -> None:
        """Write zeros into a part of a stack slot."""
        self.emit(ssa.Zero(args=[slot], off=off, size=size))

    def atomic(self, op: Op, address: Value, off: int, size: int, *values: Value, fetch: bool = False) -> Value:
        """ADD, AND, OR, XOR or XCHG with one value, CMPXCHG with the expected and the new one; see `ssa.Atomic`."""
        instr = ssa.Atomic(args=[address, *values], op=op, size=size, off=off, fetch=fetch)
        return self.emit(instr)

    def call_helper(self, number: int, *args: Value) -> Value:
        """Call the helper of that number."""
        return self.emit(ssa.Call(args=list(args), number=number))

    def call_subprogram(self, name: str, *args: Value) -> Value:
        """Call another function of the module."""
        return self.emit(ssa.Call(args=list(args), kind=CallKind.SUBPROGRAM, symbol=name))

    def call_kfunc(self, name: str, *args: Value) -> Value:
        """Call a kernel function by name."""
        return self.emit(ssa.Call(args=list(args), kind=CallKind.KFUNC, symbol=name))

    def tail_call(self, context: Value, programs: Value, index: Value) -> Value:
        """Jump into another program; comes back, with a value that says nothing, only where that fails."""
        return self.call_helper(TAIL_CALL, context, programs, index)

    def asm(
        self,
        insn: Insn,
        inputs: Sequence[tuple[int, Value]] = (),
        result: int | None = None,
        clobbers: Sequence[int] = (),
    ) -> Value:
        """One raw instruction; `inputs` pairs machine registers with the values that they hold before it."""
        registers = tuple(register for register, _ in inputs)
        values = [value for _, value in inputs]
        instr = ssa.Asm(args=values, insn=insn, inputs=registers, result=result, clobbers=tuple(clobbers))
        return self.emit(instr)

    # Terminators

    def jump(self, block: Block) -> None:
        """Close the current block: go on there."""
        self.emit(ssa.Jump(to=Edge(block)))

    def branch(self, op: Op, left: Value, right: Value, then: Block, other: Block, width: int = 64) -> None:
        """Close the current block: to `then` where `left op right` holds, else to `other`."""
        self.emit(ssa.Branch(args=[left, right], op=op, width=width, then=Edge(then), other=Edge(other)))

    def ret(self, value: Value | None = None) -> None:
        """Close the current block: leave the function."""
        self.emit(ssa.Return(args=[] if value is None else [value]))

    def unreachable(self) -> None:
        """Close the current block: control never comes here."""
        self.emit(ssa.Unreachable())
