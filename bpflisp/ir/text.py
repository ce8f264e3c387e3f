"""The text form of the intermediate form: printing, with the names that `bpflisp.ir.parse` reads back.

    program @name(%ctx) {
      slot $0 16 align 8
    b0:
      %0 = ctxload4 %ctx + 0
      %1 = add %0, 14
      branch gt %1, 100, b1(%0), b2
    b1(%2):
      return 2
    b2:
      return -1
    }

Values are numbered in the order of their definitions; leaves are written where they are used: numbers in decimal
(signed), `map @name`, `data @name + 4`, `func @name`, `type 5`, `$0`. Positions follow `!` when asked for.
"""

from __future__ import annotations

from functools import singledispatchmethod

from bpflisp.ir import ssa
from bpflisp.ir.ssa import Block, Edge, Function, Instr, Module, Value, has_result
from bpflisp.spec.alu import signed
from bpflisp.spec.isa import Op

COMPARISONS = {op: op.value for op in (Op.EQ, Op.NE, Op.GT, Op.GE, Op.LT, Op.SET, Op.SGT, Op.SGE, Op.SLT, Op.SLE)}
COMPARISONS[Op.LE] = "le"
"""How a comparison is written: `Op.LE` by its usual two letters."""


def print_module(module: Module, positions: bool = False) -> str:
    """All of a module: maps, data, functions."""
    parts = [f"map @{name}\n" for name in module.maps]
    parts += [f"data @{d.name} {d.section} align {d.align} 0x{d.content.hex()}\n" for d in module.data.values()]
    parts += [print_function(function, positions) for function in module.functions.values()]
    return "".join(parts)


def print_function(function: Function, positions: bool = False) -> str:
    """One function, with a newline at its end."""
    return _Printer(function, positions).text()


def describe(instr: Instr) -> str:
    """One instruction for a message: values that it does not know are written `%?`."""
    return _Printer(Function("?"), False).instruction(instr)


