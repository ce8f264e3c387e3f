"""Programs as text, for tests and for `docs/refusals`: the instructions as the kernel's log writes them, with labels.

    %type xdp                          directives: type, attach, target, license, flags, map, data, func, tag
    %map counts hash 4 8 16            name, type, key size, value size, entries; then fields of the value, flags=N
        r2 = *(u32 *)(r1 +0)           an instruction a line; # begins a comment
        ; int x = 5;                   the source line of what follows
        if r2 > 5 goto out
        r1 = map counts                also: value NAME +off, func LABEL, NUMBER ll, btf NAME
        call bpf_get_smp_processor_id  a label, else a helper, else a kernel function
    out:
        exit
        r1 = map m{1..65}              a line with {A..B} stands for one with A, one with A + 1 and so on to B

Invariant: a line that is not understood raises; nothing is guessed.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from bpflisp.spec import helpers
from bpflisp.spec.btf import INT_SIGNED, Btf
from bpflisp.spec.btf_build import (
    CHAR,
    INT,
    BtfBuilder,
    CType,
    Int,
    Member,
    Pointer,
    Signature,
    Struct,
    TypeTag,
    Void,
)
from bpflisp.spec.insn import Insn, encode
from bpflisp.spec.isa import ALU_CODES, JUMP_CODES, SIZE_BITS, Op
from simulator.program import FuncInfo, LineInfo, MapDef, Program

U8, U16, U32, U64 = (Int(f"u{size * 8}", size) for size in (1, 2, 4, 8))
S32, S64 = Int("s32", 4, INT_SIGNED), Int("s64", 8, INT_SIGNED)

_ALU: Final = {
    "+": Op.ADD, "-": Op.SUB, "*": Op.MUL, "/": Op.DIV, "|": Op.OR, "&": Op.AND, "<<": Op.LSH, ">>": Op.RSH,
    "%": Op.MOD, "^": Op.XOR, "s>>": Op.ARSH, "s/": Op.DIV, "s%": Op.MOD,
}  # fmt: skip
_COMPARE: Final = {
    "==": Op.EQ, "!=": Op.NE, ">": Op.GT, ">=": Op.GE, "<": Op.LT, "<=": Op.LE, "&": Op.SET,
    "s>": Op.SGT, "s>=": Op.SGE, "s<": Op.SLT, "s<=": Op.SLE,
}  # fmt: skip
_FETCH: Final = {"add": 0x01, "or": 0x41, "and": 0x51, "xor": 0xA1, "xchg": 0xE1}
_PLAIN_ATOMIC: Final = {"+": 0x00, "|": 0x40, "&": 0x50, "^": 0xA0}

_NUMBER = r"-?(?:0x[0-9a-f]+|\d+)"
_PLACE = r"\*?\(([us])(8|16|32|64) \*\)\(r(\d+) ([+-]\d+)\)"


class AssemblyError(Exception):
    """A line that is not understood."""


@dataclass
class _Line:
    """One instruction before its jump or call is resolved; `to` is a label, `field` where its distance goes."""

    insn: Insn
    to: str = ""
    field: str = ""
    kfunc: str = ""
    btf: str = ""


def _number(text: str) -> int:
    return int(text, 0)


def _imm(text: str) -> int:
    value = _number(text)
    return value - (1 << 32) if value >> 31 == 1 else value


def _alu(found: re.Match[str]) -> _Line:
    kind, dst, op, value = found.groups()
    row = ALU_CODES[_ALU[op]] if op else ALU_CODES[Op.MOV]
    off = 1 if op in ("s/", "s%") else 0
    base = (7 if kind == "r" else 4) | row
    if value[0] in "rw":
        return _Line(Insn(base | 8, int(dst), int(value[1:]), off))
    return _Line(Insn(base, int(dst), 0, off, _imm(value)))


def _sign_extend(found: re.Match[str]) -> _Line:
    kind, dst, bits, src = found.groups()
    return _Line(Insn((7 if kind == "r" else 4) | 8 | ALU_CODES[Op.MOV], int(dst), int(src), int(bits)))


def _negate(found: re.Match[str]) -> _Line:
    return _Line(Insn((7 if found[1] == "r" else 4) | 0x80, int(found[2])))


def _byte_order(found: re.Match[str]) -> _Line:
    opcode = {"be": 0xDC, "le": 0xD4, "bswap": 0xD7}[found[2]]
    return _Line(Insn(opcode, int(found[1]), imm=int(found[3])))


def _load(found: re.Match[str]) -> _Line:
    dst, sign, bits, base, off = found.groups()
    mode = 0x60 if sign == "u" else 0x80
    return _Line(Insn(0x01 | mode | SIZE_BITS[int(bits) // 8], int(dst), int(base), int(off)))


def _store(found: re.Match[str]) -> _Line:
    _, bits, base, off, value = found.groups()
    size = SIZE_BITS[int(bits) // 8]
    if value[0] == "r":
        return _Line(Insn(0x63 | size, int(base), int(value[1:]), int(off)))
    return _Line(Insn(0x62 | size, int(base), 0, int(off), _imm(value)))


def _plain_atomic(found: re.Match[str]) -> _Line:
    _, bits, base, off, op, src = found.groups()
    return _Line(Insn(0xC3 | SIZE_BITS[int(bits) // 8], int(base), int(src), int(off), _PLAIN_ATOMIC[op]))


def _fetching_atomic(found: re.Match[str]) -> _Line:
    result, op, _, bits, base, off, src = found.groups()
    if result != src:
        raise AssemblyError(f"an atomic gives back its operand: r{src}")
    code = _FETCH[op.removeprefix("fetch_")]
    return _Line(Insn(0xC3 | SIZE_BITS[int(bits) // 8], int(base), int(src), int(off), code))


def _exchange(found: re.Match[str]) -> _Line:
    _, bits, base, off, src = found.groups()
    return _Line(Insn(0xC3 | SIZE_BITS[int(bits) // 8], int(base), int(src), int(off), 0xF1))


def _acquire(found: re.Match[str]) -> _Line:
    dst, _, bits, base, off = found.groups()
    return _Line(Insn(0xC3 | SIZE_BITS[int(bits) // 8], int(dst), int(base), int(off), 0x100))


def _release(found: re.Match[str]) -> _Line:
    _, bits, base, off, src = found.groups()
    return _Line(Insn(0xC3 | SIZE_BITS[int(bits) // 8], int(base), int(src), int(off), 0x110))


def _legacy(found: re.Match[str]) -> _Line:
    bits, index, off = found.groups()
    size = SIZE_BITS[int(bits) // 8]
    if index:
        return _Line(Insn(0x40 | size, 0, int(index), 0, int(off.replace(" ", "") or 0)))
    return _Line(Insn(0x20 | size, imm=_imm(off)))


def _branch(found: re.Match[str]) -> _Line:
    kind, dst, op, value, to = found.groups()
    base = (5 if kind == "r" else 6) | JUMP_CODES[_COMPARE[op]]
    if value[0] in "rw":
        return _Line(Insn(base | 8, int(dst), int(value[1:])), to, "off")
    return _Line(Insn(base, int(dst), imm=_imm(value)), to, "off")


def _goto(found: re.Match[str]) -> _Line:
    if found[1] == "gotol":
        return _Line(Insn(0x06), found[2], "imm")
    return _Line(Insn(0xE5 if found[1] == "may_goto" else 0x05), found[2], "off")


def _wide(found: re.Match[str]) -> _Line:
    value = _number(found[2]) & (1 << 64) - 1
    low, high = struct.unpack("<ii", struct.pack("<Q", value))
    return _Line(Insn(0x18, int(found[1]), 0, 0, low, high))


def _function_pointer(found: re.Match[str]) -> _Line:
    return _Line(Insn(0x18, int(found[1]), 4), found[2], "imm")


def _kernel_variable(found: re.Match[str]) -> _Line:
    return _Line(Insn(0x18, int(found[1]), 3), btf=found[2])


def _raw(found: re.Match[str]) -> _Line:
    opcode, dst, src, off, imm = (_imm(word) for word in found[1].split())
    return _Line(Insn(opcode, dst, src, off, imm))


_FORMS: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], _Line]], ...]] = tuple(
    (re.compile(pattern + r"$"), make)
    for pattern, make in (
        (r"exit", lambda found: _Line(Insn(0x95))),
        (r"([rw])(\d+) = \(s(8|16|32)\)[rw](\d+)", _sign_extend),
        (r"([rw])(\d+) = -[rw]\2", _negate),
        (r"r(\d+) = (be|le|bswap)(16|32|64) r\1", _byte_order),
        (rf"r(\d+) = ({_NUMBER}) ll", _wide),
        (r"r(\d+) = func (\w+)", _function_pointer),
        (r"r(\d+) = btf (\w+)", _kernel_variable),
        (r"r0 = \*\(u(8|16|32) \*\)skb\[(?:r(\d+) ?)?([+-]? ?\d+|)\]", _legacy),
        (rf"r(\d+) = {_PLACE}", _load),
        (rf"{_PLACE} = (r\d+|{_NUMBER})", _store),
        (rf"lock {_PLACE} ([+|&^])= r(\d+)", _plain_atomic),
        (rf"r(\d+) = atomic_(fetch_add|fetch_or|fetch_and|fetch_xor|xchg)\({_PLACE}, r(\d+)\)", _fetching_atomic),
        (rf"r0 = atomic_cmpxchg\({_PLACE}, r0, r(\d+)\)", _exchange),
        (rf"r(\d+) = load_acquire\({_PLACE}\)", _acquire),
        (rf"store_release\({_PLACE}, r(\d+)\)", _release),
        (rf"([rw])(\d+) (s>>|s/|s%|<<|>>|[-+*/|&%^])?= ([rw]\d+|{_NUMBER})", _alu),
        (rf"if ([rw])(\d+) (s?[<>]=?|[!=]=|&) ([rw]\d+|{_NUMBER}) goto (\w+)", _branch),
        (r"(goto|gotol|may_goto) (\w+)", _goto),
        (rf"raw ((?:{_NUMBER} ?){{5}})", _raw),
    )
)
_MAP_LOAD = re.compile(r"r(\d+) = (map|value) (\w+)(?: \+(\d+))?$")

_TYPES: Final[dict[str, CType]] = {
    "void": Void(), "int": INT, "u8": U8, "u16": U16, "u32": U32, "u64": U64, "s32": S32, "s64": S64, "char": CHAR,
}  # fmt: skip
_FIELDS: Final = {"bpf_spin_lock": 4, "bpf_timer": 16, "bpf_wq": 16, "bpf_refcount": 4, "bpf_res_spin_lock": 8}


def _type(text: str) -> CType:
    """A C type from its name: `u32`, `struct name`, each with stars."""
    text = text.strip()
    if text.endswith("*"):
        return Pointer(_type(text[:-1]))
    if text.startswith("struct "):
        name, _, size = text.removeprefix("struct ").partition(":")
        parts = [Member(f"m{at}", U32, at * 32) for at in range(int(size or 4) // 4)]
        return Struct(name.strip(), int(size or 4), parts)
    return _TYPES[text]


def _repeated(line: str) -> Iterator[str]:
    """The lines that a line with {A..B} stands for; others stand for themselves."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", line)
    if found is None:
        yield line
        return
    for number in range(int(found[1]), int(found[2]) + 1):
        yield line.replace(found[0], str(number))


