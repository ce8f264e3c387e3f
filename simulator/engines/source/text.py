"""One instruction as Python: registers are locals r0 to r9, numbers that are known are written out.

Names that the text uses besides registers are parameters of the function around it, which the engine fills:

    pages              the page table of `simulator.memory`
    u2 u4 u8, i1 i2 i4 read little-endian numbers out of a buffer; b2 b4 b8 big-endian ones; p2 p4 p8 write
    W4 W8              page tables whose pages are arrays of words of that size
    w2 w4 w8           swap the bytes of a number
    C1 C2 C4 C8        the context as an array of that element size; pkt is the packet
    F1 F2 F4 F8        for each frame the same; S1 to S8 those of the function's own frame
    h3 v3 L3           map 3's handle, the address of its values, its lookup; K16 reads a key of 16 bytes
    T8 ...             gives a key on the stack of the program itself: its place times 513, plus its bytes
    H7                 helper 7; call, tail, loads: what the engine does for the text
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from bpflisp.spec.alu import M32, M64
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import (
    CALL_HELPER,
    CALL_SUBPROGRAM,
    PSEUDO_FUNC,
    PSEUDO_MAP_IDX,
    PSEUDO_MAP_IDX_VALUE,
    STACK_SIZE,
    Kind,
    Op,
)
from simulator.engines.source.frame import ONE_OPERAND, Frame
from simulator.engines.source.names import LOOKUP, NO_CALLBACK, TAIL_CALL
from simulator.engines.source.ranges import (
    Known,
    Range,
    State,
    arithmetic,
    loaded,
    number,
    truncated,
    without_negative,
)
from simulator.helpers.registry import arity_of, takes_context
from simulator.machine import FUNCTION_BASE, MAX_FRAMES
from simulator.memory import CONTEXT_BASE, PACKET_BASE, PAGE_BITS, PAGE_MASK, PAGE_SIZE
from simulator.program import MapDef, Program

_LONGEST = 160
"""Characters of an expression that may still be put into another one."""

_SIGN = {64: 1 << 63, 32: 1 << 31}
_PLAIN = {Op.ADD: "+", Op.SUB: "-", Op.MUL: "*", Op.OR: "|", Op.AND: "&", Op.XOR: "^"}
_COMPARISON = {
    Op.EQ: "==", Op.NE: "!=", Op.GT: ">", Op.GE: ">=", Op.LT: "<", Op.LE: "<=",
    Op.SGT: ">", Op.SGE: ">=", Op.SLT: "<", Op.SLE: "<=", Op.SET: "&",
}  # fmt: skip
_SIGNED = frozenset({Op.SGT, Op.SGE, Op.SLT, Op.SLE})
_OPPOSITE = {
    Op.EQ: Op.NE, Op.NE: Op.EQ, Op.GT: Op.LE, Op.LE: Op.GT, Op.GE: Op.LT, Op.LT: Op.GE,
    Op.SGT: Op.SLE, Op.SLE: Op.SGT, Op.SGE: Op.SLT, Op.SLT: Op.SGE,
}  # fmt: skip
_SIGN_EXTENDED = {Op.MOVSX8: 8, Op.MOVSX16: 16, Op.MOVSX32: 32}


@dataclass(frozen=True, slots=True)
class Access:
    """A memory access of a line: how to find its address again after it faulted."""

    address: str
    size: int
    write: bool


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the source, the slot that it is of, and the accesses that it makes."""

    indent: int
    text: str
    slot: int
    access: Access | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the text of a program may rely on. `context_size` is in bytes; `maps` are the program's."""

    program: Program
    maps: tuple[MapDef, ...]
    context_size: int
    known: Known
    again: bool = False
    """Whether the program is entered at another frame than the first, too, or with another context."""


