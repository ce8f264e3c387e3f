"""Reads the text form of `bpflisp.ir.text` back. Raises ParseError, which names the line, on anything else."""

from __future__ import annotations

import re
from ast import literal_eval

from bpflisp.ir import ssa
from bpflisp.ir.ssa import Block, CallKind, CoreAccess, Edge, Function, Instr, Module, Param, Position, Slot, Value
from bpflisp.ir.text import COMPARISONS
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Op

_TOKEN = re.compile(r"""\s*(->|0x[0-9a-fA-F]*|-?\d+|[%$@][\w.]+|[A-Za-z_.][\w.]*|"[^"]*"|'[^']*'|[(){}:,=+!])""")
_BINARY = {op.value: op for op in ssa.BINARY_OPS}
_COMPARE = {name: op for op, name in COMPARISONS.items()}
_SLOT = re.compile(r"slot (\$\d+) (\d+) align (\d+)")
_DATA = re.compile(r"data @([\w.]+) ([\w.]+) align (\d+) 0x([0-9a-f]*)")


class ParseError(ValueError):
    """The text is no function, or none that this form can hold."""


class _Placeholder(Value):
    """Stands for a value that is used, in the order of the text, before it is defined."""

    def __init__(self, name: str) -> None:
        self.name = name


def parse_module(text: str) -> Module:
    """Read what `print_module` writes. Empty lines and lines that begin with `;` are skipped."""
    module = Module()
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith(";")]
    while lines:
        number, line = lines[0]
        if line.startswith("map @"):
            module.maps.append(line[5:])
        elif found := _DATA.fullmatch(line):
            name, section, align, content = found.groups()
            module.data[name] = ssa.Data(name, section, bytes.fromhex(content), int(align))
        else:
            end = next((i for i, (_, text) in enumerate(lines) if text == "}"), None)
            if end is None:
                raise ParseError(f"line {number}: no closing brace follows")
            function = _FunctionParser(lines[:end]).function()
            module.functions[function.name] = function
            lines = lines[end:]
        lines = lines[1:]
    return module


def parse_function(text: str) -> Function:
    """Read the only function of a text."""
    functions = list(parse_module(text).functions.values())
    if len(functions) != 1:
        raise ParseError(f"{len(functions)} functions where one was expected")
    return functions[0]


