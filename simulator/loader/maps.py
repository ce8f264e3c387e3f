"""The maps of an object: declared in BTF, in the old `maps` section, or backing its data sections.

Where each lies in the object is kept beside it, so that relocations find it. The order is libbpf's: declared maps by
their offset, then data sections as they come, then `.kconfig`, then struct_ops.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence

from bpflisp.lean import dataclass, field, replace
from bpflisp.spec import elf
from bpflisp.spec import maps as map_types
from bpflisp.spec.btf import COMPOSITES, LINKAGE_GLOBAL, LINKAGE_STATIC, Btf, BtfError, BtfKind, BtfVariable
from bpflisp.spec.elf_read import ElfSection, ElfSymbol
from bpflisp.spec.insn import SLOT_SIZE
from simulator.loader.declaration import MAPS_OF_MAPS, Declaration, adjusted_entries, type_name
from simulator.loader.object_file import ObjectFile
from simulator.program import MapDef

POINTER_SIZE = 8
_LARGEST_DATA = 1 << 28
"""Bytes of a data section that we make room for."""
_NAME_LIMIT, _SUFFIX_ROOM = 15, 7
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.]")
_LEGACY = struct.Struct("<5I")
_STRUCT_OPS = (".struct_ops", ".struct_ops.link", "?.struct_ops", "?.struct_ops.link")


@dataclass(slots=True)
class MapTable:
    """The maps of an object, and where they lie in it.

    `declared` is by (section, offset) of a map's variable; `data` by the section that a map backs.
    """

    maps: list[MapDef] = field(default_factory=list)
    declared: dict[tuple[int, int], int] = field(default_factory=dict)
    data: dict[int, int] = field(default_factory=dict)
    kconfig: int = -1

    def add(self, definition: MapDef) -> int:
        """Adds a map and gives its index."""
        self.maps.append(definition)
        return len(self.maps) - 1


def load_maps(file: ObjectFile, btf: Btf | None, kconfig: MapDef | None) -> MapTable:
    """All maps of an object; `btf` is its BTF as the kernel takes it. Raises LoadError."""
    table = MapTable()
    _legacy(file, table)
    if btf is not None:
        try:
            _declared(file, btf, table)
        except BtfError as error:
            raise file.error(f"a map's declaration: {error}", ".BTF") from None
    _data_sections(file, btf, table)
    if kconfig is not None:
        table.kconfig = table.add(kconfig)
    if btf is not None:
        try:
            _struct_ops(file, btf, table)
        except BtfError as error:
            raise file.error(f"a struct_ops variable: {error}", ".BTF") from None
    return table


# -- the old way -------------------------------------------------------------------------------------------------------


def is_legacy(section: ElfSection) -> bool:
    """Whether maps are declared in it as they were before BTF."""
    return section.type == elf.SHT_PROGBITS and (section.name == "maps" or section.name.startswith("maps/"))


def _legacy(file: ObjectFile, table: MapTable) -> None:
    """Maps as structs of five numbers and whatever follows, each with a symbol, in sections named maps."""
    for section in file.image.sections:
        if not is_legacy(section):
            continue
        found = file.image.symbols_by_section.get(section.index, ())
        symbols = sorted((symbol for symbol in found if symbol.type != elf.STT_SECTION), key=lambda each: each.value)
        for symbol in symbols:
            if symbol.value + _LEGACY.size > len(section.data):
                raise file.error(f"map {symbol.name!r} ends after its section", section.name, symbol.value)
            kind, key, value, entries, flags = _LEGACY.unpack_from(section.data, symbol.value)
            name = type_name(file, symbol.name, kind)
            index = table.add(MapDef(symbol.name, name, key, value, adjusted_entries(name, entries), flags))
            table.declared[section.index, symbol.value] = index


# -- declared in BTF ---------------------------------------------------------------------------------------------------


def _declared(file: ObjectFile, btf: Btf, table: MapTable) -> None:
    section = file.image.section(".maps")
    datasec = btf.find(".maps", BtfKind.DATASEC)
    if section is None or datasec is None:
        return
    variables = _apart(file, btf, datasec)
    for variable in variables:
        definition = _declared_map(file, btf, section, variable)
        table.declared[section.index, variable.offset] = table.add(definition)
    _fill_slots(file, btf, section, table, variables)


def _declared_map(file: ObjectFile, btf: Btf, section: ElfSection, variable: BtfVariable) -> MapDef:
    declared = btf.type(variable.type)
    if declared.kind is not BtfKind.VAR or not declared.name:
        raise file.error(f"BTF type {variable.type} in .maps is no variable", section.name, variable.offset)
    if variable.offset + variable.size > len(section.data):
        raise file.error(f"map {declared.name!r} ends after its section", section.name, variable.offset)
    if btf.linkage(variable.type) != LINKAGE_GLOBAL:
        raise file.error(
            f"map {declared.name!r} is static", section.name, variable.offset, help="declare it without `static`"
        )
    return Declaration(file, btf, declared.name).read(declared.target)


def _apart(file: ObjectFile, btf: Btf, datasec: int) -> Sequence[BtfVariable]:
    """The variables of a data section, which do not overlap."""
    variables = btf.variables(datasec)
    end = 0
    for variable in variables:
        if variable.offset < end or not variable.size:
            raise file.error("variables overlap, or have no size", btf.type(datasec).name, variable.offset)
        end = variable.offset + variable.size
    return variables


def _fill_slots(
    file: ObjectFile, btf: Btf, section: ElfSection, table: MapTable, variables: Sequence[BtfVariable]
) -> None:
    """The initial entries of declared maps, from the relocations of `.maps`; `variables` are in order of offsets."""
    filled: dict[int, dict[int, str]] = {}
    for relocation in file.relocations(section):
        at = bisect_right(variables, relocation.offset, key=lambda variable: variable.offset) - 1
        if at < 0 or relocation.offset + POINTER_SIZE > variables[at].offset + variables[at].size:
            raise file.error("a relocation in no map", section.name, relocation.offset)
        variable = variables[at]
        index = table.declared[section.index, variable.offset]
        first = variable.offset + btf.type(btf.resolve(btf.type(variable.type).target)).size
        entry, odd = divmod(relocation.offset - first, POINTER_SIZE)
        if entry < 0 or odd:
            raise file.error("a relocation that is at no entry of its map", section.name, relocation.offset)
        target = _slot_target(file, table, table.maps[index], file.symbols[relocation.symbol])
        if not target:
            problem = f"entry {entry} of map {table.maps[index].name!r} is nothing that it can hold"
            raise file.error(problem, section.name, relocation.offset)
        filled.setdefault(index, {})[entry] = target
    for index, slots in filled.items():
        table.maps[index] = replace(table.maps[index], slots=slots)


def _slot_target(file: ObjectFile, table: MapTable, definition: MapDef, symbol: ElfSymbol) -> str:
    """The name of the map or program that an entry refers to; "" where it is neither."""
    if definition.type in MAPS_OF_MAPS:
        found = table.declared.get((symbol.section, symbol.value))
        return table.maps[found].name if found is not None else ""
    if definition.type != "prog_array":
        return ""
    function = file.function_at(symbol.section, symbol.value)
    return function.name if function and function.offset == symbol.value else ""


# -- data sections -----------------------------------------------------------------------------------------------------


def internal_name(object_name: str, section: str) -> str:
    """The name that libbpf gives the map of a data section: a part of the object's name, then the section's."""
    suffix = min(max(_SUFFIX_ROOM, len(section)), _NAME_LIMIT)
    prefix = "" if "." in section[1:] else object_name[: _NAME_LIMIT - suffix]
    return _NOT_IN_A_NAME.sub("_", (prefix + section[:suffix])[:_NAME_LIMIT])


def data_map(file: ObjectFile, btf: Btf | None, section: str, init: bytes, read_only: bool) -> MapDef:
    """The array of one element that holds a data section."""
    datasec = btf.find(section, BtfKind.DATASEC) if btf else None
    flags = map_types.F_RDONLY_PROG if read_only else 0
    if btf and datasec and _is_shared(btf, datasec):
        flags |= map_types.F_MMAPABLE
    return MapDef(
        internal_name(file.name, section), "array", 4, len(init), 1, flags, btf=btf if datasec else None,
        btf_value=datasec or 0, init=init, frozen=read_only,
    )  # fmt: skip


def _is_shared(btf: Btf, datasec: int) -> bool:
    """Whether user space may map it: some variable is not static."""
    return any(
        btf.type(variable.type).kind is BtfKind.VAR and btf.linkage(variable.type) != LINKAGE_STATIC
        for variable in btf.variables(datasec)
    )


def _data_sections(file: ObjectFile, btf: Btf | None, table: MapTable) -> None:
    taken = {definition.name for definition in table.maps}
    for section in file.image.sections:
        kind = _data_kind(section)
        if not kind or not section.size:
            continue
        if section.size > _LARGEST_DATA:
            raise file.error(f"{section.size} bytes of data: we take at most {_LARGEST_DATA}", section.name)
        init = section.data if section.type == elf.SHT_PROGBITS else bytes(section.size)
        try:
            definition = data_map(file, btf, section.name, init, kind == ".rodata")
        except BtfError as error:
            raise file.error(str(error), section.name) from None
        if definition.name in taken:
            # The kernel lets two maps have one name, and cutting names off brings it about; a world does not.
            definition = replace(definition, name=section.name)
        taken.add(definition.name)
        table.data[section.index] = table.add(definition)
    _arena(file, table)


def _data_kind(section: ElfSection) -> str:
    """`.data`, `.rodata` or `.bss` where the section is one, by its name and type; "" where it is none."""
    wanted = {".data": elf.SHT_PROGBITS, ".rodata": elf.SHT_PROGBITS, ".bss": elf.SHT_NOBITS}
    base = "." + section.name.split(".")[1] if section.name.startswith(".") else ""
    return base if wanted.get(base) == section.type and not section.is_code else ""


def _arena(file: ObjectFile, table: MapTable) -> None:
    """The variables of the arena are its first contents."""
    section = file.image.section(".addr_space.1")
    index = next((at for at, definition in enumerate(table.maps) if definition.type == "arena"), None)
    if section is not None and index is not None:
        table.maps[index] = replace(table.maps[index], init=section.data)
        table.data[section.index] = index


# -- struct_ops --------------------------------------------------------------------------------------------------------


def _struct_ops(file: ObjectFile, btf: Btf, table: MapTable) -> None:
    """Variables of struct_ops sections: maps whose `slots` are member index -> program, `init` the other members."""
    for name in _STRUCT_OPS:
        section = file.image.section(name)
        datasec = btf.find(name, BtfKind.DATASEC)
        if section is None or datasec is None:
            continue
        flags = map_types.F_LINK if name.endswith(".link") else 0
        programs = dict(_struct_ops_programs(file, section))
        for variable in _apart(file, btf, datasec):
            declared = btf.type(variable.type)
            struct_id = btf.resolve(declared.target)
            size = btf.size_of(struct_id)
            if btf.type(struct_id).kind not in COMPOSITES or variable.offset + size > len(section.data):
                raise file.error(f"{declared.name!r} is no struct inside its section", name, variable.offset)
            slots = {
                at: programs[place]
                for at, member in enumerate(btf.members(struct_id))
                if (place := variable.offset + member.bit_offset // 8) in programs
            }
            init = section.data[variable.offset : variable.offset + size]
            table.add(
                MapDef(declared.name, "struct_ops", 4, size, 1, flags, btf=btf, btf_value=struct_id, init=init,
                       slots=slots)
            )  # fmt: skip


def _struct_ops_programs(file: ObjectFile, section: ElfSection) -> Iterator[tuple[int, str]]:
    """Offset in the section -> the program that it points to."""
    for relocation in file.relocations(section):
        symbol = file.symbols[relocation.symbol]
        function = file.function_at(symbol.section, symbol.value)
        if function is None or symbol.value % SLOT_SIZE:
            raise file.error(f"{symbol.name!r} is no program", section.name, relocation.offset)
        yield relocation.offset, function.name


def struct_ops_members(maps: Sequence[MapDef]) -> Mapping[str, tuple[str, str, int]]:
    """Program -> (the struct that it is a member of, the member's name, its index in the object's own BTF)."""
    found = {}
    for definition in maps:
        if definition.type == "struct_ops" and definition.btf:
            struct_name = definition.btf.type(definition.btf_value).name
            members = definition.btf.members(definition.btf_value)
            for at, program in definition.slots.items():
                found[program] = (struct_name, members[at].name, at)
    return found
