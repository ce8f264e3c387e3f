"""The linking itself: sections and symbols first, then the instructions with their relocations, then BTF.

Addresses are settled before any instruction is encoded, so that a call of a static function can carry its offset as
clang writes it: against the section's symbol, for libbpf takes no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from bpflisp.link.describe import Description, Placed, map_variable_size, slots_offset
from bpflisp.link.values import LinkError, LinkFunction, LinkGlobal, LinkMap, LinkObject, Relocation, RelocKind
from bpflisp.spec import elf
from bpflisp.spec.btf_ext import BtfExt, CoreRecord, FuncRecord, LineRecord, encode_btf_ext
from bpflisp.spec.insn import SLOT_SIZE, Insn
from bpflisp.spec.isa import CALL_KFUNC, CALL_SUBPROGRAM, PSEUDO_FUNC, Kind

TEXT = ".text"
_IDENTIFIER = re.compile(r"[A-Za-z_.][A-Za-z0-9_.]*\Z")
_LAST_LINE, _LAST_COLUMN = (1 << 22) - 1, (1 << 10) - 1

# Which kind of instruction a relocation goes with.
_RELOCATED_KIND = {
    RelocKind.MAP: Kind.LOAD_IMM64,
    RelocKind.DATA: Kind.LOAD_IMM64,
    RelocKind.FUNC: Kind.LOAD_IMM64,
    RelocKind.CALL: Kind.CALL,
    RelocKind.KFUNC: Kind.CALL,
}


def link(source: LinkObject) -> bytes:
    """The ELF object. Raises LinkError where the values contradict each other."""
    return _Linker(source).run()


def _slots(function: LinkFunction) -> int:
    return sum(insn.slots for insn in function.insns if insn is not None)


class _Linker:
    """One object while it is linked."""

    def __init__(self, source: LinkObject) -> None:
        self.source = source
        self.elf = elf.ElfWriter()
        self.btf = Description()
        self.functions = {function.name: function for function in source.functions}
        self.placed: dict[str, Placed] = {}
        self.symbols: dict[str, int] = {}
        self.section_symbols: dict[int, int] = {}
        self.known = {
            RelocKind.MAP: {definition.name for definition in source.maps},
            RelocKind.DATA: {variable.name for variable in source.globals},
            RelocKind.KFUNC: set(source.externs),
            RelocKind.CALL: set(self.functions),
            RelocKind.FUNC: set(self.functions),
        }
        self.has_lines = any(function.lines for function in source.functions)
        self._check_names()

    def run(self) -> bytes:
        code = self._place_functions()
        data = self._place_globals()
        maps = self._place_maps()
        self._declare_externs()
        for function in self.source.functions:
            self._relocate(function)
        self._describe(data)
        self._fill_slots(maps)
        self._write_btf(code)
        return self.elf.to_bytes()

    # -- names --------------------------------------------------------------------------------------------------------

    def _check_names(self) -> None:
        """Each symbol once, and of the letters that the kernel takes in BTF."""
        source = self.source
        seen: set[str] = set()
        named: Iterable[LinkFunction | LinkMap | LinkGlobal] = (*source.functions, *source.maps, *source.globals)
        for name in (*(thing.name for thing in named), *source.externs):
            if not _IDENTIFIER.match(name):
                raise LinkError(f"the kernel takes no name like {name!r}: letters, digits, '_' and '.' only")
            if name in seen:
                raise LinkError(f"two things are named {name!r}")
            seen.add(name)

    # -- placing ------------------------------------------------------------------------------------------------------

    def _place_functions(self) -> dict[str, list[LinkFunction]]:
        """A section for each name, functions in the order given; `.text` first and always, as clang has it."""
        by_section: dict[str, list[LinkFunction]] = {TEXT: []}
        for function in self.source.functions:
            by_section.setdefault(function.section, []).append(function)
        flags = elf.SHF_ALLOC | elf.SHF_EXECINSTR
        offsets: dict[str, int] = {}
        for functions in by_section.values():
            at = 0
            for function in functions:
                offsets[function.name], at = at, at + SLOT_SIZE * _slots(function)
        # A call's immediate depends on where its target lies, so that the code is made when every offset is known.
        for section, functions in by_section.items():
            code = b"".join(self._code(function, offsets) for function in functions)
            number = self.elf.section(section, flags, code)
            if section == TEXT:
                self.section_symbols[number] = self.elf.symbol("", number, 0, 0, elf.STT_SECTION, elf.STB_LOCAL)
            for function in functions:
                size = SLOT_SIZE * _slots(function)
                self._define(
                    function.name, Placed(number, offsets[function.name], size), elf.STT_FUNC, function.is_global
                )
        return by_section

    def _define(self, name: str, place: Placed, kind: int, is_global: bool) -> None:
        bind = elf.STB_GLOBAL if is_global else elf.STB_LOCAL
        self.placed[name] = place
        self.symbols[name] = self.elf.symbol(name, place.section, place.offset, place.size, kind, bind)

    def _place_globals(self) -> list[tuple[str, int, list[tuple[LinkGlobal, Placed]]]]:
        """The licence and the variables: (section name, size, variables) of each data section."""
        if self.source.license:
            text = self.source.license.encode() + b"\0"
            number = self.elf.section("license", elf.SHF_ALLOC | elf.SHF_WRITE, text, 1)
            self._define("_license", Placed(number, 0, len(text)), elf.STT_OBJECT, True)
        by_section: dict[str, list[LinkGlobal]] = {}
        for variable in self.source.globals:
            by_section.setdefault(variable.section, []).append(variable)
        return [self._place_section(section, variables) for section, variables in by_section.items()]

    def _place_section(
        self, section: str, variables: Sequence[LinkGlobal]
    ) -> tuple[str, int, list[tuple[LinkGlobal, Placed]]]:
        data = bytearray()
        offsets = []
        for variable in variables:
            data += bytes(-len(data) % variable.align)
            offsets.append(len(data))
            data += variable.data
        base = "." + section.split(".")[1] if section.startswith(".") else section
        if base not in (".data", ".rodata", ".bss"):
            raise LinkError(f"{variables[0].name!r} is in section {section!r}: not .data, .rodata or .bss")
        if base == ".bss" and any(data):
            raise LinkError(f"{variables[0].name!r} is in section {section!r}, and not all zero")
        align = max(variable.align for variable in variables)
        flags = elf.SHF_ALLOC | (0 if base == ".rodata" else elf.SHF_WRITE)
        zero = len(data) if base == ".bss" else None
        number = self.elf.section(section, flags, b"" if base == ".bss" else bytes(data), align, zero)
        placed = []
        for variable, offset in zip(variables, offsets, strict=True):
            place = Placed(number, offset, len(variable.data))
            self._define(variable.name, place, elf.STT_OBJECT, variable.is_global)
            placed.append((variable, place))
        return section, len(data), placed

    def _place_maps(self) -> int:
        """The number of `.maps`, 0 without maps. Its bytes are zero: loaders read the BTF."""
        maps = self.source.maps
        sizes = [map_variable_size(definition) for definition in maps]
        if not maps:
            return 0
        number = self.elf.section(".maps", elf.SHF_ALLOC | elf.SHF_WRITE, bytes(sum(sizes)))
        at = 0
        for definition, size in zip(maps, sizes, strict=True):
            self._define(definition.name, Placed(number, at, size), elf.STT_OBJECT, True)
            at += size
        return number

    def _declare_externs(self) -> None:
        for name in self.source.externs:
            self.symbols[name] = self.elf.symbol(name, elf.SHN_UNDEF, 0, 0, elf.STT_NOTYPE, elf.STB_GLOBAL)

    # -- code ---------------------------------------------------------------------------------------------------------

    def _code(self, function: LinkFunction, offsets: dict[str, int]) -> bytes:
        """The instructions, with what relocations put into their fields."""
        wanted: dict[int, Relocation] = {}
        for relocation in function.relocations:
            if relocation.slot in wanted:
                raise LinkError(f"two relocations at slot {relocation.slot} of {function.name!r}")
            wanted[relocation.slot] = relocation
        code, slot = bytearray(), 0
        for insn in function.insns:
            if insn is None:
                continue
            found = wanted.pop(slot, None)
            code += (self._relocated(function, insn, found, offsets) if found else insn).encode()
            slot += insn.slots
        if wanted:
            raise LinkError(f"a relocation at slot {min(wanted)} of {function.name!r}: no instruction starts there")
        return bytes(code)

    def _relocated(self, function: LinkFunction, insn: Insn, relocation: Relocation, offsets: dict[str, int]) -> Insn:
        kind, symbol = relocation.kind, relocation.symbol
        where = f"slot {relocation.slot} of {function.name!r}"
        if insn.row.kind is not _RELOCATED_KIND[kind]:
            raise LinkError(f"a {kind.value} relocation at {where}, which is a {insn.row.kind.value}")
        if symbol not in self.known[kind]:
            raise LinkError(f"{where} needs the {kind.value} {symbol!r}, which is not there")
        if kind in (RelocKind.MAP, RelocKind.DATA):
            return replace(insn, src=0, imm=relocation.addend, imm_high=0)
        if kind is RelocKind.KFUNC:
            return replace(insn, src=CALL_KFUNC, imm=-1)
        target = self.functions[symbol]
        if target.section != TEXT:
            raise LinkError(f"{where} calls {symbol!r} in {target.section!r}: what is called has to be in {TEXT}")
        # A static function is found by its section's symbol and an offset in the immediate; a global one by its own.
        offset = 0 if target.is_global else offsets[symbol]
        if kind is RelocKind.FUNC:
            return replace(insn, src=PSEUDO_FUNC, imm=offset, imm_high=0)
        return replace(insn, src=CALL_SUBPROGRAM, imm=offset // SLOT_SIZE - 1)

    def _relocate(self, function: LinkFunction) -> None:
        """The relocation records of a function."""
        place = self.placed[function.name]
        for relocation in function.relocations:
            symbol = self.symbols[relocation.symbol]
            target = self.functions.get(relocation.symbol)
            if target is not None and not target.is_global:
                symbol = self.section_symbols[self.placed[target.name].section]
            is_call = relocation.kind in (RelocKind.CALL, RelocKind.KFUNC)
            kind = elf.R_BPF_64_32 if is_call else elf.R_BPF_64_64
            self.elf.relocation(place.section, place.offset + SLOT_SIZE * relocation.slot, symbol, kind)

    def _fill_slots(self, section: int) -> None:
        """The initial entries of maps, as relocations of the map's variable."""
        for definition in self.source.maps:
            first = self.placed[definition.name].offset + slots_offset(definition)
            for index, symbol in sorted(definition.slots.items()):
                if symbol not in self.symbols:
                    raise LinkError(f"entry {index} of map {definition.name!r} is {symbol!r}, which is not there")
                self.elf.relocation(section, first + 8 * index, self.symbols[symbol], elf.R_BPF_64_ABS64)

    # -- BTF ----------------------------------------------------------------------------------------------------------

    def _describe(self, data: Sequence[tuple[str, int, list[tuple[LinkGlobal, Placed]]]]) -> None:
        source = self.source
        for function in source.functions:
            self.btf.add_function(function)
        for ctype in source.types:
            self.btf.builder.add(ctype)
        self.btf.add_externs(source.externs)
        self.btf.add_maps(source.maps, [self.placed[definition.name] for definition in source.maps])
        for section, size, variables in data:
            self.btf.add_globals(section, size, variables)
        if source.license:
            self.btf.add_license(source.license.encode() + b"\0")

    def _write_btf(self, code: dict[str, list[LinkFunction]]) -> None:
        ext = BtfExt(
            {section: [self._func(function) for function in functions] for section, functions in code.items()},
            {section: self._lines(functions) for section, functions in code.items()},
            {section: self._core(functions) for section, functions in code.items()},
        )
        # The strings of .BTF.ext live in .BTF, so that it is made first and written second.
        encoded = encode_btf_ext(ext, self.btf.builder.string)
        self.elf.section(".BTF", 0, self.btf.builder.to_bytes(), 4)
        self.elf.section(".BTF.ext", 0, encoded, 4)

    def _func(self, function: LinkFunction) -> FuncRecord:
        return FuncRecord(self.placed[function.name].offset, self.btf.functions[function.name])

    def _lines(self, functions: Sequence[LinkFunction]) -> list[LineRecord]:
        """The line records of a section; a function's first is moved to its start, where the kernel wants one."""
        records = []
        for function in functions:
            last = -1
            for line in sorted(function.lines, key=lambda line: line.slot):
                slot = line.slot if last >= 0 else 0
                if slot == last:
                    continue
                last = slot
                records.append(
                    LineRecord(
                        self.placed[function.name].offset + SLOT_SIZE * slot,
                        self._string(line.file),
                        self._string(line.text),
                        min(line.line, _LAST_LINE),
                        min(line.column, _LAST_COLUMN),
                    )
                )
            if last < 0 and self.has_lines:
                raise LinkError(f"{function.name!r} has no source line, and others have: the kernel takes all or none")
        return records

    def _string(self, text: str) -> int:
        return self.btf.builder.string(text.replace("\0", "\\0"))

    def _core(self, functions: Sequence[LinkFunction]) -> list[CoreRecord]:
        return [
            CoreRecord(
                self.placed[function.name].offset + SLOT_SIZE * access.slot,
                self.btf.builder.add(access.type),
                self._string(access.access),
                access.kind,
            )
            for function in functions
            for access in sorted(function.core, key=lambda access: access.slot)
        ]