class _Line:
    """The tokens of one line, taken from the left."""

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self.text = text
        self.tokens: list[str] = []
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if not found:
                raise self.error(f"cannot read {text[at:]!r}")
            self.tokens.append(found[1])
            at = found.end()

    def error(self, problem: str) -> ParseError:
        return ParseError(f"line {self.number}: {problem}: {self.text}")

    def peek(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if not token or (expected is not None and token != expected):
            raise self.error(f"{expected or 'something'} is missing")
        return self.tokens.pop(0)

    def accept(self, token: str) -> bool:
        if self.peek() != token:
            return False
        self.tokens.pop(0)
        return True

    def number_(self) -> int:
        token = self.take()
        try:
            return int(token, 0)
        except ValueError:
            raise self.error(f"{token} is no number") from None

    def register(self) -> int:
        token = self.take()
        if not re.fullmatch(r"r(10|\d)", token):
            raise self.error(f"{token} is no register")
        return int(token[1:])


class _FunctionParser:
    def __init__(self, lines: list[tuple[int, str]]) -> None:
        self.lines = [_Line(*line) for line in lines]
        self.values: dict[str, Value] = {}
        self.blocks: dict[str, Block] = {}

    def function(self) -> Function:
        head = self.lines[0]
        kind, name = head.take(), head.take()
        if kind not in ("program", "subprogram") or not name.startswith("@"):
            raise head.error("a function begins with `program @name` or `subprogram @name`")
        function = Function(name[1:], program=kind == "program")
        function.params = self._params(head)
        head.take("{")
        for line in self.lines[1:]:
            self._line(line, function)
        for name, value in self.values.items():
            if isinstance(value, _Placeholder):
                raise ParseError(f"{name} is used and never defined")
        used = [value for instr in function.instructions() for value in ssa.operands(instr)]
        ssa.replace_values(function, {v: self.values[v.name] for v in used if isinstance(v, _Placeholder)})
        if missing := [name for name, block in self.blocks.items() if block not in function.blocks]:
            raise ParseError(f"{missing[0]} is jumped to and not there")
        return function

    def _define(self, line: _Line, name: str, value: Value) -> None:
        if not isinstance(self.values.get(name, _Placeholder(name)), _Placeholder):
            raise line.error(f"{name} is defined twice")
        self.values[name] = value

    def _params(self, line: _Line) -> list[Param]:
        params = []
        if line.accept("("):
            while not line.accept(")"):
                name = line.take()
                params.append(Param("" if name[1:].isdigit() else name[1:]))
                self._define(line, name, params[-1])
                line.accept(",")
        return params

    def _line(self, line: _Line, function: Function) -> None:
        if found := _SLOT.fullmatch(line.text):
            self._define(line, found[1], Slot(int(found[2]), int(found[3])))
        elif line.tokens[-1] == ":":
            block = self._block(line.take())
            block.params = self._params(line)
            function.blocks.append(block)
        elif not function.blocks:
            raise line.error("an instruction before the first label")
        else:
            self._instruction(line, function.blocks[-1])

    def _instruction(self, line: _Line, block: Block) -> None:
        name = line.take() if line.peek().startswith("%") else None
        if name:
            line.take("=")
        instr = self._parse(line)
        if line.accept("!"):
            row = line.number_()
            line.take(":")
            column = line.number_()
            instr.position = Position(literal_eval(line.take()), row, column)
        if line.tokens:
            raise line.error(f"{line.peek()} is too much")
        if bool(name) != ssa.has_result(instr):
            raise line.error("a result where there is none, or none where there is one")
        if name:
            self._define(line, name, instr)
        if isinstance(instr, ssa.Terminator):
            block.end = instr
        else:
            block.body.append(instr)

    def _block(self, name: str) -> Block:
        return self.blocks.setdefault(name, Block(name=name))

    def _value(self, line: _Line) -> Value:
        token = line.take()
        if token[0] in "%$":
            return self.values.setdefault(token, _Placeholder(token))
        match token:
            case "map":
                return ssa.MapRef(line.take()[1:])
            case "func":
                return ssa.FuncRef(line.take()[1:])
            case "type":
                return ssa.TypeRef(line.number_())
            case "data":
                symbol = line.take()[1:]
                return ssa.DataRef(symbol, line.number_() if line.accept("+") else 0)
        try:
            return ssa.const(int(token, 0))
        except ValueError:
            raise line.error(f"{token} is no value") from None

    def _values(self, line: _Line) -> list[Value]:
        values = [self._value(line)]
        while line.accept(","):
            values.append(self._value(line))
        return values

    def _edge(self, line: _Line) -> Edge:
        edge = Edge(self._block(line.take()))
        if line.accept("("):
            edge.args = self._values(line)
            line.take(")")
        return edge

    def _core(self, line: _Line) -> CoreAccess | None:
        if not line.accept("core"):
            return None
        kind, name, access = line.number_(), line.take(), line.take()
        return CoreAccess(name.strip('"'), access.strip('"'), kind)

    def _address(self, line: _Line) -> tuple[Value, int]:
        address = self._value(line)
        return address, line.number_() if line.accept("+") else 0

    def _parse(self, line: _Line) -> Instr:
        name = line.take()
        match name:
            case "call":
                return self._call(line)
            case "asm":
                return self._asm(line)
            case "jump":
                return ssa.Jump(to=self._edge(line))
            case "branch":
                return self._branch(line)
            case "return":
                return ssa.Return(args=self._values(line) if line.tokens and line.peek() != "!" else [])
            case "unreachable":
                return ssa.Unreachable()
            case "zero":
                address, off = self._address(line)
                line.take(",")
                return ssa.Zero(args=[address], off=off, size=line.number_())
        return self._by_name(line, name)

    def _by_name(self, line: _Line, name: str) -> Instr:
        """The instructions whose name carries an operation, a width or a size."""
        if found := re.fullmatch(r"(ctx)?load(s?)([1248])(\.scalar)?", name):
            return self._load(line, bool(found[1]), bool(found[2]), int(found[3]), bool(found[4]))
        if found := re.fullmatch(r"(ctx)?store([1248])", name):
            return self._store(line, bool(found[1]), int(found[2]))
        if found := re.fullmatch(r"atomic\.([a-z]+)([48])(\.fetch)?", name):
            return self._atomic(line, Op(found[1]), int(found[2]), bool(found[3]))
        if found := re.fullmatch(r"(be|le|bswap)(16|32|64)", name):
            return ssa.ByteOrder(args=[self._value(line)], op=Op(found[1]), bits=int(found[2]))
        if found := re.fullmatch(r"(sext|zext)(8|16|32)", name):
            return ssa.Extend(args=[self._value(line)], bits=int(found[2]), signed=found[1] == "sext")
        if found := re.fullmatch(r"cmp\.([a-z]+)(32)?", name):
            return ssa.Compare(args=self._values(line), op=_COMPARE[found[1]], width=int(found[2] or 64))
        if (found := re.fullmatch(r"([a-z]+)(32)?", name)) and found[1] in _BINARY:
            return ssa.Binary(args=self._values(line), op=_BINARY[found[1]], width=int(found[2] or 64))
        raise line.error(f"{name} is no instruction")

    def _load(self, line: _Line, context: bool, signed: bool, size: int, scalar: bool) -> Instr:
        address, off = self._address(line)
        core = self._core(line)
        if context:
            return ssa.ContextLoad(args=[address], size=size, off=off, signed=signed, scalar=scalar, core=core)
        return ssa.Load(args=[address], size=size, off=off, signed=signed, core=core)

    def _store(self, line: _Line, context: bool, size: int) -> Instr:
        address, off = self._address(line)
        line.take(",")
        value = self._value(line)
        make = ssa.ContextStore if context else ssa.Store
        return make(args=[address, value], size=size, off=off, core=self._core(line))

    def _atomic(self, line: _Line, op: Op, size: int, fetch: bool) -> Instr:
        address, off = self._address(line)
        line.take(",")
        return ssa.Atomic(args=[address, *self._values(line)], op=op, size=size, off=off, fetch=fetch)

    def _call(self, line: _Line) -> Instr:
        kind = CallKind(line.take())
        number = line.number_() if kind is CallKind.HELPER else 0
        symbol = "" if kind is CallKind.HELPER else line.take()[1:]
        line.take("(")
        args = [] if line.peek() == ")" else self._values(line)
        line.take(")")
        return ssa.Call(args=args, kind=kind, number=number, symbol=symbol)

    def _asm(self, line: _Line) -> Instr:
        insn = Insn(*(line.number_() for _ in range(6)))
        inputs: list[tuple[int, Value]] = []
        line.take("(")
        while not line.accept(")"):
            register = line.register()
            line.take("=")
            inputs.append((register, self._value(line)))
            line.accept(",")
        result = line.register() if line.accept("gives") else None
        clobbers = []
        if line.accept("clobbers"):
            while line.peek().startswith("r"):
                clobbers.append(line.register())
        values = [value for _, value in inputs]
        registers = tuple(register for register, _ in inputs)
        return ssa.Asm(args=values, insn=insn, inputs=registers, result=result, clobbers=tuple(clobbers))

    def _branch(self, line: _Line) -> Instr:
        name = line.take()
        found = re.fullmatch(r"([a-z]+)(32)?", name)
        if not found or found[1] not in _COMPARE:
            raise line.error(f"{name} is no comparison")
        left = self._value(line)
        line.take(",")
        right = self._value(line)
        line.take(",")
        then = self._edge(line)
        line.take(",")
        other = self._edge(line)
        return ssa.Branch(args=[left, right], op=_COMPARE[found[1]], width=int(found[2] or 64), then=then, other=other)
