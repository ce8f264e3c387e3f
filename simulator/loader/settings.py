"""What user space sets between opening an object and loading it: its variables, and how many entries its maps have.

A loader writes to `.rodata`, `.data` and `.bss` before it makes their maps (libbpf's skeletons, the Variables of
cilium/ebpf, aya's set_global), and gives a size to maps that the object leaves without one. A constant that is set so
decides which code the verifier follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from bpflisp.lean import dataclass, replace
from bpflisp.spec import elf
from bpflisp.spec.btf import Btf, BtfKind
from bpflisp.spec.elf_read import ElfSymbol
from simulator.loader.declaration import adjusted_entries
from simulator.loader.maps import MapTable
from simulator.loader.object_file import ObjectFile
from simulator.maps import lacks_entries
from simulator.maps.values import encode

_MOST_ENTRIES = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Settings:
    """Variable -> its value; map -> its number of entries."""

    variables: Mapping[str, Any]
    max_entries: Mapping[str, int]


def apply_settings(file: ObjectFile, btf: Btf | None, table: MapTable, settings: Settings) -> None:
    """Changes the maps of an object as user space would. Raises LoadError for what the object does not have."""
    for name, value in settings.variables.items():
        _set_variable(file, btf, table, name, value)
    for name, entries in settings.max_entries.items():
        _set_entries(file, table, name, entries)


def without_size(table: MapTable) -> tuple[str, ...]:
    """A note on each map that has no entries: as it stands, no kernel makes it."""
    return tuple(
        f"map {each.name!r} has no entries, which its loader sets: give them as max_entries={{{each.name!r}: N}}"
        for each in table.maps
        if lacks_entries(each)
    )


def _set_variable(file: ObjectFile, btf: Btf | None, table: MapTable, name: str, value: Any) -> None:
    symbol = _symbol(file, table, name)
    section = file.image.sections[symbol.section]
    index = table.data[symbol.section]
    init = bytearray(table.maps[index].init or bytes(table.maps[index].value_size))
    size = symbol.size or len(init) - symbol.value
    if symbol.value + size > len(init):
        raise file.error(f"variable {name!r} is not inside its section", section.name, symbol.value)
    type_id = _type_of(btf, section.name, name)
    try:
        data = _plain(value, size) if btf is None or type_id is None else encode(btf, type_id, value, size)
    except (ValueError, TypeError, OverflowError) as problem:
        raise file.error(f"variable {name!r} cannot be {value!r}", section.name, because=str(problem)) from None
    init[symbol.value : symbol.value + size] = data
    table.maps[index] = replace(table.maps[index], init=bytes(init))


def _symbol(file: ObjectFile, table: MapTable, name: str) -> ElfSymbol:
    """The variable of this name in the object's data."""
    variables = [symbol for symbol in file.symbols if symbol.section in table.data and symbol.type != elf.STT_SECTION]
    found = [symbol for symbol in variables if symbol.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise file.error(f"{len(found)} variables are named {name!r}", help="rename one: each is static in its place")
    raise file.error(f"no variable {name!r} in its data", help=_near(name, (each.name for each in variables)))


def _type_of(btf: Btf | None, section: str, name: str) -> int | None:
    """The id of a variable's type; None where the object does not say."""
    datasec = None if btf is None else btf.find(section, BtfKind.DATASEC)
    if btf is None or datasec is None:
        return None
    declared = (btf.type(variable.type) for variable in btf.variables(datasec))
    return next((each.target for each in declared if each.name == name), None)


def _plain(value: Any, size: int) -> bytes:
    """A number, little-endian, or bytes, for a variable of which only the size is known."""
    if isinstance(value, bytes):
        if len(value) != size:
            raise ValueError(f"{size} bytes are wanted, not {len(value)}")
        return value
    if isinstance(value, int) and size <= 8:
        return value.to_bytes(size, "little", signed=value < 0)
    raise TypeError(f"without BTF only its size is known: give {size} bytes")


def _set_entries(file: ObjectFile, table: MapTable, name: str, entries: int) -> None:
    index = next((at for at, each in enumerate(table.maps) if each.name == name), None)
    if index is None:
        raise file.error(f"no map {name!r}", help=_near(name, (each.name for each in table.maps)))
    if not 0 < entries <= _MOST_ENTRIES:
        raise file.error(f"map {name!r} cannot have {entries} entries", help=f"give 1 to {_MOST_ENTRIES}")
    if index in table.data.values():
        raise file.error(f"map {name!r} backs a section: it has one entry")
    made = table.maps[index]
    table.maps[index] = replace(made, max_entries=adjusted_entries(made.type, entries))


def _near(name: str, known: Iterable[str]) -> str:
    names = sorted(set(known))
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names) or 'none'}"