@dataclass(slots=True)
class FunctionText:
    """The lines of one function as they are made. `needs` are the parameters that they use.

    `deferred` has the text of registers whose value is written where it is used; `defers` says that the current
    instruction's is to be; `loaded` is the slot and access of a load that waits for the line that takes it in.
    """

    around: Surroundings
    start: int
    frame: Frame
    needs: set[str]
    lines: list[Line] = field(default_factory=list)
    slot: int = 0
    indent: int = 1
    is_program: bool = False
    """Whether it is the program itself, not a function that it calls."""
    packet: bool = False
    defers: bool = False
    deferred: dict[int, str] = field(default_factory=dict)
    loaded: tuple[int, Access | None] | None = None
    word: tuple[int, int, int, Line] | None = None
    """The word of a map's value that `b` and `c` stand for: base register, size, offset, and the line that used it."""

    @property
    def name(self) -> str:
        """What the source calls it."""
        return "main" if self.is_program else function_name(self.start)

    def line(self, text: str, access: Access | None = None) -> None:
        """Adds a line for the current instruction, or for the load whose text it has taken in."""
        if self.loaded is not None and access is None:
            slot, access = self.loaded
            self.lines.append(Line(self.indent, text, slot, access))
        else:
            self.lines.append(Line(self.indent, text, self.slot, access))
        self.loaded = None

    def need(self, name: str) -> str:
        """A parameter by its name, noted as used."""
        self.needs.add(name)
        return name

    # Values.

    def value(self, register: int, state: State) -> str:
        """A register as an expression."""
        value = state[register]
        if value.map >= 0:
            return self.need(f"h{value.map}")
        if value.exact:
            return str(value.low)
        if value.frame is not None:
            return f"(fp {value.frame - STACK_SIZE:+d})"
        return self.deferred.pop(register, None) or f"r{register}"

    def operand(self, register: int, state: State, width: int) -> tuple[str, Range]:
        """A register's low `width` bits as an expression, and their range."""
        value, text = state[register], self.value(register, state)
        if width == 64 or value.high <= M32:
            return text, value
        narrow = truncated(value, width)
        return (str(narrow.low), narrow) if value.exact else (f"({text} & {M32})", narrow)

    def _second(self, insn: Insn, state: State, width: int) -> tuple[str, Range]:
        if insn.row.reg:
            return self.operand(insn.src, state, width)
        value = number(insn.imm & (M32 if width == 32 else M64))
        return str(value.low), value

    # Arithmetic.

    def alu(self, insn: Insn, state: State, after: State) -> None:
        """dst = dst op operand."""
        result = after[insn.dst]
        if result.map < 0 and (result.exact or result.frame is not None):
            text = str(result.low) if result.exact else f"fp {(result.frame or 0) - STACK_SIZE:+d}"
            self.line(f"r{insn.dst} = {text}")
            return
        row = insn.row
        a, first = ("", state[insn.dst]) if row.op in ONE_OPERAND else self.operand(insn.dst, state, row.width)
        b, second = self._second(insn, state, row.width)
        op, other = without_negative(row.op, row.width, second)
        if op is not row.op:
            second, b = other, str(other.low)
        text = b if op is Op.MOV else self._arithmetic(op, row.width, a, b, first, second)
        if self.defers and self.loaded is None and len(text) < _LONGEST:
            self.deferred[insn.dst] = text if text.isidentifier() else f"({text})"
        elif text != f"r{insn.dst}":
            self.line(f"r{insn.dst} = {text}")

    def _arithmetic(self, op: Op, width: int, a: str, b: str, first: Range, second: Range) -> str:
        mask = M32 if width == 32 else M64
        fits = arithmetic(op, width, first, second)[1]
        if op in _PLAIN:
            text = f"{a} {_PLAIN[op]} {b}"
            return text if fits else f"{text} & {mask}" if op in (Op.ADD, Op.SUB, Op.MUL) else f"({text}) & {mask}"
        match op:
            case Op.LSH | Op.RSH | Op.ARSH:
                return self._shift(op, width, a, b, first, second, fits)
            case Op.DIV:
                return f"{a} // {b}" if second.low else f"{a} // {b} if {b} else 0"
            case Op.MOD:
                return f"{a} % {b}" if second.low else f"{a} % {b} if {b} else {a}"
            case Op.SDIV | Op.SMOD:
                return f"{self.need('divide')}({op is Op.SDIV}, {width}, {a}, {b})"
            case _:
                sign = 1 << (_SIGN_EXTENDED[op] - 1)
                return f"((({b} & {2 * sign - 1}) ^ {sign}) - {sign}) & {mask}"

    def _shift(self, op: Op, width: int, a: str, b: str, first: Range, second: Range, fits: bool) -> str:
        mask = M32 if width == 32 else M64
        count = str(second.low & (width - 1)) if second.exact else b
        if not second.exact and second.high >= width:
            count = f"({b} & {width - 1})"
        if op is Op.LSH:
            return f"{a} << {count}" if fits else f"{a} << {count} & {mask}"
        if op is Op.RSH or first.high <= mask >> 1:
            return f"{a} >> {count}"
        sign = _SIGN[width]
        return f"(({a} ^ {sign}) - {sign} >> {count}) & {mask}"

    def negate(self, insn: Insn, state: State, after: State) -> None:
        """dst = -dst."""
        if after[insn.dst].exact:
            self.line(f"r{insn.dst} = {after[insn.dst].low}")
            return
        text, _ = self.operand(insn.dst, state, insn.row.width)
        self.line(f"r{insn.dst} = -{text} & {M32 if insn.row.width == 32 else M64}")

    def end(self, insn: Insn, state: State, after: State) -> None:
        """dst = its low bits in another byte order."""
        if after[insn.dst].exact:
            self.line(f"r{insn.dst} = {after[insn.dst].low}")
            return
        bits, register = insn.imm, f"r{insn.dst}"
        mask = (1 << bits) - 1
        low = register if state[insn.dst].high <= mask else f"{register} & {mask}"
        if insn.row.op is Op.TO_LE:
            if low != register:
                self.line(f"{register} = {low}")
        else:
            self.line(f"{register} = {self.need(f'w{bits // 8}')}({low})")

    def condition(self, insn: Insn, state: State, negated: bool = False) -> str:
        """The condition of a branch, or its opposite."""
        row = insn.row
        a, first = self.operand(insn.dst, state, row.width)
        b, second = self._second(insn, state, row.width)
        op = row.op
        if op is Op.SET:
            return f"not {a} & {b}" if negated else f"{a} & {b}"
        if negated:
            op = _OPPOSITE[op]
        if op in (Op.EQ, Op.NE) and second.exact and not second.low:
            return a if op is Op.NE else f"not {a}"
        sign = _SIGN[row.width]
        if op in _SIGNED and (first.high >= sign or second.high >= sign):
            a = str(first.low ^ sign) if first.exact else f"({a} ^ {sign})"
            b = str(second.low ^ sign) if second.exact else f"({b} ^ {sign})"
        return f"{a} {_COMPARISON[op]} {b}"

    # Memory.

    def _place(self, register: int, off: int, state: State) -> tuple[int | None, str]:
        """The address of an access, if it is the same in every run, and as an expression."""
        base, text = state[register], self.value(register, state)
        if base.exact:
            address = (base.low + off) & M64
            return address, str(address)
        if base.frame is not None:
            return None, f"fp {base.frame - STACK_SIZE + off:+d}"
        if base.low + off < 0 or base.high + off > M64:
            return None, f"{text} {off:+d} & {M64}" if off else text
        return None, f"{text} {off:+d}" if off else text

    def _known_buffer(self, register: int, off: int, size: int, state: State) -> tuple[str, str, bool] | None:
        """The buffer and index of an access that is always in the same region; whether it is an array by `size`."""
        base = state[register]
        if base.frame is not None:
            at = base.frame + off
            if not 0 <= at <= STACK_SIZE - size:
                return None
            return self._element("S", at, size, whole=True)
        low, high = base.low + off, base.high + off
        if base.exact and 0 <= low - CONTEXT_BASE <= self.around.context_size - size:
            return self._element("C", low - CONTEXT_BASE, size, self.around.context_size % size == 0)
        if low >= PACKET_BASE and high < PACKET_BASE + PAGE_SIZE:
            self.packet = True
            index = str(low - PACKET_BASE) if base.exact else f"{self.value(register, state)} {off - PACKET_BASE:+d}"
            return "pkt", index, size == 1
        return None

    def _element(self, array: str, at: int, size: int, whole: bool) -> tuple[str, str, bool]:
        if whole and at % size == 0:
            return self.need(f"{array}{size}"), str(at // size), True
        return self.need(f"{array}1"), str(at), False

    def _word(self, register: int, off: int, size: int, state: State) -> tuple[str, str, Access] | None:
        """The page and index of an aligned word in a map's value, in the tables that have pages as words."""
        base = state[register]
        if size not in (4, 8) or not 0 <= base.value < len(self.around.maps):
            return None
        at = base.at + off
        if at % size or not 0 <= at <= self.around.maps[base.value].value_size - size:
            return None
        _, text = self._place(register, off, state)
        access, shift = Access(text, size, write=True), size.bit_length() - 1
        table = self.need(f"W{size}")
        if text.isidentifier():
            return f"{table}[{text} >> {PAGE_BITS}]", f"({text} & {PAGE_MASK}) >> {shift}", access
        return f"{table}[(a := {text}) >> {PAGE_BITS}]", f"(a & {PAGE_MASK}) >> {shift}", access

    def _reading(self, kind: str, register: int, off: int, size: int, state: State) -> tuple[str, Access]:
        """An expression that reads, and its access; `kind` is u, i or b: unsigned, signed, big-endian."""
        if kind == "b" and size == 1:
            kind = "u"
        place = self._known_buffer(register, off, size, state)
        if place is not None:
            buffer, index, whole = place
            access = self._access_of(buffer, index, size, write=False)
            if whole and kind == "u":
                return f"{buffer}[{index}]", access
            if whole and buffer != "pkt":
                buffer, index = self.need(buffer[0] + "1"), str(int(index) * size)
            return f"{self.need(f'{kind}{size}')}({buffer}, {index})[0]", access
        word = self._word(register, off, size, state) if kind == "u" else None
        if word is not None:
            return f"{word[0]}[{word[1]}]", Access(word[2].address, size, write=False)
        address, text = self._place(register, off, state)
        page, within = self._page(address, text)
        if size == 1 and kind == "u":
            return f"{page}[{within}]", Access(text, size, write=False)
        return f"{self.need(f'{kind}{size}')}({page}, {within})[0]", Access(text, size, write=False)

    @staticmethod
    def _access_of(buffer: str, index: str, size: int, write: bool) -> Access:
        """The access of a place in a known buffer. Only the packet's can fault: the others are in bounds."""
        return Access(f"{PACKET_BASE} + {index}" if buffer == "pkt" else "0", size, write)

    def _page(self, address: int | None, text: str) -> tuple[str, str]:
        self.need("pages")
        if address is not None:
            return f"pages[{address >> PAGE_BITS}]", str(address & PAGE_MASK)
        if text.isidentifier():
            return f"pages[{text} >> {PAGE_BITS}]", f"{text} & {PAGE_MASK}"
        return f"pages[(a := {text}) >> {PAGE_BITS}]", f"a & {PAGE_MASK}"

    def _variable(self, register: int, off: int, size: int, state: State) -> str:
        """The variable that stands for this place of the frame, "" where none does."""
        base = state[register].frame
        if base is None or (base + off, size) not in self.frame.variables:
            return ""
        return f"s{base + off}_{size}"

    def may_be_narrow(self, insn: Insn, state: State) -> bool:
        """Whether it may be a load from the context that is not what its bytes say: see `contexts.narrow`."""
        found = insn.row.kind is Kind.LOAD and (insn.off, insn.row.size) in self.around.known.narrow.loads
        return found and _may_be_context(state[insn.src])

    def _narrow_load(self, insn: Insn, state: State) -> None:
        """dst = the whole field, where the base is the context's address."""
        moved, base = self.around.known.narrow.loads[insn.off, insn.row.size], self._named(insn.src, state)
        field = f"{self.need(f'C{moved[1]}')}[{moved[0] // moved[1]}]"
        if state[insn.src].exact:
            self.line(f"r{insn.dst} = {field}")
            return
        text, access = self._reading("u", insn.src, insn.off, insn.row.size, state)
        self.line(f"r{insn.dst} = {field} if {base} == {CONTEXT_BASE} else {text}", access)

    def _named(self, register: int, state: State) -> str:
        """A register as text that may stand twice in a line."""
        if register in self.deferred:
            self.line(f"r{register} = {self.value(register, state)}")
        return self.value(register, state)

    def _narrow_store(self, insn: Insn, state: State) -> None:
        """The context's field, cut to what the kernel keeps of it, where the base is the context's address."""
        base, reg = self._named(insn.dst, state), insn.row.reg
        value = self._named(insn.src, state) if reg else str(insn.imm)
        kept = f"{self.need('kept')}({insn.off}, {insn.row.size}, {value}, {not reg})"
        self.line(f"if {base} == {CONTEXT_BASE}: {kept}")
        self.line("else:")
        self.indent += 1
        mask = (1 << 8 * insn.row.size) - 1
        self._writing(insn.dst, insn.off, insn.row.size, f"{value} & {mask}", state)
        self.indent -= 1

    def load(self, insn: Insn, state: State, swap: bool = False) -> None:
        """dst = memory; with `swap` as a big-endian number."""
        if self.may_be_narrow(insn, state):
            self._narrow_load(insn, state)
            return
        size, signed = insn.row.size, insn.row.kind is Kind.LOAD_SIGNED
        variable = self._variable(insn.src, insn.off, size, state)
        target = f"r{insn.dst} = "
        if variable:
            text = f"{self.need(f'w{size}')}({variable})" if swap else variable
            access = None
        else:
            exact = loaded(insn, state[insn.src], self.around.known)
            if exact.exact and not swap:
                self.line(f"{target}{exact.low}")
                return
            text, access = self._reading("b" if swap else "i" if signed else "u", insn.src, insn.off, size, state)
        if signed:
            text = f"{self._extended(text, size) if variable else text} & {M64}"
        if self.defers and not signed and not swap:
            self.deferred[insn.dst] = text
            self.loaded = (self.slot, access)
        else:
            self.line(target + text, access)

    def _extended(self, text: str, size: int) -> str:
        sign = 1 << (8 * size - 1)
        return f"(({text} ^ {sign}) - {sign})"

    def store(self, insn: Insn, state: State) -> None:
        """Memory = src or imm."""
        size, narrow = insn.row.size, self.around.known.narrow
        if ((insn.off, size) in narrow.cut or (insn.off, size) in narrow.queues) and _may_be_context(state[insn.dst]):
            self._narrow_store(insn, state)
            return
        mask = (1 << 8 * size) - 1
        if not insn.row.reg:
            text = str(insn.imm & mask)
        else:
            value = state[insn.src]
            text = self.value(insn.src, state)
            if value.high > mask:
                text = str(value.low & mask) if value.exact else f"{text} & {mask}"
        variable = self._variable(insn.dst, insn.off, size, state)
        if variable:
            self.line(f"{variable} = {text}")
        else:
            self._writing(insn.dst, insn.off, size, text, state)

    def _writing(self, register: int, off: int, size: int, text: str, state: State) -> None:
        known = self._known_buffer(register, off, size, state)
        if known is not None:
            buffer, index, whole = known
            access = self._access_of(buffer, index, size, write=True)
            if whole:
                self.line(f"{buffer}[{index}] = {text}", access)
            else:
                self.line(f"{self.need(f'p{size}')}({buffer}, {index}, {text})", access)
            return
        address, place = self._place(register, off, state)
        page, within = self._page(address, place)
        # A subscript would be evaluated after the value assigned: pack_into finds the page first, as the text has it.
        self.line(f"{self.need(f'p{size}')}({page}, {within}, {text})", Access(place, size, write=True))

    def atomic(self, insn: Insn, state: State) -> None:
        """Read, modify, write."""
        row, size, mask = insn.row, insn.row.size, (1 << insn.row.width) - 1
        if not row.fetch and self._word(insn.dst, insn.off, size, state) is not None:
            self._atomic_word(insn, state)
            return
        _, place = self._place(insn.dst, insn.off, state)
        access = Access(place, size, write=True)
        source, value = self.operand(insn.src, state, row.width)
        self.need("pages")
        if place.isidentifier():
            self.line(f"b = pages[{place} >> {PAGE_BITS}]; c = {place} & {PAGE_MASK}", access)
        else:
            self.line(f"a = {place}; b = pages[a >> {PAGE_BITS}]; c = a & {PAGE_MASK}", access)
        self.line(f"d = {self.need(f'u{size}')}(b, c)[0]", access)
        write = self.need(f"p{size}")
        if row.op is Op.CMPXCHG:
            compared, _ = self.operand(0, state, row.width)
            self.line(f"{write}(b, c, {source} if d == {compared} else d)", access)
            self.line("r0 = d")
            return
        new = source if row.op is Op.XCHG else self._arithmetic(row.op, row.width, "d", source, Range(0, mask), value)
        self.line(f"{write}(b, c, {new})", access)
        if row.fetch:
            self.line(f"r{insn.src} = d")

    def stands_for_nothing(self, insn: Insn) -> bool:
        """Whether a 64-bit load has to be asked for: what it stands for may not be there, which is a fault."""
        if insn.row.kind is not Kind.LOAD_IMM64 or insn.src in (0, PSEUDO_FUNC):
            return False
        if insn.src == PSEUDO_MAP_IDX:
            return not 0 <= insn.imm < len(self.around.maps)
        return insn.src != PSEUDO_MAP_IDX_VALUE or not self._has_values(insn.imm)

    def load_imm64(self, insn: Insn) -> None:
        """dst = a number, or what it stands for."""
        target = f"r{insn.dst} = "
        if insn.src == 0:
            self.line(f"{target}{insn.imm64}")
        elif insn.src == PSEUDO_MAP_IDX and 0 <= insn.imm < len(self.around.maps):
            self.line(target + self.need(f"h{insn.imm}"))
        elif insn.src == PSEUDO_MAP_IDX_VALUE and self._has_values(insn.imm):
            self.line(f"{target}{self.need(f'v{insn.imm}')} + {insn.imm_high & M32}")
        elif insn.src == PSEUDO_FUNC:
            self.line(f"{target}{FUNCTION_BASE + self.slot + 1 + insn.imm}")
        else:
            self.line(f"{target}{self.need('immediate')}({self.slot})")

    def _has_values(self, index: int) -> bool:
        return 0 <= index < len(self.around.maps) and self.around.maps[index].type == "array"

    def load_packet(self, insn: Insn, state: State) -> None:
        """r0 = packet bytes, big-endian; where the packet ends before, the function returns 0."""
        index = f"({self.value(insn.src, state)} + {insn.imm} & {M32})" if insn.row.reg else str(insn.imm & M32)
        self.line(f"r0 = {self.need('from_packet')}({index}, {insn.row.size})")
        self.line("if r0 is None: return 0")

    # Calls.

    def _atomic_word(self, insn: Insn, state: State) -> None:
        """The same in a map's value, without fetching: by the page of words, and by the one of the word before where
        that was in the same value and nothing came between."""
        row, size = insn.row, insn.row.size
        source, operand = self.operand(insn.src, state, row.width)
        known, last, deferred = Range(0, (1 << row.width) - 1), self.word, insn.dst in self.deferred
        self.word = None
        # Only forwards: a page's words go on to the end of its value, but do not begin before it.
        near = last is not None and last[:2] == (insn.dst, size) and insn.off >= last[2] and not deferred
        if last is not None and near and self._only_moves_since(last[3]):
            _, place = self._place(insn.dst, insn.off, state)
            element = f"b[c + {(insn.off - last[2]) // size}]"
            new = self._arithmetic(row.op, row.width, element, source, known, operand)
            self.line(f"{element} = {new}", Access(place, size, write=True))
            self.word = *last[:3], self.lines[-1]
            return
        word = self._word(insn.dst, insn.off, size, state)
        assert word is not None
        new = self._arithmetic(row.op, row.width, "b[c]", source, known, operand)
        self.line(f"b = {word[0]}; c = {word[1]}; b[c] = {new}", word[2])
        if not deferred:
            self.word = insn.dst, size, insn.off, self.lines[-1]

    def _only_moves_since(self, last: Line) -> bool:
        """Whether what follows a line is a few plain assignments in the same suite, and none to its base register."""
        assigned = f"r{self._base_of(last)} ="
        for line in reversed(self.lines[-_NEAR:]):
            if line is last:
                return last.indent == self.indent
            if line.indent != self.indent or not _MOVE.fullmatch(line.text) or line.text.startswith(assigned):
                return False
        return False

    def _base_of(self, line: Line) -> int:
        insn = self.around.program.code[line.slot]
        assert insn is not None
        return insn.dst

    def call(self, insn: Insn, state: State) -> None:
        """r0 = helper, function or kernel function."""
        if insn.row.kind is Kind.CALL_REG:
            number_of = self.value(insn.dst, state)
            self._depth()
            self.line(f"r0 = {self.need('by_register')}({number_of} & {M32}, {self._arguments(5, state)})")
            self._reload_packet()
        elif insn.src == CALL_HELPER:
            self._helper(insn, state)
        elif insn.src == CALL_SUBPROGRAM:
            target = self.slot + 1 + insn.imm
            self.line(f"if depth > {MAX_FRAMES - 2}: {self.need('too_deep')}()")
            self.line(f"r0 = {function_name(target)}({self._arguments(5, state)}, depth + 1)")
            self._reload_packet()
        else:
            self._depth()
            self.line(f"r0 = {self.need('kernel_function')}({self.slot}, {self._arguments(5, state)})")
            self._reload_packet()

    def _helper(self, insn: Insn, state: State) -> None:
        if insn.imm == TAIL_CALL and self.around.known.inline_lookups:
            self._depth()
            arguments = ", ".join(self.value(register, state) for register in (1, 2, 3))
            self.line(f"r0 = {self.need('tail')}({arguments})")
            self.line("if r0 is not None: return r0")
            self.line(f"r0 = {-2 & M64}")
            return
        if insn.imm == LOOKUP and self.around.known.inline_lookups and self._lookup(state):
            return
        arity = arity_of(insn.imm)
        if takes_context(insn.imm) or arity == 5 or insn.imm not in NO_CALLBACK:
            self._depth()
        arguments = ", ".join(["0"] * (5 - arity)) if arity < 5 else ""
        given = ", ".join(part for part in (self._arguments(arity, state), arguments) if part)
        self.line(f"r0 = {self.need(f'H{insn.imm}')}({given})")
        if takes_context(insn.imm) or insn.imm not in NO_CALLBACK:
            self._reload_packet()

    def _lookup(self, state: State) -> bool:
        """A lookup in a map that is known, without the way through its handle. Whether there was one."""
        index = state[1].map
        if not 0 <= index < len(self.around.maps):
            return False
        size = self.around.maps[index].key_size
        if not size or self.around.maps[index].type not in _PLAIN_LOOKUP:
            return False
        key, access = self._key(size, state)
        kind = self.around.maps[index].type
        lookup = self.need(f"L{index}")
        self.line(f"r0 = {lookup}({key}, {'0' if kind == 'hash' else self.need('world') + '.cpu'})", access)
        return True

    def _key(self, size: int, state: State) -> tuple[str, Access]:
        address, text = self._place(2, 0, state)
        access = Access(text, size, write=False)
        base = state[2].frame
        if base is not None and 0 <= base <= STACK_SIZE - size:
            if self.is_program:
                return f"{self.need(f'T{base * (STACK_SIZE + 1) + size}')}()", access
            return f"{self.need(f'K{size}')}({self.need('S1')}, {base})[0]", access
        page, within = self._page(address, text)
        return f"{self.need(f'K{size}')}({page}, {within})[0]", access

    def _arguments(self, count: int, state: State) -> str:
        return ", ".join(self.value(register, state) for register in range(1, count + 1))

    def _depth(self) -> None:
        """Tells the machine which frame runs, for what may call back."""
        self.line(f"{self.need('m')}.depth = depth")

    def _reload_packet(self) -> None:
        self.need("pages")
        self.line(RELOAD_PACKET)


def _may_be_context(base: Range) -> bool:
    """Whether a base register may be the context's address, as far as is known."""
    return base.frame is None and base.value < 0 and base.low <= CONTEXT_BASE <= base.high


def function_name(start: int) -> str:
    """What the source calls the function at this slot, which need not be one of the program's."""
    return f"f{start}" if start >= 0 else f"f_{-start}"


RELOAD_PACKET = f"pkt = pages[{PACKET_BASE >> PAGE_BITS}]"
_NEAR = 4
"""Lines in which a word of the same value is looked for."""
_MOVE = re.compile(r"r\d = [r\d +*&|^<>~-]+")
_PLAIN_LOOKUP = frozenset({"hash", "array", "percpu_array", "percpu_hash", "lru_hash", "lru_percpu_hash"})
