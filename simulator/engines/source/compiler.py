"""A program as one Python code object: every function analysed, shaped and written out.

What comes out depends on the program alone and on what `Surroundings` say, so it serves every world.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from types import CodeType

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import FRAME_POINTER, STACK_SIZE, Kind, Op
from simulator.engines.source.blocks import Block, blocks_of, calls_first_slot, function_starts
from simulator.engines.source.frame import PURE, deferrable, frame_of, live_along, live_registers
from simulator.engines.source.names import MAIN
from simulator.engines.source.ranges import State, after, along, entry, solve
from simulator.engines.source.shape import Shaper, Writer
from simulator.engines.source.text import RELOAD_PACKET, FunctionText, Line, Surroundings
from simulator.engines.validity import sound
from simulator.memory import CONTEXT_BASE, STACK_BASE

_SKIPPED = frozenset({Kind.JUMP, Kind.BRANCH, Kind.MAY_GOTO})
_INDENT = " "
_CONTEXT = re.compile(r"\bC[1248]\b")
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled program. Running `code` defines `link`, a function of the parameters named in `needs`, which returns
    the program's functions by their first slot, the program itself as MAIN. `lines` tell what each line of the source
    is of; the first is 1. `file` is the name that tracebacks have for it. `stack` says whether the program may
    read bytes of its own frame that it has not written, `writes` whether the source may write to the packet, `context`
    whether it may write to the context.
    `points` are for counting: the slots that run whenever a point of the source is passed.
    """

    file: str
    code: CodeType
    source: str
    needs: Sequence[str]
    lines: Sequence[Line | None]
    stack: bool
    points: Sequence[Sequence[int]] = ()
    writes: bool = True
    context: bool = True


def compile_program(around: Surroundings) -> Compiled:
    """Translates every function of a program."""
    return assembled([Function(around, start, main).write() for start, main in functions_of(around)])


def functions_of(around: Surroundings) -> list[tuple[int, bool]]:
    """The functions to write, by first slot, and whether each is the program itself, as which it begins a run.

    The first slot may be a function besides: of a program that calls itself or is called by a tail call further down.
    """
    starts, code = function_starts(around.program.code), around.program.code
    again = around.again or calls_first_slot(code)
    return [(0, True), *((start, False) for start in starts if start or again)]


def assembled(texts: Sequence[FunctionText], points: Sequence[Sequence[int]] = ()) -> Compiled:
    """The code object of functions that are written; see `Compiled`."""
    needs = sorted(set().union(*(text.needs for text in texts)))
    lines = [Line(0, f"def link({', '.join(needs)}):", 0)]
    for text in texts:
        lines += text.lines
    starts = ", ".join(f"{text.start}: {text.name}" for text in texts if not text.is_program)
    lines.append(Line(1, f"return {{{MAIN}: main, {starts}}}", 0))
    source = "\n".join(_INDENT * line.indent + line.text for line in lines)
    file = f"<bpf program {next(_numbers)}>"
    stack = texts[0].frame.memory and texts[0].frame.reads_before
    writes = any(_may_write_packet(line) for line in lines)
    context = writes or any(_may_write_context(line) for line in lines)
    code = compile(source, file, "exec")
    return Compiled(file, code, source, needs, [None, *lines], stack, points, writes, context)


def _may_write_packet(line: Line) -> bool:
    """What goes to the packet names it, or finds it by its page; what goes to values of maps has pages of their own,
    and the address of what is always in the frame or the context is not kept."""
    if line.access is None or not line.access.write or line.access.address == "0":
        return False
    return "pkt" in line.text or "pages" in line.text


def _may_write_context(line: Line) -> bool:
    return "kept(" in line.text or (line.access is not None and line.access.write and bool(_CONTEXT.search(line.text)))