@dataclass
class Text:
    """A program while its text is read."""

    name: str = "case"
    settings: dict[str, str] = field(default_factory=dict)
    maps: list[MapDef] = field(default_factory=list)
    functions: dict[str, tuple[Signature, int]] = field(default_factory=dict)
    tags: list[tuple[str, int, str]] = field(default_factory=list)
    code: list[_Line] = field(default_factory=list)
    slots: list[int] = field(default_factory=lambda: [0])
    labels: dict[str, int] = field(default_factory=dict)
    lines: list[LineInfo] = field(default_factory=list)
    number: int = 0

    def read(self, text: str) -> Program:
        """The program of a text."""
        for self.number, line in enumerate(text.splitlines(), 1):
            try:
                for one in _repeated(line):
                    self._line(one)
            except (AssemblyError, KeyError, ValueError) as error:
                raise AssemblyError(f"{self.name}, line {self.number}: {line.strip()!r}: {error}") from error
        return self._program()

    def _line(self, line: str) -> None:
        stripped = line.strip()
        if stripped.startswith(";"):
            self.lines.append(LineInfo(self.slots[-1], "case.c", stripped[1:].strip(), self.number, 1))
            return
        stripped = stripped.partition("#")[0].strip()
        if stripped.startswith("%"):
            word, _, rest = stripped[1:].partition(" ")
            self._directive(word, rest)
        elif re.fullmatch(r"\w+:", stripped):
            self.labels[stripped[:-1]] = self.slots[-1]
        elif stripped:
            made = self._insn(stripped)
            self.code.append(made)
            self.slots.append(self.slots[-1] + made.insn.slots)

    def _directive(self, word: str, rest: str) -> None:
        if word == "map":
            self._map(*rest.split())
        elif word == "data":
            name, kind, data = rest.split()
            init = bytes.fromhex(data)
            flags = 1 << 7 if kind == "ro" else 0
            self.maps.append(MapDef(name, "array", 4, len(init), 1, flags, init=init, frozen=kind == "ro"))
        elif word == "func":
            found = re.fullmatch(r"(static|global) ([\w *]+?) (\w+)\((.*)\)", rest)
            if found is None:
                raise AssemblyError("func static|global TYPE NAME(TYPES)")
            params = [(f"a{at}", _type(one)) for at, one in enumerate(found[4].split(",")) if one.strip()]
            self.functions[found[3]] = (Signature(_type(found[2]), params), int(found[1] == "global"))
        elif word == "tag":
            function, argument, tag = rest.split()
            self.tags.append((function, int(argument), tag))
        elif word in ("type", "attach", "target", "license", "flags"):
            self.settings[word] = rest
        else:
            raise AssemblyError("no such directive")

    def _map(self, name: str, kind: str, key: str, value: str, entries: str, *more: str) -> None:
        flags, fields = 0, []
        for word in more:
            if word.startswith("flags="):
                flags = _number(word[6:])
            else:
                fields.append(word)
        made = MapDef(name, kind, int(key), int(value), int(entries), flags)
        self.maps.append(_typed(made, fields) if fields else made)

    def _insn(self, text: str) -> _Line:
        found = _MAP_LOAD.match(text)
        if found is not None:
            index = [one.name for one in self.maps].index(found[3])
            if found[2] == "map":
                return _Line(Insn(0x18, int(found[1]), 5, 0, index))
            return _Line(Insn(0x18, int(found[1]), 6, 0, index, int(found[4] or 0)))
        if text.startswith("call "):
            return _Line(Insn(0x85, imm=_number(text[5:])) if text[5:].isdigit() else Insn(0x85), text[5:], "call")
        for pattern, make in _FORMS:
            found = pattern.match(text)
            if found is not None:
                return make(found)
        raise AssemblyError("not an instruction")

    def _resolved(self) -> Iterator[tuple[int, _Line]]:
        for at, line in zip(self.slots, self.code, strict=False):
            insn = line.insn
            if line.field == "call":
                yield at, self._call(at, line)
            elif line.field:
                # every distance is counted from the slot after the instruction's first
                distance = self.labels[line.to] - at - 1
                off, imm = (distance, insn.imm) if line.field == "off" else (insn.off, distance)
                yield at, _Line(Insn(insn.opcode, insn.dst, insn.src, off, imm))
            else:
                yield at, line

    def _call(self, at: int, line: _Line) -> _Line:
        if line.to.isdigit():
            return line
        if line.to in self.labels:
            return _Line(Insn(0x85, src=1, imm=self.labels[line.to] - at - 1))
        helper = helpers.by_name(line.to)
        if helper is not None:
            return _Line(Insn(0x85, imm=helper.id))
        return _Line(Insn(0x85, src=2), kfunc=line.to)

    def _program(self) -> Program:
        resolved = list(self._resolved())
        btf, starts = self._btf()
        return Program(
            encode(line.insn for _, line in resolved),
            self.settings.get("type", "socket_filter"),
            tuple(self.maps),
            self.settings.get("license", "GPL"),
            name=re.sub(r"\W+", "_", self.name)[:15],
            attach_type=self.settings.get("attach", ""),
            attach_target=self.settings.get("target", ""),
            flags=_number(self.settings.get("flags", "0")),
            btf=btf,
            func_info=starts,
            line_info=tuple(self.lines) if starts else (),
            kfuncs={at: line.kfunc for at, line in resolved if line.kfunc},
            btf_ids={at: line.btf for at, line in resolved if line.btf},
        )

    def _btf(self) -> tuple[Btf | None, list[FuncInfo]]:
        """BTF with the functions; source lines and pointers to functions ask for them too."""
        pointed = [line for line in self.code if line.insn.opcode == 0x18 and line.field]
        if (self.lines or pointed) and not self.functions:
            calls = [line for line in self.code if line.field == "call" and line.to in self.labels]
            names = ["main", *(line.to for line in [*calls, *pointed])]
            self.functions = {name: (Signature(INT), 0) for name in names}
        if not self.functions:
            return None, []
        builder = BtfBuilder()
        starts = []
        for name, (signature, linkage) in self.functions.items():
            made = builder.func(name, signature, linkage)
            starts.append(FuncInfo(self.labels.get(name, 0), made))
            for function, argument, tag in self.tags:
                if function == name:
                    builder.decl_tag(tag, made, argument)
        return Btf(builder.to_bytes()), sorted(starts, key=lambda one: one.insn)


def _typed(made: MapDef, fields: list[str]) -> MapDef:
    """A map whose value has fields of the kernel's: `bpf_timer@8`, `kptr:task_struct@0`."""
    members = []
    for word in fields:
        kind, _, at = word.partition("@")
        kptr, _, target = kind.partition(":")
        if target:
            pointed: CType = Pointer(TypeTag(kptr, Struct(target, 0, [])))
            members.append(Member(f"f{at}", pointed, int(at) * 8))
        else:
            size = _FIELDS[kind]
            inner, width = (U32, 4) if size % 8 else (U64, 8)
            parts = [Member(f"o{part}", inner, part * width * 8) for part in range(size // width)]
            members.append(Member(f"f{at}", Struct(kind, size, parts), int(at) * 8))
    builder = BtfBuilder()
    key = builder.add(INT)
    value = builder.add(Struct("value", made.value_size, members))
    return MapDef(
        made.name, made.type, made.key_size, made.value_size, made.max_entries, made.flags,
        btf=Btf(builder.to_bytes()), btf_key=key, btf_value=value,
    )  # fmt: skip


def program(text: str, name: str = "case") -> Program:
    """The program of a text. Raises AssemblyError."""
    return Text(name).read(text)
