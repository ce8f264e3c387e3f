"""The parts of a map's value, or of an allocated object, that the kernel manages, found in its BTF.

Invariant: what the kernel cannot make sense of, it leaves out as a whole: such a value has no managed fields at all.
Source: btf_parse_fields, btf_find_field_one and btf_parse_graph_root of kernel/bpf/btf.c.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Final

from bpflisp.lean import dataclass
from bpflisp.spec.btf import Btf, BtfKind, BtfType


@dataclass(frozen=True, slots=True)
class Field:
    """A part of a map's value that the kernel manages: its kind ("bpf_spin_lock", "bpf_timer", ...), place and size.

    `target` is what a kptr points to, or what a list or tree holds: (BTF, type id); `node` where in that its node lies.
    """

    kind: str
    offset: int
    size: int
    target: tuple[object, int] | None = None
    node: int = 0


MANAGED_SIZES: Final = {
    "bpf_spin_lock": 4,
    "bpf_res_spin_lock": 4,
    "bpf_timer": 16,
    "bpf_wq": 16,
    "bpf_list_head": 16,
    "bpf_list_node": 24,
    "bpf_rb_root": 16,
    "bpf_rb_node": 32,
    "bpf_refcount": 4,
    "bpf_task_work": 8,
}

_DEEPEST: Final = 32
_MOST_FIELDS: Final = 11
_KPTR_TAGS: Final = {"kptr_untrusted": "kptr_unref", "kptr": "kptr_ref", "percpu_kptr": "kptr_percpu", "uptr": "uptr"}
NODES: Final = {"bpf_list_head": "bpf_list_node", "bpf_rb_root": "bpf_rb_node"}
"""What holds objects -> the part of an object by which it is held."""
_ONCE: Final = frozenset({"bpf_spin_lock", "bpf_res_spin_lock", "bpf_timer", "bpf_wq", "bpf_refcount", "bpf_task_work"})
_ALIGNED_TO_4: Final = frozenset({"bpf_spin_lock", "bpf_res_spin_lock", "bpf_refcount"})
_NOT_IN_MAPS: Final = frozenset(NODES.values())
_NOT_IN_OBJECTS: Final = frozenset({"bpf_timer", "bpf_wq", "bpf_task_work"})


class _UnparsedError(Exception):
    """The kernel cannot make sense of a type's managed fields."""


