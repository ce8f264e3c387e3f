"""Maps as the verifier sees them: sizes, flags, known contents, and the parts of a value that only helpers touch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.lean import dataclass, field, replace
from simulator.managed import Field
from simulator.program import MapDef
from simulator.verifier.ways import Ways, ways_of

if TYPE_CHECKING:
    from bpflisp.spec.kernels import Profile

RDONLY_PROG: Final = 1 << 7
WRONLY_PROG: Final = 1 << 8
NAME_LENGTH: Final = 15
"""Bytes of a name that the kernel keeps: loaders cut off the rest."""
INNER_MAP: Final = 1 << 12
READ_ONLY_TYPES: Final = frozenset({"devmap", "devmap_hash"})
"""Maps whose values no program writes, whatever their flags say (dev_map_init_map of kernel/bpf/devmap.c)."""


_OF_MAPS: Final = frozenset({"array_of_maps", "hash_of_maps"})


@dataclass(frozen=True, slots=True, eq=False)
class MapInfo:
    """One map of the program; compared by identity, as the kernel compares map pointers.

    `contents` are the bytes of a frozen read-only array of one entry, which the verifier may take as known.
    """

    index: int
    name: str
    type: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    definition: MapDef
    contents: bytes | None = None
    inner: MapInfo | None = None
    fields: tuple[Field, ...] = field(default=())

    def field_at(self, offset: int, *kinds: str) -> Field | None:
        """The managed field of one of these kinds that starts at `offset`."""
        for candidate in self.fields:
            if candidate.offset == offset and candidate.kind in kinds:
                return candidate
        return None

    def field_of(self, *kinds: str) -> Field | None:
        """The first managed field of one of these kinds."""
        return next((candidate for candidate in self.fields if candidate.kind in kinds), None)


def _managed_fields(definition: MapDef) -> tuple[Field, ...]:
    if definition.btf is None or not definition.btf_value:
        return ()
    from simulator.managed import value_fields

    return value_fields(definition.btf, definition.btf_value)


_KPTRS: Final = frozenset({"kptr_ref", "kptr_unref", "kptr_percpu", "uptr"})


_FIELDS_SINCE: Final = {
    "bpf_timer": "5.15",
    "bpf_list_head": "6.2",
    "bpf_rb_root": "6.3",
    "bpf_refcount": "6.4",
    "bpf_wq": "6.10",
    "bpf_res_spin_lock": "6.15",
    "bpf_task_work": "6.18",
}
"""A managed field -> the release since which it is one; before, its bytes are like any others."""


def as_of(profile: Profile, info: MapInfo) -> MapInfo:
    """The map as a kernel reads its value's fields."""
    fields = tuple(one for one in info.fields if profile.since(_FIELDS_SINCE.get(one.kind, "0.0")))
    inner = None if info.inner is None else as_of(profile, info.inner)
    if fields == info.fields and inner is info.inner:
        return as_before_6_4(info, ways_of(profile))
    return as_before_6_4(replace(info, fields=fields, inner=inner), ways_of(profile))


def as_before_6_4(info: MapInfo, ways: Ways) -> MapInfo:
    """The map with its kernel pointers as earlier kernels read their tags: with one that is unknown, there is none."""
    found = [one for one in info.fields if one.kind in _KPTRS]
    if not found or ways.kptrs_are_referenced:
        return info
    known = ways.kptrs_in_values and all(one.kind == "kptr_ref" for one in found)
    kept = [
        replace(one, kind="kptr_unref") if one.kind == "kptr_ref" else one
        for one in info.fields
        if known or one.kind not in _KPTRS
    ]
    return replace(info, fields=tuple(kept))


def map_info(index: int, definition: MapDef) -> MapInfo:
    """What the verifier knows of a map; index -1 is for the template of maps in a map, whose name is not kept."""
    known = None
    readonly = definition.flags & RDONLY_PROG and definition.frozen
    if readonly and definition.type == "array" and definition.max_entries == 1:
        known = (definition.init or b"").ljust(definition.value_size, b"\0")
    return MapInfo(
        index=index,
        name=definition.name[:NAME_LENGTH] if index >= 0 else "",
        type=definition.type,
        key_size=definition.key_size,
        value_size=definition.value_size,
        max_entries=definition.max_entries,
        flags=definition.flags | (RDONLY_PROG if definition.type in READ_ONLY_TYPES else 0),
        definition=definition,
        contents=known,
        inner=map_info(-1, definition.inner) if definition.inner is not None and definition.type in _OF_MAPS else None,
        fields=_managed_fields(definition),
    )
