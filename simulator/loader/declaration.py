"""A map's declaration in BTF: a struct whose members are its attributes, as bpf_helpers.h writes them."""

from __future__ import annotations

from bpflisp.spec import maps as map_types
from bpflisp.spec.btf import ENUMS, Btf, BtfKind
from simulator.loader.object_file import ObjectFile
from simulator.program import MapDef

MAPS_OF_MAPS = frozenset({"array_of_maps", "hash_of_maps"})
RINGBUFS = frozenset({"ringbuf", "user_ringbuf"})

# The kernel takes no BTF with these, and libbpf does not pass it.
WITHOUT_BTF = frozenset(
    {
        "perf_event_array", "cgroup_array", "stack_trace", "array_of_maps", "hash_of_maps", "devmap", "devmap_hash",
        "cpumap", "xskmap", "sockmap", "sockhash", "queue", "stack", "arena",
    }
)  # fmt: skip

_ATTRIBUTES = frozenset({"type", "max_entries", "map_flags", "numa_node", "key_size", "value_size", "map_extra"})
_MOST_ATTRIBUTES = 64
_PAGE_SIZE = 4096


def type_name(file: ObjectFile, name: str, number: int) -> str:
    """The name of a map type's number, for the map called `name`. Raises LoadError where there is none."""
    kind = map_types.by_number(number)
    if kind is None:
        raise file.error(f"map {name!r} has type {number}, which no kernel that we know has")
    return kind.name


def adjusted_entries(kind: str, entries: int) -> int:
    """The number of entries; of a ring buffer, the next power of two of pages, as libbpf makes it."""
    if kind not in RINGBUFS or entries == 0 or entries > 1 << 31:
        return entries
    size = _PAGE_SIZE
    while size < entries:
        size *= 2
    return size


class Declaration:
    """The struct that declares one map, read member by member."""

    def __init__(self, file: ObjectFile, btf: Btf, name: str, is_inner: bool = False) -> None:
        self.file, self.btf, self.name, self.is_inner = file, btf, name, is_inner
        self.numbers: dict[str, int] = {}
        self.types: dict[str, int] = {}
        self.inner: MapDef | None = None

    def read(self, struct_id: int) -> MapDef:
        """The map that a struct declares. Raises LoadError for what libbpf would refuse."""
        btf = self.btf
        struct_id = btf.resolve(struct_id)
        if btf.type(struct_id).kind is not BtfKind.STRUCT:
            raise self.error(f"is a {btf.type(struct_id).kind.name}, not a struct")
        if btf.type(struct_id).vlen > _MOST_ATTRIBUTES:
            raise self.error(f"has {btf.type(struct_id).vlen} attributes")
        members = btf.members(struct_id)
        for at, member in enumerate(members):
            if member.name in ("key", "value"):
                self._typed(member.name, member.type)
            elif member.name == "values":
                self._values(member.type, at == len(members) - 1)
            elif member.name == "pinning":
                self._pinning(member.type)
            elif member.name in _ATTRIBUTES:
                self._set(member.name, self._number(member.name, member.type))
            else:
                raise self.error(f"has an attribute {member.name!r}, which libbpf does not know")
        return self._definition()

    def error(self, problem: str, help: str = "") -> Exception:
        """A LoadError about this map."""
        return self.file.error(f"map {self.name!r} {problem}", ".maps", help=help)

    def _set(self, name: str, number: int) -> None:
        if self.numbers.setdefault(name, number) != number and name.endswith("_size"):
            raise self.error(f"has two different values of {name}: {self.numbers[name]} and {number}")
        self.numbers[name] = number

    def _number(self, name: str, type_id: int) -> int:
        """`int (*name)[N]` is N; for map_extra an enum with one value may hold 64 bits."""
        btf = self.btf
        found = btf.type(btf.resolve(type_id))
        if found.kind is BtfKind.PTR:
            target = btf.type(found.target)
            if target.kind is BtfKind.ARRAY:
                return btf.array(target.id).count
        elif found.kind in ENUMS and name == "map_extra" and found.vlen == 1:
            ((_, number),) = btf.enumerators(found.id)
            return number & 0xFFFFFFFFFFFFFFFF
        raise self.error(f"declares {name} by a {found.kind.name}", "use __uint() of bpf_helpers.h")

    def _typed(self, name: str, type_id: int) -> None:
        target = self.btf.pointee(type_id)
        if target is None:
            raise self.error(f"declares its {name} by no pointer", "use __type() of bpf_helpers.h")
        self._set(name + "_size", self.btf.size_of(target))
        self.types[name] = target

    def _pinning(self, type_id: int) -> None:
        if self.is_inner or self._number("pinning", type_id) not in (0, 1):
            raise self.error("is pinned in a way that libbpf does not know")

    def _values(self, type_id: int, is_last: bool) -> None:
        """What the map's initial entries are: other maps, or programs."""
        btf = self.btf
        kind = self._kind()
        if self.is_inner or not is_last or kind not in MAPS_OF_MAPS | {"prog_array"}:
            raise self.error(f"of type {kind} declares `values`, which it cannot here")
        found = btf.type(type_id)
        if found.kind is not BtfKind.ARRAY or btf.array(type_id).count:
            raise self.error("declares `values` by no array of length 0", "use __array() of bpf_helpers.h")
        target = btf.pointee(btf.array(type_id).element)
        target_kind = btf.type(btf.resolve(target)).kind if target is not None else BtfKind.VOID
        if kind == "prog_array" and target_kind is not BtfKind.FUNC_PROTO:
            raise self.error("declares `values` that point to no function")
        self._set("value_size", 4)
        if kind in MAPS_OF_MAPS and target is not None:
            self.inner = Declaration(self.file, btf, f"{self.name}.inner", True).read(target)

    def _kind(self) -> str:
        number = self.numbers.get("type", 0)
        if not number:
            raise self.error("does not say its type before what depends on it")
        return type_name(self.file, self.name, number)

    def _definition(self) -> MapDef:
        number, kind = self.numbers.get, self._kind()
        typed = self.types if kind not in WITHOUT_BTF else {}
        return MapDef(
            self.name, kind, number("key_size", 0), number("value_size", 0),
            adjusted_entries(kind, number("max_entries", 0)), number("map_flags", 0), number("map_extra", 0),
            self.inner, self.btf if typed else None, typed.get("key", 0), typed.get("value", 0),
        )  # fmt: skip