class _Search:
    """One walk through a type."""

    def __init__(self, btf: Btf, unknown: frozenset[str]) -> None:
        self.btf = btf
        self.unknown = unknown
        self.seen: set[str] = set()

    def of_type(self, type_id: int, depth: int) -> list[Field]:
        """The fields of a structure or data section, in the order of its members."""
        btf, head = self.btf, self.btf.type(type_id)
        found: list[Field] = []
        if head.kind is BtfKind.DATASEC:
            for var in btf.variables(type_id):
                found += self.one(var.type, -1, btf.type(var.type).target, var.offset, var.size, depth)
        elif head.kind in (BtfKind.STRUCT, BtfKind.UNION):
            for at, member in enumerate(btf.members(type_id)):
                if member.bit_offset % 8:
                    raise _UnparsedError
                found += self.one(type_id, at, member.type, member.bit_offset // 8, 0, depth)
        if len(found) > _MOST_FIELDS:
            raise _UnparsedError
        return found

    def one(self, holder: int, at: int, type_id: int, offset: int, expected: int, depth: int) -> list[Field]:
        """The fields of one member or variable, `expected` bytes long where that is known; of each element of an array.

        `holder` and `at` say where its tags are.
        """
        btf, count = self.btf, 1
        for _ in range(_DEEPEST):
            if not type_id or btf.type(type_id).kind is not BtfKind.ARRAY:
                break
            array = btf.array(type_id)
            count *= array.count
            type_id = array.element
        if not count or not type_id:
            return []
        head = btf.type(type_id)
        kind = self._kind(head)
        composite = head.kind in (BtfKind.STRUCT, BtfKind.UNION)
        size = MANAGED_SIZES.get(kind, 8)
        if not kind:
            if not composite or (expected and expected != btf.size_of(type_id) * count):
                return []
            if depth + 1 >= _DEEPEST:
                raise _UnparsedError
            size, inner = btf.size_of(type_id), self.of_type(type_id, depth + 1)
        elif (expected and expected != size * count) or offset % (4 if kind in _ALIGNED_TO_4 else 8):
            return []
        elif kind == "kptr":
            inner = self._pointer(head)
        else:
            fits = composite and btf.size_of(type_id) == size
            inner = [Field(kind, 0, size, *self._held(holder, at, kind))] if fits else []
        if len(inner) * count > _MOST_FIELDS:
            raise _UnparsedError
        return [
            Field(one.kind, offset + number * size + one.offset, one.size, one.target, one.node)
            for number in range(count if inner else 0)
            for one in inner
        ]

    def _kind(self, head: BtfType) -> str:
        """What a type is by its name; "kptr" for what may be a pointer to an object, "" for neither."""
        name = head.name
        if name in MANAGED_SIZES and name not in self.unknown:
            if name in self.seen:
                raise _UnparsedError
            if name in _ONCE:
                self.seen.add(name)
            return name
        return "" if head.kind in (BtfKind.STRUCT, BtfKind.UNION) else "kptr"

    def _pointer(self, head: BtfType) -> list[Field]:
        """A tagged pointer to an object, nothing for other types."""
        btf = self.btf
        if head.kind is BtfKind.VOLATILE and head.target:
            head = btf.type(head.target)
        if head.kind is not BtfKind.PTR or not head.target:
            return []
        tag = btf.type(head.target)
        if tag.kind is not BtfKind.TYPE_TAG:
            return []
        target = btf.resolve(tag.target) if tag.target else 0
        twice = bool(tag.target) and btf.type(tag.target).kind is BtfKind.TYPE_TAG
        if twice or tag.name not in _KPTR_TAGS or btf.type(target).kind not in (BtfKind.STRUCT, BtfKind.UNION):
            raise _UnparsedError
        return [Field(_KPTR_TAGS[tag.name], 0, 8, (btf, target))]

    def _held(self, holder: int, at: int, kind: str) -> tuple[tuple[object, int] | None, int]:
        """What a list or tree holds, by its tag "contains:STRUCT:MEMBER": (type, offset of the node in it)."""
        if kind not in NODES:
            return None, 0
        btf = self.btf
        tags = [tag for tag, where in btf.tags(holder) if where == at and tag.startswith("contains:")]
        if len(tags) != 1:
            raise _UnparsedError
        name, colon, member = tags[0].removeprefix("contains:").partition(":")
        found = btf.find(name, BtfKind.STRUCT)
        if not colon or not member or found is None:
            raise _UnparsedError
        named = [one for one in btf.members(found) if one.name == member]
        if len(named) != 1 or named[0].bit_offset % 64:
            raise _UnparsedError
        head = btf.type(named[0].type)
        if head.kind is not BtfKind.STRUCT or head.name != NODES[kind]:
            raise _UnparsedError
        return (btf, found), named[0].bit_offset // 8


def _parsed(btf: Btf, type_id: int, unknown: frozenset[str]) -> tuple[Field, ...]:
    try:
        found = _Search(btf, unknown).of_type(type_id, 0)
    except _UnparsedError:
        return ()
    kinds = {one.kind for one in found}
    overlap = any(a.offset + a.size > b.offset for a, b in pairwise(found))
    unlocked = kinds & NODES.keys() and not kinds & {"bpf_spin_lock", "bpf_res_spin_lock"}
    uncounted = kinds >= _NOT_IN_MAPS and "bpf_refcount" not in kinds
    if overlap or unlocked or uncounted:
        return ()
    return tuple(sorted(found, key=lambda one: one.offset))


@lru_cache(maxsize=256)
def managed_fields(btf: Btf, type_id: int) -> tuple[Field, ...]:
    """The managed fields of an object's type, by offset; remembered, for each access of an object asks."""
    return _parsed(btf, type_id, _NOT_IN_OBJECTS)


def value_fields(btf: Btf, type_id: int) -> tuple[Field, ...]:
    """The managed fields of a map's value, by offset."""
    return _parsed(btf, type_id, _NOT_IN_MAPS)