class _Printer:
    def __init__(self, function: Function, positions: bool) -> None:
        self.function = function
        self.positions = positions
        self.names: dict[Value, str] = {}
        self.blocks = {block: f"b{index}" for index, block in enumerate(function.blocks)}
        self._name_values()

    def _name_values(self) -> None:
        taken: set[str] = set()
        for param in self.function.params:
            name = param.name if param.name.isidentifier() and param.name not in taken else f"p{len(taken)}"
            taken.add(name)
            self.names[param] = f"%{name}"
        count = 0
        for block in self.function.blocks:
            results = [instr for instr in block.body if has_result(instr)]
            for value in [*block.params, *results]:
                self.names[value] = f"%{count}"
                count += 1
        for index, slot in enumerate(self.function.slots()):
            self.names[slot] = f"${index}"

    def text(self) -> str:
        kind = "program" if self.function.program else "subprogram"
        params = ", ".join(self.names[param] for param in self.function.params)
        lines = [f"{kind} @{self.function.name}({params}) {{"]
        lines += [f"  slot {self.names[slot]} {slot.size} align {slot.align}" for slot in self.function.slots()]
        for block in self.function.blocks:
            lines.append(self._label(block, block.params) + ":")
            lines += [f"  {self.instruction(instr)}" for instr in block.body]
            if block.end is not None:
                lines.append(f"  {self.instruction(block.end)}")
        return "\n".join([*lines, "}", ""])

    def instruction(self, instr: Instr) -> str:
        result = f"{self.value(instr)} = " if has_result(instr) else ""
        where = instr.position
        place = f" !{where.line}:{where.column} {where.file!r}" if self.positions and where else ""
        return result + self._render(instr) + place

    def value(self, value: Value) -> str:
        match value:
            case ssa.Const(number):
                return str(signed(number, 64))
            case ssa.MapRef(symbol):
                return f"map @{symbol}"
            case ssa.DataRef(symbol, addend):
                return f"data @{symbol} + {addend}"
            case ssa.FuncRef(symbol):
                return f"func @{symbol}"
            case ssa.TypeRef(number):
                return f"type {number}"
        return self.names.get(value, "%?")

    def _values(self, values: list[Value]) -> str:
        return ", ".join(self.value(value) for value in values)

    def _label(self, block: Block, values: list[Value] | list[ssa.Param]) -> str:
        name = self.blocks.get(block, "b?")
        return f"{name}({self._values(list(values))})" if values else name

    def _edge(self, edge: Edge) -> str:
        return self._label(edge.block, edge.args)

    def _address(self, instr: ssa.Load | ssa.ContextLoad | ssa.Store | ssa.ContextStore | ssa.Zero | ssa.Atomic) -> str:
        return f"{self.value(instr.args[0])} + {instr.off}"

    @singledispatchmethod
    def _render(self, instr: Instr) -> str:
        raise TypeError(f"no text form for {type(instr).__name__}")

    @_render.register
    def _(self, instr: ssa.Binary) -> str:
        return f"{instr.op.value}{_width(instr.width)} {self._values(instr.args)}"

    @_render.register
    def _(self, instr: ssa.Compare) -> str:
        return f"cmp.{COMPARISONS[instr.op]}{_width(instr.width)} {self._values(instr.args)}"

    @_render.register
    def _(self, instr: ssa.Extend) -> str:
        return f"{'sext' if instr.signed else 'zext'}{instr.bits} {self.value(instr.args[0])}"

    @_render.register
    def _(self, instr: ssa.ByteOrder) -> str:
        return f"{instr.op.value}{instr.bits} {self.value(instr.args[0])}"

    @_render.register
    def _(self, instr: ssa.Load) -> str:
        return f"load{'s' if instr.signed else ''}{instr.size} {self._address(instr)}{_core(instr.core)}"

    @_render.register
    def _(self, instr: ssa.ContextLoad) -> str:
        name = f"ctxload{'s' if instr.signed else ''}{instr.size}{'.scalar' if instr.scalar else ''}"
        return f"{name} {self._address(instr)}{_core(instr.core)}"

    @_render.register
    def _(self, instr: ssa.Store) -> str:
        return f"store{instr.size} {self._address(instr)}, {self.value(instr.args[1])}{_core(instr.core)}"

    @_render.register
    def _(self, instr: ssa.ContextStore) -> str:
        return f"ctxstore{instr.size} {self._address(instr)}, {self.value(instr.args[1])}{_core(instr.core)}"

    @_render.register
    def _(self, instr: ssa.Zero) -> str:
        return f"zero {self._address(instr)}, {instr.size}"

    @_render.register
    def _(self, instr: ssa.Atomic) -> str:
        fetch = ".fetch" if instr.fetch else ""
        return f"atomic.{instr.op.value}{instr.size}{fetch} {self._address(instr)}, {self._values(instr.args[1:])}"

    @_render.register
    def _(self, instr: ssa.Call) -> str:
        target = str(instr.number) if instr.kind is ssa.CallKind.HELPER else f"@{instr.symbol}"
        return f"call {instr.kind.value} {target} ({self._values(instr.args)})"

    @_render.register
    def _(self, instr: ssa.Asm) -> str:
        raw = instr.insn
        fields = f"0x{raw.opcode:02x} {raw.dst} {raw.src} {raw.off} {raw.imm} {raw.imm_high}"
        inputs = ", ".join(f"r{reg} = {self.value(value)}" for reg, value in zip(instr.inputs, instr.args, strict=True))
        result = "" if instr.result is None else f" gives r{instr.result}"
        clobbers = f" clobbers {' '.join(f'r{reg}' for reg in instr.clobbers)}" if instr.clobbers else ""
        return f"asm {fields} ({inputs}){result}{clobbers}"

    @_render.register
    def _(self, instr: ssa.Jump) -> str:
        return f"jump {self._edge(instr.to)}"

    @_render.register
    def _(self, instr: ssa.Branch) -> str:
        test = f"{COMPARISONS[instr.op]}{_width(instr.width)} {self._values(instr.args)}"
        return f"branch {test}, {self._edge(instr.then)}, {self._edge(instr.other)}"

    @_render.register
    def _(self, instr: ssa.Return) -> str:
        return f"return {self._values(instr.args)}" if instr.args else "return"

    @_render.register
    def _(self, instr: ssa.Unreachable) -> str:
        return "unreachable"


def _width(width: int) -> str:
    return "" if width == 64 else str(width)


def _core(core: ssa.CoreAccess | None) -> str:
    return "" if core is None else f' core {core.kind} "{core.type_name}" "{core.access}"'
