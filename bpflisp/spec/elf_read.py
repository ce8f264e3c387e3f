"""Reading ELF objects for eBPF: sections, symbols and relocations as values.

Every offset and size is checked against the file before it is used, and nothing is copied that the file does not
hold: time and memory are bounded by its length. Raises ElfError, which says what is wrong and at which byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from bpflisp.lean import dataclass
from bpflisp.spec import elf

_LARGEST_SECTION_COUNT = 0xFF00
_LONGEST_NAME = 1024
"""Bytes of a name that are read; what is longer is cut off, so that names overlapping in their table stay bounded."""
_OVERLAP = 4
"""How many times the file's length its sections may have in all: more means that they overlap each other."""


class ElfError(ValueError):
    """The bytes are no ELF object that we can read. `offset` is a byte of the file, None where it is the whole."""

    def __init__(self, problem: str, offset: int | None = None) -> None:
        super().__init__(problem if offset is None else f"{problem} (at byte {offset})")
        self.problem = problem
        self.offset = offset


@dataclass(frozen=True, slots=True)
class ElfSection:
    """A section. `size` is its size in memory; `data` is empty where the file has no bytes for it."""

    index: int
    name: str
    type: int
    flags: int
    data: bytes
    size: int
    link: int
    info: int

    @property
    def is_code(self) -> bool:
        """Whether it has instructions."""
        return self.type == elf.SHT_PROGBITS and bool(self.flags & elf.SHF_EXECINSTR) and self.size > 0


@dataclass(frozen=True, slots=True)
class ElfSymbol:
    """A symbol; `section` is a section's index, or one of the SHN_* numbers."""

    index: int
    name: str
    section: int
    value: int
    size: int
    type: int
    bind: int
    hidden: bool

    @property
    def is_extern(self) -> bool:
        """Whether somebody else has to provide it."""
        return self.section == elf.SHN_UNDEF and self.type == elf.STT_NOTYPE and self.bind != elf.STB_LOCAL


@dataclass(frozen=True, slots=True)
class ElfRelocation:
    """The bytes at an offset of a section depend on the symbol with an index."""

    offset: int
    symbol: int
    type: int


