"""The BTF of an object: maps as the structs that loaders read, functions, globals, and the ids that records name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bpflisp.lean import dataclass
from bpflisp.link.values import LinkError, LinkFunction, LinkGlobal, LinkMap
from bpflisp.spec import maps as map_types
from bpflisp.spec.btf import LINKAGE_EXTERN, LINKAGE_GLOBAL, LINKAGE_STATIC
from bpflisp.spec.btf_build import (
    CHAR,
    INT,
    U8,
    U16,
    U32,
    U64,
    Array,
    BtfBuilder,
    CType,
    Enum,
    Pointer,
    Signature,
    Void,
)

POINTER_SIZE = 8
_TAIL_CALLED = Signature(INT, [("ctx", Pointer(Void()))])
"""What a prog array's `values` are declared to hold, as libbpf wants it."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a symbol came to lie: the number of its ELF section and offset and size there, in bytes."""

    section: int
    offset: int
    size: int


def map_variable_size(definition: LinkMap) -> int:
    """Bytes of a map's variable in `.maps`: a pointer for each attribute, then the initial entries."""
    return POINTER_SIZE * (len(_fields(definition)) + max(definition.slots, default=-1) + 1)


def slots_offset(definition: LinkMap) -> int:
    """The offset, in a map's variable, of its initial entries."""
    return POINTER_SIZE * len(_fields(definition))


def _number(number: int) -> CType:
    """A number as map definitions carry it: the length of an array behind a pointer, or an enumerator if it is long."""
    if number < 1 << 32:
        return Pointer(Array(INT, number))
    return Enum("", 8, [("__unique_value", number)])


def _plain(size: int) -> CType:
    """A type of some size. The kernel takes no map of which only the key or only the value has a type."""
    return {1: U8, 2: U16, 4: U32, 8: U64}.get(size) or Array(U8, size)


def _fields(definition: LinkMap) -> list[tuple[str, CType]]:
    """The attributes of a map, each as the member that declares it; `values` comes apart, for it is never shared."""
    kind = map_types.by_name(definition.type)
    if kind is None:
        raise LinkError(f"map {definition.name!r} has type {definition.type!r}, which no kernel that we know has")
    fields = [("type", _number(kind.number))]
    typed = definition.key is not None or definition.value is not None
    for name, ctype, size in (
        ("key", definition.key, definition.key_size),
        ("value", definition.value, definition.value_size),
    ):
        if ctype is None and size and typed:
            ctype = _plain(size)
        if ctype is not None:
            fields.append((name, Pointer(ctype)))
        elif size:
            fields.append((name + "_size", _number(size)))
    for name, number in (
        ("max_entries", definition.max_entries),
        ("map_flags", definition.flags),
        ("map_extra", definition.extra),
        ("pinning", definition.pinning),
    ):
        if number:
            fields.append((name, _number(number)))
    return fields


class Description:
    """The BTF of one object while it is made. The ids of FUNCs are kept by name, for the records that name them."""

    def __init__(self) -> None:
        self.builder = BtfBuilder()
        self.functions: dict[str, int] = {}

    def add_map(self, definition: LinkMap) -> int:
        """The VAR of a map."""
        return self.builder.var(definition.name, self._map_struct(definition), LINKAGE_GLOBAL)

    def _map_struct(self, definition: LinkMap) -> int:
        add = self.builder.add
        members = [(name, add(ctype)) for name, ctype in _fields(definition)]
        if definition.inner is not None:
            inner = self.builder.pointer(self._map_struct(definition.inner))
            members.append(("values", self.builder.array(inner, 0)))
        elif definition.type == "prog_array" and definition.slots:
            members.append(("values", add(Array(Pointer(_TAIL_CALLED), 0))))
        elif definition.slots:
            raise LinkError(f"map {definition.name!r} of type {definition.type} cannot have initial entries")
        size = POINTER_SIZE * len(_fields(definition))
        return self.builder.anonymous_struct(
            size, [(name, type_id, 64 * at) for at, (name, type_id) in enumerate(members)]
        )

    def add_function(self, function: LinkFunction) -> None:
        """The FUNC of a program or subprogram."""
        linkage = LINKAGE_GLOBAL if function.is_global else LINKAGE_STATIC
        self.functions[function.name] = self.builder.func(function.name, function.signature, linkage)

    def add_externs(self, externs: Mapping[str, Signature]) -> None:
        """The kernel functions that are called, in `.ksyms`."""
        funcs = [self.builder.func(name, signature, LINKAGE_EXTERN) for name, signature in externs.items()]
        if funcs:
            self.builder.datasec(".ksyms", 0, [(func, 0, 0) for func in funcs])

    def add_maps(self, maps: Sequence[LinkMap], places: Sequence[Placed]) -> None:
        """The maps, and `.maps` that holds them."""
        if maps:
            variables = [
                (self.add_map(definition), place.offset, place.size)
                for definition, place in zip(maps, places, strict=True)
            ]
            self.builder.datasec(".maps", places[-1].offset + places[-1].size, variables)

    def add_globals(self, section: str, size: int, variables: Sequence[tuple[LinkGlobal, Placed]]) -> None:
        """The variables of one data section of `size` bytes."""
        entries = []
        for variable, place in variables:
            linkage = LINKAGE_GLOBAL if variable.is_global else LINKAGE_STATIC
            type_id = self.builder.add(variable.type)
            entries.append((self.builder.var(variable.name, type_id, linkage), place.offset, place.size))
        self.builder.datasec(section, size, entries)

    def add_license(self, text: bytes) -> None:
        """The licence as the variable that it is in C."""
        variable = self.builder.var("_license", self.builder.add(Array(CHAR, len(text))), LINKAGE_GLOBAL)
        self.builder.datasec("license", len(text), [(variable, 0, len(text))])