class Function(Writer):
    """One function on its way to text."""

    def __init__(self, around: Surroundings, start: int, main: bool) -> None:
        self._around, self._start, self._main = around, start, main
        code = around.program.code
        self._blocks = blocks_of(code, start)
        first = entry(main, CONTEXT_BASE if around.context_size else None, STACK_BASE)
        known = around.known
        self._states = solve(self._blocks, start, first, known)
        self._live = live_registers(self._blocks, self._states, known)
        self._frame = frame_of(self._blocks, self._states, self._live, known, around.maps)
        self._text = self._fresh()
        self._after: dict[int, State] = {}
        """The registers after each block, on the way on which it was written last."""
        self._shaper = Shaper(start, self._blocks, set(self._states), self)

    def _fresh(self) -> FunctionText:
        return FunctionText(self._around, self._start, self._frame, set(), indent=2, is_program=self._main)

    def write(self) -> FunctionText:
        """The function's text: its head, what it sets up, its body."""
        self._shaper.write()
        text = self._text
        body, text.lines, text.indent, text.slot = text.lines, [], 1, self._start
        if self._main:
            text.line("def main(r1, r2=0, r3=0, r4=0, r5=0, depth=0):")
        else:
            text.line(f"def {text.name}(r1, r2, r3, r4, r5, depth):")
        text.indent = 2
        self._set_up(text)
        text.lines += body
        return text

    def _set_up(self, text: FunctionText) -> None:
        if not self._main:
            text.line(f"fp = {STACK_BASE + STACK_SIZE} + (depth << 17)")
        self._frame_views(text)
        if text.packet or any("pkt" in line.text for line in text.lines):
            text.need("pages")
            text.line(RELOAD_PACKET)
        if self._shaper.uses_fuel or not self._main:
            text.need("out_of_fuel")
            text.line(f"fuel = {text.need('m')}.fuel")
        if not self._main:
            # Functions that call functions, or that a helper calls without end, take fuel as loops do.
            text.line("if next(fuel, fuel) is fuel: out_of_fuel()")
        zero = [f"r{n}" for n in self._live[self._start][-1] if not 1 <= n <= 5]
        variables = [f"s{offset}_{size}" for offset, size in sorted(self._frame.variables)]
        for name in [*sorted(set(zero) - {f"r{FRAME_POINTER}"}), *variables]:
            text.line(f"{name} = 0")

    def _frame_views(self, text: FunctionText) -> None:
        """The frame's arrays: of the program itself parameters, of a function those of its depth."""
        used = [size for size in (1, 2, 4, 8) if f"S{size}" in text.needs]
        if self._main:
            return
        text.needs -= {f"S{size}" for size in used}
        for size in used:
            text.line(f"S{size} = {text.need(f'F{size}')}[depth]")
        if self._frame.memory:
            text.line(f"{text.need('F1')}[depth][:] = {text.need('no_stack')}")

    # What the shape asks for.

    def line(self, text: str) -> None:
        self._text.line(text)

    def shift(self, by: int) -> None:
        self._text.indent += by

    def mark(self) -> int:
        return len(self._text.lines)

    def reset(self) -> None:
        self._text = self._fresh()

    def straight(self, at: int, source: int | None) -> None:
        text, block, state = self._text, self._blocks[at], self._states[at]
        if source is not None:
            left = self._blocks[source]
            state = along(left, self._after[source], left.next.index(at))
        if block.bad:
            text.slot = at
            text.line(self._no_instruction(at))
            text.line("return 0")
            return
        states = [state]
        for slot, insn in block.insns:
            states.append(after(slot, insn, states[-1], self._around.known))
        self.enter(block)
        live, skip = live_along(block, states, _at_end(self._live[at])), False
        deferred = deferrable(block, states, live)
        text.deferred.clear()
        for index, (slot, insn) in enumerate(block.insns):
            text.slot, text.defers = slot, index in deferred
            if skip:
                skip = False
            elif insn.row.kind not in _SKIPPED or not sound(insn):
                skip = self._one(insn, block, index, states[index], states[index + 1], live[index])
                self.passed(block, index)
        text.defers = False
        self._after[at] = states[-1]
        self.finish(block)

    # What a variant adds.

    def enter(self, block: Block) -> None:
        """Before the first line of a block."""

    def passed(self, block: Block, index: int) -> None:
        """After the lines of a block's instruction."""

    def finish(self, block: Block) -> None:
        """After the last line of a block, before that of the branch that ends it."""

    def _no_instruction(self, at: int) -> str:
        code = self._around.program.code
        insn = code[at] if 0 <= at < len(code) else None
        if insn is None:
            return f"{self._text.need('no_instruction')}({at})"
        return f"{self._text.need('illegal')}({insn.opcode})"

    def _one(self, insn: Insn, block: Block, index: int, state: State, following: State, live: frozenset[int]) -> bool:
        """Writes one instruction; whether the next one is written with it."""
        text, kind = self._text, insn.row.kind
        if not sound(insn):
            text.line(f"{text.need('illegal')}({insn.opcode})")
            text.line("return 0")
            return False
        if kind in PURE and insn.dst not in live and not text.stands_for_nothing(insn):
            return False
        match kind:
            case Kind.ALU:
                text.alu(insn, state, following)
            case Kind.NEG:
                text.negate(insn, state, following)
            case Kind.END:
                text.end(insn, state, following)
            case Kind.LOAD | Kind.LOAD_SIGNED | Kind.LOAD_ACQUIRE:
                swap = self._is_swapped(insn, block, index) and not text.may_be_narrow(insn, state)
                text.load(insn, state, swap)
                return swap
            case Kind.STORE | Kind.STORE_IMM | Kind.STORE_RELEASE:
                text.store(insn, state)
            case Kind.ATOMIC:
                text.atomic(insn, state)
            case Kind.LOAD_IMM64:
                text.load_imm64(insn)
            case Kind.LOAD_PACKET:
                text.load_packet(insn, state)
            case Kind.CALL | Kind.CALL_REG:
                text.call(insn, state)
            case Kind.EXIT:
                text.line(f"return {text.value(0, state)}")
        return False

    @staticmethod
    def _is_swapped(insn: Insn, block: Block, index: int) -> bool:
        """Whether the next instruction swaps the bytes that this one loads."""
        if insn.row.kind is not Kind.LOAD or insn.row.size == 1 or index + 1 >= len(block.insns):
            return False
        after_it = block.insns[index + 1][1]
        swaps = after_it.row.kind is Kind.END and after_it.row.op is not Op.TO_LE and sound(after_it)
        return swaps and after_it.dst == insn.dst and after_it.imm == insn.row.size * 8

    def condition(self, at: int, negated: bool) -> str:
        state = self._after[at]
        slot, insn = self._blocks[at].insns[-1]
        self._text.slot = slot
        if insn.row.kind is Kind.MAY_GOTO:
            return ("not " if negated else "") + self._text.need("may_goto") + "()"
        return self._text.condition(insn, state, negated)


def _at_end(live: Sequence[frozenset[int]]) -> frozenset[int]:
    """What is read after a block, of what is read after each of its instructions, and before the first."""
    return live[-2] if len(live) > 1 else live[-1]
