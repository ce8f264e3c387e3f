"""Lowering: the typed tree to SSA. Nothing can go wrong here: the checker has seen everything.

Variables become SSA values by the builder. Where control leaves (`return`, `break`), lowering of what would follow is
given up by an exception up to the nearest place where control can join again.
"""

from __future__ import annotations

from contextlib import suppress

from bpflisp.diagnostics import Span
from bpflisp.front import tree
from bpflisp.front.tree import BlockMark, Local, LoopMark, Tree
from bpflisp.front.types import U64, Pointer, Region
from bpflisp.ir.builder import Builder
from bpflisp.ir.ssa import (
    Block,
    Const,
    DataRef,
    FuncRef,
    Function,
    MapRef,
    Position,
    Slot,
    TypeRef,
    Value,
    const,
)
from bpflisp.spec.isa import Op


class _Left(Exception):  # noqa: N818  (no error)
    """Control has left: the current block is closed."""


class _Key:
    """A hidden variable of the builder: where the value of an expression meets from several ways."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Lowering:
    """Lowers one function's body."""

    def __init__(self, name: str, params: list[Local], program: bool, span: Span | None) -> None:
        names = ["ctx"] if program else [param.name.lower() for param in params]
        self.b = Builder(name, names, program, _position(span))
        self.targets: set[Block] = set()
        self.loops: dict[LoopMark, tuple[Block, Block]] = {}
        self.blocks: dict[BlockMark, tuple[Block, _Key]] = {}
        self.free: dict[int, list[Slot]] = {}
        self.spilled: list[Slot] = []
        self.homes: dict[Local, tuple[Slot, _Key]] = {}
        self.context: Value = self.b.params[0] if program else const(0)
        for param, value in zip(params, self.b.params, strict=False):
            self._assign(param, value)
            if isinstance(param.type, Pointer) and param.type.region is Region.CONTEXT:
                self.context = value

    def function(self, body: Tree) -> Function:
        """The function of a body, which returns on every way."""
        try:
            value = self.value(body)
            self.b.ret(value)
        except _Left:
            pass
        return self.b.finish()

    # Control

    def _jump(self, block: Block) -> None:
        self.targets.add(block)
        self.b.jump(block)

    def _branch(self, op: Op, left: Value, right: Value, then: Block, other: Block) -> None:
        self.targets |= {then, other}
        self.b.branch(op, left, right, then, other)

    def _continue_in(self, block: Block) -> None:
        """Go on in a block, all of whose ways in are known; if there are none, control has left."""
        self.b.seal(block)
        self.b.start(block)
        if block not in self.targets:
            self.b.unreachable()
            raise _Left

    def test(self, node: Tree, then: Block, other: Block) -> None:
        """Go to `then` where the value is not 0, else to `other`; without making a value of it where possible."""
        match node:
            case tree.Compare(op=op, left=left, right=right):
                values = self._values([left, right])
                self._at(node.span)
                self._branch(op, values[0], values[1], then, other)
            case tree.Not(operand=operand):
                self.test(operand, other, then)
            case tree.Number(value=number):
                self._jump(then if number else other)
            case tree.Logic(conjunction=conjunction, items=items):
                self._test_all(conjunction, list(items), then, other)
            case tree.Progn(items=items) if items:
                for item in items[:-1]:
                    self.effect(item)
                self.test(items[-1], then, other)
            case _:
                value = self.value(node)
                self._at(node.span)
                self._branch(Op.NE, value, const(0), then, other)

    def _test_all(self, conjunction: bool, items: list[Tree], then: Block, other: Block) -> None:
        for item in items[:-1]:
            following = self.b.block()
            # What leaves in the middle of a test may have led to its blocks before: they are still to be filled.
            with suppress(_Left):
                self.test(item, following if conjunction else then, other if conjunction else following)
            self._continue_in(following)
        self.test(items[-1], then, other)

    def _if(self, node: tree.If, wanted: bool) -> Value:
        then, other, join = self.b.block("then"), self.b.block("else"), self.b.block("join")
        result = _Key("if")
        with suppress(_Left):
            self.test(node.test, then, other)
        for block, arm in ((then, node.then), (other, node.other)):
            try:
                self._continue_in(block)
                value = self.value(arm) if wanted else self.effect(arm)
                self.b.write_variable(result, value)
                self._jump(join)
            except _Left:
                pass
        self._continue_in(join)
        return self.b.read_variable(result) if wanted else const(0)

    def _logic(self, node: tree.Logic) -> Value:
        """The value of `and`: the last operand, or 0; of `or`: the first that is not 0, or 0."""
        join, result = self.b.block("join"), _Key("logic")
        try:
            for index, item in enumerate(node.items):
                if index == len(node.items) - 1:
                    self.b.write_variable(result, self.value(item))
                    self._jump(join)
                    break
                following, decided = self.b.block(), self.b.block()
                if node.conjunction:
                    with suppress(_Left):
                        self.test(item, following, decided)
                    self._decide(decided, result, const(0), join)
                else:
                    value = self.value(item)
                    self._branch(Op.NE, value, const(0), decided, following)
                    self._decide(decided, result, value, join)
                self._continue_in(following)
        except _Left:
            pass
        self._continue_in(join)
        return self.b.read_variable(result)

    def _decide(self, block: Block, result: _Key, value: Value, join: Block) -> None:
        """In `block`, the outcome is known: go on with it."""
        try:
            self._continue_in(block)
        except _Left:
            return
        self.b.write_variable(result, value)
        self._jump(join)

    def _materialised(self, node: Tree) -> Value:
        """1 or 0, of a test that is no plain comparison."""
        then, other, join = self.b.block(), self.b.block(), self.b.block("join")
        result = _Key("test")
        with suppress(_Left):
            self.test(node, then, other)
        self._decide(then, result, const(1), join)
        self._decide(other, result, const(0), join)
        self._continue_in(join)
        return self.b.read_variable(result)

    def _count(self, node: tree.Count) -> Value:
        """The counter is hidden: what the body assigns to its variable does not change the number of turns."""
        limit = self.value(node.limit)
        counter = _Key(node.local.name.lower())
        head, body, step, done = (self.b.block(name) for name in ("loop", "body", "step", "done"))
        self.b.write_variable(counter, const(0))
        self._jump(head)
        self.b.start(head)
        self._at(node.span)
        self._branch(Op.SLT if node.signed else Op.LT, self.b.read_variable(counter), limit, body, done)
        self.loops[node.mark] = (step, done)
        try:
            self._continue_in(body)
            self._assign(node.local, self.b.read_variable(counter))
            self.effect(node.body)
            self._jump(step)
        except _Left:
            pass
        try:
            self._continue_in(step)
            self.b.write_variable(counter, self.b.add(self.b.read_variable(counter), const(1)))
            self._jump(head)
        except _Left:
            pass
        self.b.seal(head)
        self._continue_in(done)
        return const(0)

    def _each(self, node: tree.Each) -> Value:
        done = self.b.block("done")
        try:
            for number in node.values:
                following = self.b.block("next")
                self.loops[node.mark] = (following, done)
                self._assign(node.local, const(number))
                try:
                    self.effect(node.body)
                    self._jump(following)
                except _Left:
                    pass
                self._continue_in(following)
            self._jump(done)
        except _Left:
            pass
        self._continue_in(done)
        return const(0)

    def _while(self, node: tree.While) -> Value:
        head, body, done = (self.b.block(name) for name in ("while", "body", "done"))
        self._jump(head)
        self.b.start(head)
        self.loops[node.mark] = (head, done)
        try:
            with suppress(_Left):
                self.test(node.test, body, done)
            self._continue_in(body)
            self.effect(node.body)
            self._jump(head)
        except _Left:
            pass
        if body not in self.targets:
            self.b.seal(body)
        self.b.seal(head)
        self._continue_in(done)
        return const(0)

    def _block(self, node: tree.Block) -> Value:
        done, result = self.b.block("done"), _Key("block")
        self.blocks[node.mark] = (done, result)
        with suppress(_Left):
            self.b.write_variable(result, self.value(node.body))
            self._jump(done)
        self._continue_in(done)
        return self.b.read_variable(result)

    # Variables

    def _assign(self, local: Local, value: Value) -> None:
        self.b.write_variable(local, value)
        if local.addressed:
            self.b.write_variable(self._home(local)[1], const(0))

    def _home(self, local: Local) -> tuple[Slot, _Key]:
        """Where a variable lies whose address is taken, and what says whether it does so at some point: 1 or 0."""
        if local not in self.homes:
            self.homes[local] = self.b.slot(8, name=f"`{local.name.lower()}`"), _Key("in memory")
        return self.homes[local]

    def _address_of(self, local: Local) -> Value:
        """Put the variable's value where its address is."""
        value = self._read(local)
        slot, in_memory = self._home(local)
        self.b.store(slot, 0, 8, value)
        self.b.write_variable(in_memory, const(1))
        return slot

    def _read(self, local: Local) -> Value:
        """What the variable is: a value, or, since its address was taken, what lies there.

        Which of the two is nearly always known here. Where it is not (paths meet, a loop goes round), it is tested.
        """
        if not local.addressed:
            return self.b.read_variable(local)
        slot, in_memory = self._home(local)
        flag = self.b.read_variable(in_memory)
        kind = local.declared or U64
        if isinstance(flag, Const):
            return self.b.load(slot, 0, kind.size, kind.signed) if flag.number else self.b.read_variable(local)
        then, other, join, result = self.b.block(), self.b.block(), self.b.block("join"), _Key("variable")
        self._branch(Op.NE, flag, const(0), then, other)
        for block in (then, other):
            self._continue_in(block)
            value = self.b.load(slot, 0, kind.size, kind.signed) if block is then else self.b.read_variable(local)
            self.b.write_variable(result, value)
            self._jump(join)
        self._continue_in(join)
        return self.b.read_variable(result)

    # Expressions

    def _at(self, span: Span | None) -> None:
        position = _position(span)
        if position is not None:
            self.b.position = position

    def _values(self, nodes: list[Tree]) -> list[Value]:
        """Values, left to right."""
        return [self.value(node) for node in nodes]

    def effect(self, node: Tree) -> Value:
        """Lower for its effect alone; the value says nothing."""
        match node:
            case tree.If():
                return self._if(node, wanted=False)
            case tree.Progn(items=items):
                for item in items:
                    self.effect(item)
                return const(0)
            case tree.Logic():
                return self._materialised(node)
            case _:
                return self.value(node)

    def value(self, node: Tree) -> Value:
        """Lower an expression to its value."""
        match node:
            case tree.Number(value=number):
                return const(number)
            case tree.Read(local=local):
                return self._read(local)
            case tree.Assign(local=local, value=init):
                value = self.value(init)
                self._assign(local, value)
                return value
            case tree.Progn(items=items):
                for item in items[:-1]:
                    self.effect(item)
                return self.value(items[-1]) if items else const(0)
            case tree.If():
                return self._if(node, wanted=True)
            case tree.Logic():
                return self._logic(node)
            case tree.Count():
                return self._count(node)
            case tree.Each():
                return self._each(node)
            case tree.While():
                return self._while(node)
            case tree.Block():
                return self._block(node)
            case tree.Return() | tree.Leave() | tree.Exit():
                self._leave(node)
        return self._operation(node)

    def _leave(self, node: tree.Return | tree.Leave | tree.Exit) -> None:
        value = const(0) if isinstance(node, tree.Leave) else self.value(node.value)
        for cleanup in node.cleanups:
            self.effect(cleanup)
        self._at(node.span)
        if isinstance(node, tree.Return):
            self.b.ret(value)
        elif isinstance(node, tree.Exit):
            done, result = self.blocks[node.mark]
            self.b.write_variable(result, value)
            self._jump(done)
        else:
            self._jump(self.loops[node.mark][0 if node.again else 1])
        raise _Left

    def _operation(self, node: Tree) -> Value:
        """Nodes without control flow of their own."""
        match node:
            case tree.Binary(op=op, left=left, right=right):
                a, b = self._values([left, right])
                self._at(node.span)
                return self.b.binary(op, a, b)
            case tree.Compare(op=op, left=left, right=right):
                a, b = self._values([left, right])
                self._at(node.span)
                return self.b.compare(op, a, b)
            case tree.Not(operand=operand):
                return self._not(operand)
            case tree.Extend(operand=operand, bits=bits, signed=signed):
                return self.b.extend(self.value(operand), bits, signed)
            case tree.Swap(operand=operand, bits=bits):
                return self.b.byte_order(self.value(operand), bits)
            case _:
                return self._access(node)

    def _not(self, operand: Tree) -> Value:
        if isinstance(operand, tree.Logic):
            return self._materialised(tree.Not(operand=operand))
        return self.b.compare(Op.EQ, self.value(operand), const(0))

    def _access(self, node: Tree) -> Value:
        match node:
            case tree.Load(address=address, off=off, size=size, signed=signed, core=core):
                base = self.value(address)
                self._at(node.span)
                return self.b.load(base, off, size, signed, core)
            case tree.Store(address=address, off=off, size=size, value=stored, core=core):
                base, value = self._values([address, stored])
                self._at(node.span)
                self.b.store(base, off, size, value, core)
                return value
            case tree.ContextLoad(off=off, size=size, signed=signed, scalar=scalar, core=core):
                self._at(node.span)
                return self.b.context_load(self.context, off, size, signed, scalar, core)
            case tree.ContextStore(off=off, size=size, value=stored):
                value = self.value(stored)
                self._at(node.span)
                self.b.context_store(self.context, off, size, value)
                return value
            case tree.Atomic(op=op, address=address, off=off, size=size, values=operands, fetch=fetch):
                base, *rest = self._values([address, *operands])
                self._at(node.span)
                old = self.b.atomic(op, base, off, size, *rest, fetch=fetch)
                return old if fetch else const(0)
            case _:
                return self._address(node)

    def _address(self, node: Tree) -> Value:
        match node:
            case tree.Context():
                return self.context
            case tree.MapAddress(symbol=symbol):
                return MapRef(symbol)
            case tree.DataAddress(symbol=symbol):
                return DataRef(symbol)
            case tree.TypeAddress(number=number):
                return TypeRef(number)
            case tree.FunctionAddress(symbol=symbol):
                return FuncRef(symbol)
            case tree.AddressOf(local=local):
                self._at(node.span)
                return self._address_of(local)
            case tree.Reserve(size=size, zeroed=zeroed):
                self._at(node.span)
                return self.b.slot(size, zeroed=zeroed, name=_shown(node))
            case tree.Spill(value=stored, size=size):
                return self._spill(self.value(stored), size, node.span)
            case _:
                return self._call(node)

    def _call(self, node: Tree) -> Value:
        spilled, self.spilled = self.spilled, []
        match node:
            case tree.CallHelper(number=number, args=args):
                values = self._values(list(args))
                self._at(node.span)
                result = self.b.call_helper(number, *values)
            case tree.CallFunction(symbol=symbol, args=args):
                values = self._values(list(args))
                self._at(node.span)
                result = self.b.call_subprogram(symbol, *values)
            case tree.Asm(insn=insn, inputs=inputs, result=register, clobbers=clobbers):
                values = self._values([value for _, value in inputs])
                pairs = [(number, value) for (number, _), value in zip(inputs, values, strict=True)]
                self._at(node.span)
                asm = self.b.asm(insn, pairs, register, clobbers)
                result = asm if register is not None else const(0)
            case _:
                raise TypeError(f"no lowering of {type(node).__name__}")
        # Nobody but the call has seen the addresses of what was put on the stack for it: the room is free again.
        for slot in self.spilled:
            self.free.setdefault(slot.size, []).append(slot)
        self.spilled = spilled
        return result

    def _spill(self, value: Value, size: int, span: Span | None) -> Value:
        """A value in stack bytes, its address; zero-extended where it is narrower than `size`."""
        self._at(span)
        room = -(-size // 8) * 8
        free = self.free.get(room)
        slot = free.pop() if free else self.b.slot(room, name="keys and values")
        width = size if size in (1, 2, 4) else 8
        self.b.store(slot, 0, width, value)
        if room > 8:
            self.b.zero(slot, 8, room - 8)
        self.spilled.append(slot)
        return slot


def _shown(node: tree.Reserve) -> str:
    """What a piece of stack is for, in messages."""
    struct = node.type.struct if isinstance(node.type, Pointer) else None
    return f"(make-{struct.name.lower()})" if struct else f"(struct-alloc {node.size})"


def _position(span: Span | None) -> Position | None:
    if span is None:
        return None
    line, column = span.source.position(span.start)
    return Position(span.source.name, line, column)


def lower(name: str, body: Tree, span: Span | None) -> Function:
    """A program's tree as SSA."""
    return Lowering(name, [], True, span).function(body)


def lower_subprogram(name: str, params: list[Local], body: Tree, span: Span | None) -> Function:
    """A subprogram's tree as SSA."""
    return Lowering(name, params, False, span).function(body)
