"""ELF for eBPF: the numbers and layouts of a relocatable object, and a writer of one.

Source: the System V ABI, 64-bit little-endian; relocation types from the LLVM documentation of the BPF target.
"""

from __future__ import annotations

import struct
from typing import Final

from bpflisp.lean import dataclass, field

MAGIC: Final = b"\x7fELF"
CLASS_64, DATA_LITTLE, DATA_BIG, VERSION = 2, 1, 2, 1
TYPE_RELOCATABLE: Final = 1
MACHINE_NONE, MACHINE_BPF = 0, 247

HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION: Final = struct.Struct("<IIQQQQIIQQ")
SYMBOL: Final = struct.Struct("<IBBHQQ")
RELOCATION: Final = struct.Struct("<QQ")

SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB = range(4)
SHT_NOBITS, SHT_REL = 8, 9
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_INFO_LINK = 1, 2, 4, 0x40
SHN_UNDEF, SHN_ABS, SHN_COMMON = 0, 0xFFF1, 0xFFF2

STB_LOCAL, STB_GLOBAL, STB_WEAK = range(3)
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE = range(5)

R_BPF_64_64: Final = 1
"""A 64-bit load: its two immediates."""
R_BPF_64_ABS64: Final = 2
"""Eight bytes of data."""
R_BPF_64_ABS32: Final = 3
"""Four bytes of data."""
R_BPF_64_NODYLD32: Final = 4
"""Four bytes of .BTF or .BTF.ext."""
R_BPF_64_32: Final = 10
"""A call: its immediate."""


@dataclass(slots=True)
class _Section:
    name: str
    type: int
    flags: int
    data: bytes
    align: int
    size: int
    link: int = 0
    info: int = 0
    entry_size: int = 0


@dataclass(slots=True)
class _Symbol:
    name: str
    section: int
    value: int
    size: int
    info: int

    @property
    def is_local(self) -> bool:
        return self.info >> 4 == STB_LOCAL


@dataclass(slots=True)
class _Strings:
    """A string table: each text once."""

    data: bytearray = field(default_factory=lambda: bytearray(b"\0"))
    offsets: dict[str, int] = field(default_factory=lambda: {"": 0})

    def add(self, text: str) -> int:
        if text not in self.offsets:
            self.offsets[text] = len(self.data)
            self.data += text.encode() + b"\0"
        return self.offsets[text]


class ElfWriter:
    """Collects sections, symbols and relocations, and gives the bytes of an object for the machine BPF.

    Sections are numbered from 1 in the order in which they are added; symbols by handles that `relocation` takes.
    """

    def __init__(self) -> None:
        self._sections: list[_Section] = []
        self._symbols: list[_Symbol] = []
        self._relocations: dict[int, list[tuple[int, int, int]]] = {}

    def section(self, name: str, flags: int, data: bytes, align: int = 8, zero_size: int | None = None) -> int:
        """Adds a section and gives its number; with `zero_size` it has no bytes in the file, and that size."""
        kind = SHT_PROGBITS if zero_size is None else SHT_NOBITS
        size = len(data) if zero_size is None else zero_size
        self._sections.append(_Section(name, kind, flags, data, align, size))
        return len(self._sections)

    def symbol(self, name: str, section: int, value: int, size: int, type: int, bind: int) -> int:
        """Adds a symbol and gives its handle; section 0 leaves it undefined."""
        self._symbols.append(_Symbol(name, section, value, size, bind << 4 | type))
        return len(self._symbols) - 1

    def relocation(self, section: int, offset: int, symbol: int, type: int) -> None:
        """Says that the bytes at an offset of a section depend on a symbol."""
        self._relocations.setdefault(section, []).append((offset, symbol, type))

    def to_bytes(self) -> bytes:
        """The object. The writer may be asked again."""
        sections = list(self._sections)
        order = sorted(range(len(self._symbols)), key=lambda handle: not self._symbols[handle].is_local)
        numbers = {handle: number for number, handle in enumerate(order, 1)}
        symtab = len(sections) + len(self._relocations) + 1
        for target, relocations in self._relocations.items():
            data = b"".join(
                RELOCATION.pack(offset, numbers[symbol] << 32 | kind) for offset, symbol, kind in sorted(relocations)
            )
            name = ".rel" + sections[target - 1].name
            sections.append(_Section(name, SHT_REL, SHF_INFO_LINK, data, 8, len(data), symtab, target, RELOCATION.size))
        strings = _Strings()
        sections.append(self._symbol_table([self._symbols[handle] for handle in order], strings, symtab + 1))
        for section in sections:
            strings.add(section.name)
        strings.add(".strtab")
        sections.append(_Section(".strtab", SHT_STRTAB, 0, bytes(strings.data), 1, len(strings.data)))
        return _lay_out(sections, strings)

    def _symbol_table(self, symbols: list[_Symbol], strings: _Strings, strtab: int) -> _Section:
        entries = [SYMBOL.pack(0, 0, 0, 0, 0, 0)]
        for symbol in symbols:
            name = strings.add(symbol.name)
            entries.append(SYMBOL.pack(name, symbol.info, 0, symbol.section, symbol.value, symbol.size))
        data = b"".join(entries)
        first_global = 1 + sum(symbol.is_local for symbol in symbols)
        return _Section(".symtab", SHT_SYMTAB, 0, data, 8, len(data), strtab, first_global, SYMBOL.size)


def _lay_out(sections: list[_Section], strings: _Strings) -> bytes:
    """Header, the sections' bytes, the section headers."""
    body = bytearray(HEADER.size)
    headers = [bytes(SECTION.size)]
    for section in sections:
        body += bytes(-len(body) % section.align)
        headers.append(
            SECTION.pack(
                strings.offsets[section.name], section.type, section.flags, 0, len(body), section.size, section.link,
                section.info, section.align, section.entry_size,
            )
        )  # fmt: skip
        body += section.data
    body += bytes(-len(body) % 8)
    ident = MAGIC + bytes([CLASS_64, DATA_LITTLE, VERSION])
    header = HEADER.pack(
        ident, TYPE_RELOCATABLE, MACHINE_BPF, VERSION, 0, 0, len(body), 0, HEADER.size, 0, 0, SECTION.size,
        len(headers), len(sections),
    )  # fmt: skip
    body[: HEADER.size] = header
    return bytes(body) + b"".join(headers)
