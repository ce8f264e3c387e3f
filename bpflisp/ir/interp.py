"""Runs functions of the intermediate form: what they mean, for tests that compare passes and compiled code with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import singledispatchmethod

from bpflisp.ir import ssa
from bpflisp.ir.ssa import Call, CallKind, Function, Instr, Leaf, Slot, Value
from bpflisp.lean import dataclass, field
from bpflisp.spec.alu import M64, byte_order, compare, compute, signed
from bpflisp.spec.isa import Op

STACK_BASE = 0x7F00_0000
_STEPS = 100_000


class TrapError(Exception):
    """The run did what has no meaning: touched memory that is not there, or ran on and on."""


@dataclass(slots=True)
class Memory:
    """Separate regions of bytes at fixed addresses."""

    regions: dict[int, bytearray] = field(default_factory=dict)

    def add(self, base: int, content: bytes) -> int:
        """Put a region there; gives its address."""
        self.regions[base] = bytearray(content)
        return base

    def find(self, address: int, size: int) -> tuple[bytearray, int]:
        """The region that holds these bytes, and where in it they begin; TrapError where none does."""
        for base, content in self.regions.items():
            if base <= address and address + size <= base + len(content):
                return content, address - base
        raise TrapError(f"no memory of {size} bytes at {address:#x}")

    def read(self, address: int, size: int) -> int:
        """The number there, little-endian."""
        content, at = self.find(address, size)
        return int.from_bytes(content[at : at + size], "little")

    def write(self, address: int, size: int, number: int) -> None:
        """Write the low bytes of the number."""
        content, at = self.find(address, size)
        content[at : at + size] = (number & ((1 << (size * 8)) - 1)).to_bytes(size, "little")


Helper = Callable[[str | int, Sequence[int], Memory], int]
"""Called with a helper's number or a kfunc's name, the arguments, and the memory; gives r0."""


def run(
    function: Function,
    args: Sequence[int],
    memory: Memory,
    helper: Helper,
    symbols: Mapping[Leaf, int],
    functions: Mapping[str, Function],
) -> int | None:
    """What the function returns. `symbols` has the addresses of maps and data; `functions` what may be called."""
    return _Run(memory, helper, symbols, functions).call(function, args)


class _Run:
    def __init__(
        self, memory: Memory, helper: Helper, symbols: Mapping[Leaf, int], functions: Mapping[str, Function]
    ) -> None:
        self.memory = memory
        self.helper = helper
        self.symbols = symbols
        self.functions = functions
        self.values: dict[Value, int] = {}
        self.steps = 0
        self.next_slot = STACK_BASE

    def call(self, function: Function, args: Sequence[int]) -> int | None:
        outer = self.values
        self.values = dict(zip(function.params, (a & M64 for a in args), strict=True))
        for slot in function.slots():
            self.values[slot] = self.memory.add(self.next_slot, bytes(slot.size))
            self.next_slot += (slot.size + 15) // 8 * 8 + 64
        block = function.entry
        while True:
            for instr in block.body:
                self.steps += 1
                result = self._step(instr)
                if ssa.has_result(instr):
                    self.values[instr] = (0 if result is None else result) & M64
            self.steps += 1
            if self.steps > _STEPS:
                raise TrapError("it does not come to an end")
            end = block.terminator
            if isinstance(end, ssa.Return):
                result = self.value(end.args[0]) if end.args else None
                self.values = outer
                return result
            block = self._follow(end)

    def _follow(self, end: ssa.Terminator) -> ssa.Block:
        match end:
            case ssa.Jump():
                edge = end.to
            case ssa.Branch():
                left, right = (self.value(arg) for arg in end.args)
                edge = end.then if compare(end.op, end.width, left, right) else end.other
            case _:
                raise TrapError("it came to what cannot be reached")
        values = [self.value(arg) for arg in edge.args]
        self.values.update(zip(edge.block.params, values, strict=True))
        return edge.block

    def value(self, value: Value) -> int:
        if isinstance(value, ssa.Const):
            return value.number
        if isinstance(value, Leaf) and not isinstance(value, Slot):
            return self.symbols[value]
        return self.values[value]

    @singledispatchmethod
    def _step(self, instr: Instr) -> int | None:
        raise TrapError(f"{type(instr).__name__} has no meaning here")

    @_step.register
    def _(self, instr: ssa.Binary) -> int:
        left, right = (self.value(arg) for arg in instr.args)
        return compute(instr.op, instr.width, left, right)

    @_step.register
    def _(self, instr: ssa.Compare) -> int:
        left, right = (self.value(arg) for arg in instr.args)
        return int(compare(instr.op, instr.width, left, right))

    @_step.register
    def _(self, instr: ssa.Extend) -> int:
        number = self.value(instr.args[0])
        return signed(number, instr.bits) if instr.signed else number & ((1 << instr.bits) - 1)

    @_step.register
    def _(self, instr: ssa.ByteOrder) -> int:
        return byte_order(instr.op, instr.bits, self.value(instr.args[0]))

    @_step.register(ssa.Load)
    @_step.register(ssa.ContextLoad)
    def _(self, instr: ssa.Load | ssa.ContextLoad) -> int:
        number = self.memory.read(self.value(instr.args[0]) + instr.off & M64, instr.size)
        return signed(number, instr.size * 8) if instr.signed else number

    @_step.register(ssa.Store)
    @_step.register(ssa.ContextStore)
    def _(self, instr: ssa.Store | ssa.ContextStore) -> None:
        address, number = (self.value(arg) for arg in instr.args)
        self.memory.write(address + instr.off & M64, instr.size, number)

    @_step.register
    def _(self, instr: ssa.Zero) -> None:
        content, at = self.memory.find(self.value(instr.args[0]) + instr.off, instr.size)
        content[at : at + instr.size] = bytes(instr.size)

    @_step.register
    def _(self, instr: ssa.Atomic) -> int:
        address = self.value(instr.args[0]) + instr.off & M64
        operand = self.value(instr.args[1])
        old = self.memory.read(address, instr.size)
        if instr.op is Op.CMPXCHG:
            if old == operand & ((1 << instr.size * 8) - 1):
                self.memory.write(address, instr.size, self.value(instr.args[2]))
        else:
            self.memory.write(address, instr.size, compute(instr.op, instr.size * 8, old, operand))
        return old

    @_step.register
    def _(self, instr: Call) -> int:
        args = [self.value(arg) for arg in instr.args]
        if instr.kind is CallKind.SUBPROGRAM:
            return self.call(self.functions[instr.symbol], args) or 0
        return self.helper(instr.number if instr.kind is CallKind.HELPER else instr.symbol, args, self.memory)
