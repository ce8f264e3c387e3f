"""An object file as its parts: sections, symbols, functions, BTF. Errors of all of them become LoadErrors here."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property

from bpflisp.lean import dataclass, field
from bpflisp.spec import elf
from bpflisp.spec.btf import Btf, BtfError
from bpflisp.spec.btf_ext import BtfExt, read_btf_ext
from bpflisp.spec.elf_read import ElfError, ElfImage, ElfRelocation, ElfSection, ElfSymbol
from bpflisp.spec.insn import SLOT_SIZE
from bpflisp.spec.isa import CALL_CODE, JMP, LD_IMM64_OPCODE
from simulator.loader.errors import LoadError

TEXT = ".text"
"""Subprograms, and no programs, are in it, and in sections of functions of their own, `.text.NAME`: rustc and
-ffunction-sections make these. libbpf takes none of them; aya does."""
_NAMING = frozenset({JMP | CALL_CODE, LD_IMM64_OPCODE})
_NAME_LIMIT = 15
"""Letters of an object's name that go into the names of its data maps."""


@dataclass(eq=False)
class Function:
    """A program or a subprogram as the object has it. `code` is changed by CO-RE, and by nothing else."""

    name: str
    section: ElfSection
    offset: int
    code: bytearray
    is_global: bool
    relocations: dict[int, ElfRelocation] = field(default_factory=dict)

    @property
    def slots(self) -> int:
        """Its length."""
        return len(self.code) // SLOT_SIZE

    @cached_property
    def references(self) -> Sequence[int]:
        """The slots with an instruction that can name a function: calls and 64-bit loads."""
        return [slot for slot, opcode in enumerate(self.code[::SLOT_SIZE]) if opcode in _NAMING]


def is_text(section: str) -> bool:
    """Whether what a section of this name holds is called, and never attached."""
    return section == TEXT or section.startswith(f"{TEXT}.")


class ObjectFile:
    """The parts of one object. `name` is what libbpf would call it: the file's name up to the first dot."""

    def __init__(self, data: bytes, path: str, name: str) -> None:
        self.path = path
        self.name = name[:_NAME_LIMIT]
        try:
            self.image = ElfImage(data)
            self.symbols: Sequence[ElfSymbol] = self.image.symbols
        except ElfError as error:
            raise LoadError(path, error.problem, offset=error.offset, help="give an object made for BPF") from None
        if not self.symbols:
            raise self.error("the object has no symbol table", help="do not strip it")
        self.btf = self._read_btf()

    def error(
        self, problem: str, section: str = "", offset: int | None = None, because: str = "", help: str = ""
    ) -> LoadError:
        """A LoadError of this file."""
        return LoadError(self.path, problem, section, offset, because, help)

    def _read_btf(self) -> Btf | None:
        section = self.image.section(".BTF")
        if section is None:
            return None
        try:
            return Btf(section.data)
        except BtfError as error:
            raise self.error(str(error), ".BTF") from None

    @cached_property
    def ext(self) -> BtfExt:
        """The records of .BTF.ext; none where the object has none."""
        section = self.image.section(".BTF.ext")
        if section is None or self.btf is None:
            return BtfExt()
        try:
            return read_btf_ext(section.data, self.btf)
        except BtfError as error:
            raise self.error(str(error), ".BTF.ext") from None

    def relocations(self, section: ElfSection) -> Sequence[ElfRelocation]:
        """The relocations of a section's bytes."""
        try:
            return self.image.relocations(section)
        except ElfError as error:
            raise self.error(error.problem, section.name) from None

    @cached_property
    def license(self) -> str:
        """The text of the license section, "" without one."""
        section = self.image.section("license")
        return section.data.split(b"\0")[0].decode(errors="replace") if section else ""

    # -- functions ----------------------------------------------------------------------------------------------------

    @cached_property
    def functions(self) -> Mapping[int, Sequence[Function]]:
        """Section index -> its functions, by offset, with the relocations of their code."""
        found: dict[int, list[Function]] = {section.index: [] for section in self.image.sections if section.is_code}
        budget = 4 * sum(self.image.sections[index].size for index in found)
        for symbol in self.symbols:
            if symbol.type == elf.STT_FUNC and symbol.section in found:
                function = self._function(symbol, self.image.sections[symbol.section])
                found[symbol.section].append(function)
                budget -= len(function.code)
                if budget < 0:
                    raise self.error(f"functions overlap: {symbol.name!r} is one too many", function.section.name)
        for index, functions in found.items():
            functions.sort(key=lambda function: function.offset)
            self._give_relocations(self.image.sections[index], functions)
        return found

    def _function(self, symbol: ElfSymbol, section: ElfSection) -> Function:
        start, end = symbol.value, symbol.value + symbol.size
        if not symbol.size or start % SLOT_SIZE or symbol.size % SLOT_SIZE or end > len(section.data):
            problem = f"function {symbol.name!r} has {symbol.size} bytes at {start}, of {len(section.data)}"
            raise self.error(problem, section.name, start, "a function is whole instructions of 8 bytes")
        code = bytearray(section.data[start:end])
        return Function(symbol.name, section, start, code, symbol.bind != elf.STB_LOCAL)

    def _give_relocations(self, section: ElfSection, functions: Sequence[Function]) -> None:
        """Hands each relocation to every function that covers it; one in no function belongs to a removed weak one."""
        relocations = self.relocations(section)
        for relocation in relocations:
            if relocation.offset % SLOT_SIZE or relocation.offset >= len(section.data):
                raise self.error("a relocation that is at no instruction", section.name, relocation.offset)
        by_offset = sorted(relocations, key=lambda relocation: relocation.offset)
        at = 0
        for function in functions:
            while at < len(by_offset) and by_offset[at].offset < function.offset:
                at += 1
            end = function.offset + len(function.code)
            for index in range(at, len(by_offset)):
                relocation = by_offset[index]
                if relocation.offset >= end:
                    break
                function.relocations[(relocation.offset - function.offset) // SLOT_SIZE] = relocation

    def function_at(self, section: int, offset: int) -> Function | None:
        """The function that covers a byte offset of a section: an instruction inside it is as good as its first."""
        functions = self.functions.get(section, ())
        at = bisect_right(functions, offset, key=lambda function: function.offset) - 1
        if at < 0 or offset >= functions[at].offset + len(functions[at].code):
            return None
        return functions[at]