class ElfImage:
    """The parts of an ELF object for BPF, or for no machine in particular (as old compilers wrote it).

    With `foreign`, of any ELF file that is 64-bit and little-endian, such as a vmlinux.
    """

    def __init__(self, data: bytes, foreign: bool = False) -> None:
        self.data = data
        self._foreign = foreign
        self.sections = self._read_sections()

    def section(self, name: str) -> ElfSection | None:
        """The first section of that name."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> Mapping[str, ElfSection]:
        return {section.name: section for section in reversed(self.sections)}

    # -- sections -----------------------------------------------------------------------------------------------------

    def _header(self) -> tuple[int, int, int]:
        """Offset and number of the section headers, and the index of the section with their names."""
        data = self.data
        if data[:4] != elf.MAGIC:
            raise ElfError("no ELF file: it does not start with 7f 'ELF'", 0)
        if len(data) < elf.HEADER.size:
            raise ElfError(f"ELF header is cut off: {len(data)} bytes, not {elf.HEADER.size}", len(data))
        if data[4] != elf.CLASS_64:
            raise ElfError(f"ELF class is {data[4]}: not 64-bit", 4)
        if data[5] == elf.DATA_BIG:
            raise ElfError("ELF object is big-endian: build it with -target bpfel", 5)
        if data[5] != elf.DATA_LITTLE:
            raise ElfError(f"ELF byte order is {data[5]}: neither little nor big", 5)
        fields = elf.HEADER.unpack_from(data)
        kind, machine, at, entry_size, count, names = fields[1], fields[2], fields[6], *fields[11:14]
        if kind != elf.TYPE_RELOCATABLE and not self._foreign:
            raise ElfError(f"ELF type is {kind}: not a relocatable object", 16)
        if machine not in (elf.MACHINE_BPF, elf.MACHINE_NONE) and not self._foreign:
            raise ElfError(f"ELF machine is {machine}: not BPF ({elf.MACHINE_BPF})", 18)
        if entry_size != elf.SECTION.size:
            raise ElfError(f"ELF section headers have {entry_size} bytes each: not {elf.SECTION.size}", 58)
        if not 0 < count < _LARGEST_SECTION_COUNT or at + count * entry_size > len(data):
            raise ElfError(f"{count} ELF section headers at byte {at} end after the file's {len(data)} bytes", 40)
        if names >= count:
            raise ElfError(f"ELF section names are in section {names}, of {count}", 62)
        return at, count, names

    def _read_sections(self) -> Sequence[ElfSection]:
        at, count, names_index = self._header()
        rows = list(elf.SECTION.iter_unpack(self.data[at : at + count * elf.SECTION.size]))
        total = sum(row[5] for row in rows if row[1] != elf.SHT_NOBITS)
        if total > _OVERLAP * len(self.data):
            raise ElfError(f"ELF sections have {total} bytes in all, of {len(self.data)} in the file: they overlap", at)
        names = self._bytes(names_index, rows[names_index], at)
        sections = []
        for index, row in enumerate(rows):
            name, kind, flags, _, _, size, link, info, _, _ = row
            data = self._bytes(index, row, at)
            sections.append(ElfSection(index, _string(names, name), kind, flags, data, size, link, info))
        return sections

    def _bytes(self, index: int, row: tuple[int, ...], headers_at: int) -> bytes:
        kind, offset, size = row[1], row[4], row[5]
        if kind in (elf.SHT_NULL, elf.SHT_NOBITS):
            return b""
        if offset + size > len(self.data):
            problem = f"section {index} [{offset}, +{size}) ends after the file's {len(self.data)} bytes"
            raise ElfError(problem, headers_at + index * elf.SECTION.size)
        return self.data[offset : offset + size]

    # -- symbols and relocations --------------------------------------------------------------------------------------

    @cached_property
    def symbols(self) -> Sequence[ElfSymbol]:
        """The symbols of the one symbol table, by index; none where the object is stripped."""
        tables = [section for section in self.sections if section.type == elf.SHT_SYMTAB]
        if not tables:
            return []
        if len(tables) > 1:
            raise ElfError(f"{len(tables)} symbol tables, in sections {', '.join(str(t.index) for t in tables)}")
        (table,) = tables
        if table.link >= len(self.sections) or len(table.data) % elf.SYMBOL.size:
            raise ElfError(f"symbol table of {len(table.data)} bytes with its names in section {table.link}")
        names = self.sections[table.link].data
        return [
            ElfSymbol(
                index, self._symbol_name(names, name, info & 15, section), section, value, size, info & 15, info >> 4,
                other & 3 in (1, 2),
            )
            for index, (name, info, other, section, value, size) in enumerate(elf.SYMBOL.iter_unpack(table.data))
        ]  # fmt: skip

    def _symbol_name(self, names: bytes, at: int, kind: int, section: int) -> str:
        if at == 0 and kind == elf.STT_SECTION and section < len(self.sections):
            return self.sections[section].name
        return _string(names, at)

    @cached_property
    def _relocation_tables(self) -> Mapping[int, Sequence[ElfSection]]:
        tables: dict[int, list[ElfSection]] = {}
        for section in self.sections:
            if section.type == elf.SHT_REL:
                tables.setdefault(section.info, []).append(section)
        return tables

    @cached_property
    def symbols_by_section(self) -> Mapping[int, Sequence[ElfSymbol]]:
        """Section index -> the symbols in it, in the order of the table."""
        found: dict[int, list[ElfSymbol]] = {}
        for symbol in self.symbols:
            found.setdefault(symbol.section, []).append(symbol)
        return found

    def relocations(self, section: ElfSection) -> Sequence[ElfRelocation]:
        """The relocations of a section's bytes, in the order of the file."""
        rows: list[ElfRelocation] = []
        for table in self._relocation_tables.get(section.index, ()):
            if len(table.data) % elf.RELOCATION.size:
                raise ElfError(f"section {table.name!r}: {len(table.data)} bytes are not whole relocations")
            for offset, info in elf.RELOCATION.iter_unpack(table.data):
                if info >> 32 >= len(self.symbols):
                    raise ElfError(f"section {table.name!r}: relocation of symbol {info >> 32}, which there is not")
                rows.append(ElfRelocation(offset, info >> 32, info & 0xFFFFFFFF))
        return rows


def _string(table: bytes, at: int) -> str:
    """The string at an offset of a string table; bytes that are no UTF-8 are escaped."""
    end = table.find(b"\0", at, at + _LONGEST_NAME)
    return table[at : end if end >= 0 else at + _LONGEST_NAME].decode(errors="backslashreplace")
