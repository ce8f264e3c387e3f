"""x86-64 machine code: a table of instructions, and one function that writes any of them.

Operands are register numbers or Mem; an instruction is of 64 bits where `wide`, else of 32 bits, which zero the upper
half.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)
_NO_INDEX: Final = RSP
"""The number that stands for no second register: rsp cannot be one."""


class Mem(NamedTuple):
    """Memory at `base + plus * scale + disp`."""

    base: int
    disp: int = 0
    plus: int = _NO_INDEX
    scale: int = 1


Operand = int | Mem


class Form(NamedTuple):
    """How an instruction is written: its opcode, and the digit that completes it where it has one operand.

    `imm` is how many bytes of an immediate follow; `byte` says that the register operand is one of 8 bits.
    """

    opcode: bytes
    digit: int | None = None
    imm: int = 0
    prefix: bytes = b""
    byte: bool = False


_BINARY: Final = ("add", "or", "adc", "sbb", "and", "sub", "xor", "cmp")
CONDITIONS: Final = MappingProxyType(
    {
        "b": 2, "ae": 3, "e": 4, "ne": 5, "be": 6, "a": 7, "s": 8, "ns": 9, "l": 12, "ge": 13, "le": 14, "g": 15,
    }
)  # fmt: skip
"""Conditions of jumps and conditional moves: unsigned b ae be a, signed l ge le g."""


def _forms() -> dict[str, Form]:
    forms: dict[str, Form] = {}
    for number, name in enumerate(_BINARY):
        forms[name] = Form(bytes([number << 3 | 1]))  # name rm, reg
        forms[name + "_load"] = Form(bytes([number << 3 | 3]))  # name reg, rm
        forms[name + "_imm8"] = Form(b"\x83", number, 1)
        forms[name + "_imm32"] = Form(b"\x81", number, 4)
    for name, digit in (("rol", 0), ("shl", 4), ("shr", 5), ("sar", 7)):
        forms[name + "_imm8"] = Form(b"\xc1", digit, 1)
        forms[name + "_cl"] = Form(b"\xd3", digit)
    for name, digit in (("not", 2), ("neg", 3), ("mul", 4), ("div", 6), ("idiv", 7)):
        forms[name] = Form(b"\xf7", digit)
    for name, digit in (("inc", 0), ("dec", 1), ("call_to", 2), ("jmp_to", 4)):
        forms[name] = Form(b"\xff", digit)
    for name, condition in CONDITIONS.items():
        forms["cmov_" + name] = Form(bytes([0x0F, 0x40 | condition]))
    return forms


FORMS: Final[Mapping[str, Form]] = MappingProxyType(
    {
        **_forms(),
        "test": Form(b"\x85"),
        "test_imm32": Form(b"\xf7", 0, 4),
        "mov": Form(b"\x89"),
        "mov_imm32": Form(b"\xc7", 0, 4),
        "imul": Form(b"\x0f\xaf"),
        "imul_imm32": Form(b"\x69", imm=4),
        "lea": Form(b"\x8d"),
        "store1": Form(b"\x88", byte=True),
        "store2": Form(b"\x89", prefix=b"\x66"),
        "store4": Form(b"\x89"),
        "store8": Form(b"\x89"),
        "store1_imm": Form(b"\xc6", 0, 1),
        "store2_imm": Form(b"\xc7", 0, 2, prefix=b"\x66"),
        "store4_imm": Form(b"\xc7", 0, 4),
        "store8_imm": Form(b"\xc7", 0, 4),
        "load1": Form(b"\x0f\xb6", byte=True),
        "load2": Form(b"\x0f\xb7"),
        "load4": Form(b"\x8b"),
        "load8": Form(b"\x8b"),
        "load_signed1": Form(b"\x0f\xbe", byte=True),
        "load_signed2": Form(b"\x0f\xbf"),
        "load_signed4": Form(b"\x63"),
    }
)
"""Instruction -> how it is written. `store`, `load` and `load_signed` take registers too: they extend."""


@dataclass(frozen=True, slots=True)
class _Fixup:
    at: int
    label: Hashable


class Code:
    """Machine code on its way: bytes, and labels. `known` are addresses that labels have already.

    Where it will run is said at the end: inside of it jumps are relative.
    """

    def __init__(self, known: Mapping[Hashable, int] = MappingProxyType({})) -> None:
        self.data = bytearray()
        self._known = known
        self._labels: dict[Hashable, int] = {}
        self._fixups: list[_Fixup] = []
        self._base = 0

    def label(self, name: Hashable) -> None:
        """Names the next instruction."""
        assert name not in self._labels, f"{name} is there twice"
        self._labels[name] = len(self.data)

    def has(self, name: Hashable) -> bool:
        """Whether there is such a label in it."""
        return name in self._labels

    def address(self, name: Hashable) -> int:
        """The address of a label in it, once it is finished."""
        return self._base + self._labels[name]

    def addresses(self) -> dict[Hashable, int]:
        """The addresses of all labels in it, once it is finished."""
        return {name: self.address(name) for name in self._labels}

    def finish(self, base: int) -> bytes:
        """The code for this address, its jumps bound to their labels."""
        self._base = base
        for fixup in self._fixups:
            inside = fixup.label in self._labels
            target = self.address(fixup.label) if inside else self._known[fixup.label]
            self.data[fixup.at : fixup.at + 4] = (target - base - fixup.at - 4).to_bytes(4, "little", signed=True)
        return bytes(self.data)

    def op(self, name: str, rm: Operand, reg: int = 0, imm: int = 0, wide: bool = True) -> None:
        """One instruction: of `store`-like ones `rm` is the destination, of `load`-like ones `reg` is."""
        form = FORMS[name]
        field = reg if form.digit is None else form.digit
        rex = 0x48 if wide else 0x40
        rex |= (field >> 3) << 2
        if isinstance(rm, Mem):
            rex |= (rm.plus >> 3) << 1 | rm.base >> 3
            tail = _memory_operand(field & 7, rm)
        else:
            rex |= rm >> 3
            tail = bytes([0xC0 | (field & 7) << 3 | rm & 7])
        self.data += form.prefix
        if rex != 0x40 or form.byte:
            self.data.append(rex)
        self.data += form.opcode + tail
        if form.imm:
            self.data += (imm & ((1 << 8 * form.imm) - 1)).to_bytes(form.imm, "little")

    def op_imm(self, name: str, rm: Operand, imm: int, wide: bool = True) -> None:
        """A binary operation with a signed immediate of up to 32 bits, in its shorter form where it has one."""
        short = -128 <= imm <= 127 and name in _BINARY
        self.op(name + ("_imm8" if short else "_imm32"), rm, imm=imm, wide=wide)

    def move(self, to: int, value: int) -> None:
        """Puts a number of 64 bits into a register, in the shortest way."""
        value &= (1 << 64) - 1
        if value == 0:
            self.op("xor", to, to, wide=False)
        elif value >> 32 == 0:
            self.data += (b"\x41" if to >> 3 else b"") + bytes([0xB8 | to & 7]) + value.to_bytes(4, "little")
        elif value >> 31 == (1 << 33) - 1:
            self.op("mov_imm32", to, imm=value)
        else:
            self.data += bytes([0x48 | to >> 3, 0xB8 | to & 7]) + value.to_bytes(8, "little")

    def push(self, register: int) -> None:
        """Pushes a register."""
        self.data += (b"\x41" if register >> 3 else b"") + bytes([0x50 | register & 7])

    def pop(self, register: int) -> None:
        """Pops a register."""
        self.data += (b"\x41" if register >> 3 else b"") + bytes([0x58 | register & 7])

    def swap(self, register: int, wide: bool = True) -> None:
        """Reverses a register's bytes."""
        rex = (0x48 if wide else 0x40) | register >> 3
        self.data += (b"" if rex == 0x40 else bytes([rex])) + bytes([0x0F, 0xC8 | register & 7])

    def sign_to_rdx(self, wide: bool = True) -> None:
        """Spreads the sign of rax over rdx: cqo, or cdq of 32 bits."""
        self.data += b"\x48\x99" if wide else b"\x99"

    def jump(self, label: Hashable) -> None:
        """Jumps."""
        self._distance(b"\xe9", label)

    def branch(self, condition: str, label: Hashable) -> None:
        """Jumps if the condition holds."""
        self._distance(bytes([0x0F, 0x80 | CONDITIONS[condition]]), label)

    def call(self, label: Hashable) -> None:
        """Calls."""
        self._distance(b"\xe8", label)

    def ret(self) -> None:
        """Returns."""
        self.data += b"\xc3"

    def syscall(self) -> None:
        """Calls the hook."""
        self.data += b"\x0f\x05"

    def _distance(self, opcode: bytes, label: Hashable) -> None:
        self.data += opcode
        self._fixups.append(_Fixup(len(self.data), label))
        self.data += bytes(4)


def _memory_operand(field: int, mem: Mem) -> bytes:
    """ModRM, SIB and displacement: always with an index byte and 8 or 32 bits, which serves every register."""
    scale = {1: 0, 2: 1, 4: 2, 8: 3}[mem.scale]
    short = -128 <= mem.disp <= 127
    mode = 0x44 if short else 0x84
    head = bytes([mode | field << 3, scale << 6 | (mem.plus & 7) << 3 | mem.base & 7])
    return head + mem.disp.to_bytes(1 if short else 4, "little", signed=True)
