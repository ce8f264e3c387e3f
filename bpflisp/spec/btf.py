"""BTF as a value: types by id, their names, sizes and parts, read from the bytes of a .BTF section.

A vmlinux has 130,000 types, so nothing is made of them until it is asked for: opening walks the type section once for
the offsets, the first lookup by name indexes the names once. Invariant: whatever the bytes are, every question is
answered in time and memory bounded by their length, or raises BtfError.

Source: Documentation/bpf/btf.rst of the kernel, include/uapi/linux/btf.h. Little-endian only, as every object we take.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from enum import IntEnum
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Final

from bpflisp.lean import dataclass

MAGIC: Final = 0xEB9F
VERSION: Final = 1
HEADER: Final = struct.Struct("<HBBIIIII")
"""Magic, version, flags, header length; offset and length of the types, then of the strings, behind the header."""

LONGEST_CHAIN: Final = 64
"""How many modifiers, typedefs, pointers or arrays one type may stack before we call it circular."""

LONGEST_NAME: Final = 1024
"""Bytes of a type's name that are read: the kernel takes half of it, and overlapping strings shall not cost more."""

LARGEST_SIZE: Final = 0xFFFFFFFF
"""The largest size of a type, in bytes, that the kernel takes."""


class BtfKind(IntEnum):
    """What a type is, as its header says."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


KINDS: Final = tuple(BtfKind)
MODIFIERS: Final = frozenset({BtfKind.VOLATILE, BtfKind.CONST, BtfKind.RESTRICT, BtfKind.TYPE_TAG})
COMPOSITES: Final = frozenset({BtfKind.STRUCT, BtfKind.UNION})
ENUMS: Final = frozenset({BtfKind.ENUM, BtfKind.ENUM64})

_SIZED = frozenset({BtfKind.INT, BtfKind.FLOAT, BtfKind.DATASEC}) | COMPOSITES | ENUMS
_NO_TARGET = _SIZED | {BtfKind.ARRAY, BtfKind.FWD, BtfKind.VOID}

# Words behind a type's three header words: once, and for each of its vlen parts.
_TAIL_WORDS = {BtfKind.INT: 1, BtfKind.ARRAY: 3, BtfKind.VAR: 1, BtfKind.DECL_TAG: 1}
_PART_WORDS = {
    BtfKind.STRUCT: 3, BtfKind.UNION: 3, BtfKind.ENUM: 2, BtfKind.FUNC_PROTO: 2, BtfKind.DATASEC: 3, BtfKind.ENUM64: 3,
}  # fmt: skip
_TAIL_OF_KIND = [3 + _TAIL_WORDS.get(kind, 0) for kind in KINDS]
_PART_OF_KIND = [_PART_WORDS.get(kind, 0) for kind in KINDS]

INT_SIGNED, INT_CHAR, INT_BOOL = 1, 2, 4
"""The encoding of an integer."""

LINKAGE_STATIC, LINKAGE_GLOBAL, LINKAGE_EXTERN = range(3)
"""The linkage of a function; of a variable: static, global and allocated, extern."""


class BtfError(ValueError):
    """The bytes are no BTF, or say what cannot be. The message has what and where."""


@dataclass(frozen=True, slots=True)
class BtfType:
    """The header of one type. `size` in bytes for kinds that have one; `target` the id it refers to, else 0.

    `vlen` counts its parts (for a FUNC it is the linkage); `flag` means: bit-fields in a struct, union for a forward,
    signed for an enum.
    """

    id: int
    kind: BtfKind
    name: str
    size: int
    target: int
    vlen: int
    flag: bool


@dataclass(frozen=True, slots=True)
class BtfMember:
    """A member of a struct or union, at an offset in bits; `bits` is a bit-field's width, 0 for a whole member."""

    name: str
    type: int
    bit_offset: int
    bits: int


@dataclass(frozen=True, slots=True)
class BtfParam:
    """A parameter of a function prototype; type 0 at the end stands for further arguments (...)."""

    name: str
    type: int


@dataclass(frozen=True, slots=True)
class BtfArray:
    """What an array is of, and how many."""

    element: int
    index: int
    count: int


@dataclass(frozen=True, slots=True)
class BtfInt:
    """How an integer is stored: an or of INT_SIGNED, INT_CHAR, INT_BOOL; the bits that it uses and where they start."""

    encoding: int
    bit_offset: int
    bits: int

    @property
    def signed(self) -> bool:
        """Whether it is a signed integer."""
        return bool(self.encoding & INT_SIGNED)


@dataclass(frozen=True, slots=True)
class BtfVariable:
    """A variable (or extern function) of a data section: the id of its VAR, and where it lies, in bytes."""

    type: int
    offset: int
    size: int


def _words(data: bytes) -> array[int]:
    words = array("I", data)
    if sys.byteorder != "little":
        words.byteswap()
    return words


class Btf:
    """The types of one .BTF section; with `base`, its ids and strings go on where those of the base end.

    Raises BtfError where the bytes are no BTF. Two are equal when their bytes and bases are.
    """

    def __init__(self, data: bytes, base: Btf | None = None) -> None:
        self.data: Final = bytes(data)
        self.base: Final = base
        self._first_id = len(base) if base else 1
        self._first_string: int = base._end_of_strings if base else 0
        types, self._strings = self._sections()
        self._end_of_strings: int = self._first_string + len(self._strings)
        self._type_words = _words(types)
        self._offsets = self._walk(self._type_words)
        self._types: dict[int, BtfType] = {}
        self._members: dict[int, tuple[BtfMember, ...]] = {}
        self._names: dict[bytes, list[int]] | None = None
        self._by_kind: dict[BtfKind, list[int]] | None = None
        self._tags: dict[int, list[int]] | None = None
        self._flavours: dict[bytes, list[int]] | None = None

    # -- opening ------------------------------------------------------------------------------------------------------

    def _sections(self) -> tuple[bytes, bytes]:
        """The bytes of the type section and of the string section."""
        data = self.data
        if len(data) < HEADER.size:
            raise BtfError(f"BTF of {len(data)} bytes: shorter than its header of {HEADER.size}")
        magic, version, _flags, header, type_at, type_size, string_at, string_size = HEADER.unpack_from(data)
        if magic != MAGIC:
            swapped = magic == int.from_bytes(MAGIC.to_bytes(2, "big"), "little")
            raise BtfError("BTF is big-endian" if swapped else f"BTF magic is 0x{magic:04x}, not 0x{MAGIC:04x}")
        if version != VERSION:
            raise BtfError(f"BTF version is {version}, not {VERSION}")
        if header < HEADER.size:
            raise BtfError(f"BTF header says it has {header} bytes: fewer than {HEADER.size}")
        for what, at, size in (("type", type_at, type_size), ("string", string_at, string_size)):
            if header + at + size > len(data):
                raise BtfError(
                    f"BTF {what} section [{header + at}, +{size}) ends after the {len(data)} bytes there are"
                )
        if type_at % 4 or type_size % 4:
            raise BtfError(f"BTF type section [{type_at}, +{type_size}) is not in units of 4 bytes")
        strings = data[header + string_at : header + string_at + string_size]
        if (strings or not self.base) and (not strings.endswith(b"\0") or (not self.base and strings[0])):
            raise BtfError("BTF string section does not start and end with a zero byte")
        return data[header + type_at : header + type_at + type_size], strings

    def _walk(self, words: array[int]) -> array[int]:
        """The index of each type's first word."""
        offsets = array("I")
        add, end, at = offsets.append, len(words), 0
        tail_of_kind, part_of_kind, kinds = _TAIL_OF_KIND, _PART_OF_KIND, len(KINDS)
        while at + 2 < end:
            info = words[at + 1]
            kind = info >> 24 & 0x1F
            if not 0 < kind < kinds:
                raise BtfError(f"BTF type {self._first_id + len(offsets)} has kind {kind}, which there is not")
            add(at)
            at += tail_of_kind[kind] + part_of_kind[kind] * (info & 0xFFFF)
        if at != end:
            raise BtfError(f"BTF type {self._first_id + len(offsets) - bool(at > end)} ends after its section")
        return offsets

    # -- identity -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """One more than the largest id: void counts."""
        return self._first_id + len(self._offsets)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Btf) and self.data == other.data and self.base == other.base

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        return f"<Btf of {len(self)} types>"

    # -- types --------------------------------------------------------------------------------------------------------

    def ids(self) -> range:
        """The ids that this section defines itself, without those of its base and without void."""
        return range(self._first_id, len(self))

    def type(self, type_id: int) -> BtfType:
        """The type with an id. Raises BtfError where there is none."""
        if type_id < self._first_id and self.base:
            return self.base.type(type_id)
        found = self._types.get(type_id)
        if found is None:
            found = self._types[type_id] = self._read(type_id)
        return found

    def _at(self, type_id: int) -> int:
        if not self._first_id <= type_id < len(self):
            raise BtfError(f"BTF has no type {type_id}: its ids end at {len(self) - 1}")
        return self._offsets[type_id - self._first_id]

    def _read(self, type_id: int) -> BtfType:
        if type_id == 0:
            return BtfType(0, BtfKind.VOID, "void", 0, 0, 0, False)
        at = self._at(type_id)
        name, info, size_or_type = self._type_words[at : at + 3]
        kind = KINDS[info >> 24 & 0x1F]
        size = size_or_type if kind in _SIZED else 0
        target = 0 if kind in _NO_TARGET else size_or_type
        return BtfType(type_id, kind, self._name(name), size, target, info & 0xFFFF, bool(info >> 31))

    def string(self, offset: int, limit: int | None = None) -> str:
        """The string at an offset of the string section, at most `limit` bytes of it. Raises BtfError for no offset."""
        if offset < self._first_string and self.base:
            return self.base.string(offset, limit)
        at = offset - self._first_string
        if not 0 <= at < len(self._strings):
            raise BtfError(f"BTF string offset {offset} is outside of the {self._end_of_strings} bytes of strings")
        end = self._strings.index(0, at)
        return self._strings[at : end if limit is None else min(end, at + limit)].decode(errors="replace")

    def _name(self, offset: int) -> str:
        return self.string(offset, LONGEST_NAME)

    def position(self, type_id: int) -> int:
        """Where in `data` the header of a type of this section starts: its parts follow twelve bytes on."""
        header, type_at = HEADER.unpack_from(self.data)[3:5]
        return int(header + type_at + 4 * self._at(type_id))

    # -- parts --------------------------------------------------------------------------------------------------------

    def _parts(self, type_id: int, kinds: Iterable[BtfKind], width: int) -> Iterator[array[int]]:
        """The words of each part of a type, `width` words at a time."""
        owner, start = self._tail(type_id, kinds)
        words = owner._type_words
        for at in range(start, start + width * self.type(type_id).vlen, width):
            yield words[at : at + width]

    def _tail(self, type_id: int, kinds: Iterable[BtfKind]) -> tuple[Btf, int]:
        """Whose words they are, and the index of the first word behind the header."""
        found = self.type(type_id)
        if found.kind not in kinds:
            wanted = " or ".join(kind.name for kind in kinds)
            raise BtfError(f"BTF type {type_id} is a {found.kind.name}, not a {wanted}")
        if type_id < self._first_id and self.base:
            return self.base._tail(type_id, kinds)
        return self, self._at(type_id) + 3

    def members(self, type_id: int) -> tuple[BtfMember, ...]:
        """The members of a struct or union, in order."""
        found = self._members.get(type_id)
        if found is None:
            found = self._members[type_id] = self._read_members(type_id)
        return found

    def _read_members(self, type_id: int) -> tuple[BtfMember, ...]:
        bitfields = self.type(type_id).flag
        offset_mask = 0xFFFFFF if bitfields else 0xFFFFFFFF
        return tuple(
            BtfMember(self._name(name), kind, offset & offset_mask, offset >> 24 if bitfields else 0)
            for name, kind, offset in self._parts(type_id, (BtfKind.STRUCT, BtfKind.UNION), 3)
        )

    def params(self, type_id: int) -> tuple[BtfParam, ...]:
        """The parameters of a FUNC_PROTO, or of the one that a FUNC has."""
        proto = self.func_proto(type_id)
        return tuple(BtfParam(self._name(name), kind) for name, kind in self._parts(proto, (BtfKind.FUNC_PROTO,), 2))

    def func_proto(self, type_id: int) -> int:
        """The FUNC_PROTO of a FUNC; one that is a FUNC_PROTO already stays."""
        found = self.type(type_id)
        return found.target if found.kind is BtfKind.FUNC else type_id

    def result(self, type_id: int) -> int:
        """The id of the type that a FUNC or FUNC_PROTO returns."""
        return self.type(self.func_proto(type_id)).target

    def enumerators(self, type_id: int) -> tuple[tuple[str, int], ...]:
        """The names and values of an enum; signed where the enum is."""
        found = self.type(type_id)
        wide = found.kind is BtfKind.ENUM64
        half = 1 << (63 if wide else 31)
        pairs = []
        for part in self._parts(type_id, (BtfKind.ENUM, BtfKind.ENUM64), 3 if wide else 2):
            number = part[1] | (part[2] << 32 if wide else 0)
            pairs.append((self._name(part[0]), number - 2 * half if found.flag and number >= half else number))
        return tuple(pairs)

    def array(self, type_id: int) -> BtfArray:
        """What an array is of."""
        owner, at = self._tail(type_id, (BtfKind.ARRAY,))
        return BtfArray(*owner._type_words[at : at + 3])

    def integer(self, type_id: int) -> BtfInt:
        """How an integer is stored."""
        owner, at = self._tail(type_id, (BtfKind.INT,))
        word = owner._type_words[at]
        return BtfInt(word >> 24 & 0xF, word >> 16 & 0xFF, word & 0xFF)

    def variables(self, type_id: int) -> tuple[BtfVariable, ...]:
        """The variables of a data section, in order."""
        return tuple(BtfVariable(*part) for part in self._parts(type_id, (BtfKind.DATASEC,), 3))

    def linkage(self, type_id: int) -> int:
        """LINKAGE_STATIC, LINKAGE_GLOBAL or LINKAGE_EXTERN of a FUNC or VAR."""
        found = self.type(type_id)
        if found.kind is BtfKind.FUNC:
            return found.vlen
        owner, at = self._tail(type_id, (BtfKind.VAR,))
        return owner._type_words[at]

    def component(self, type_id: int) -> int:
        """Which member or parameter a DECL_TAG is on; -1 for the whole declaration."""
        owner, at = self._tail(type_id, (BtfKind.DECL_TAG,))
        index = owner._type_words[at]
        return index - (1 << 32) if index >> 31 else index

    def tags(self, type_id: int) -> tuple[tuple[str, int], ...]:
        """The declaration tags on a type: (name, component), in the order of their ids."""
        tagged = self._tags_by_target().get(type_id, ())
        return tuple((self.type(tag).name, self.component(tag)) for tag in tagged)

    def _tags_by_target(self) -> dict[int, list[int]]:
        if self._tags is None:
            self._tags = {}
            for tag in self.of_kind(BtfKind.DECL_TAG):
                self._tags.setdefault(self.type(tag).target, []).append(tag)
        return self._tags

    # -- following references -----------------------------------------------------------------------------------------

    def skip_modifiers(self, type_id: int) -> int:
        """The id below const, volatile, restrict and type tags."""
        return self._skip(type_id, MODIFIERS)

    def resolve(self, type_id: int) -> int:
        """The id below modifiers and typedefs."""
        return self._skip(type_id, MODIFIERS | {BtfKind.TYPEDEF})

    def _skip(self, type_id: int, kinds: frozenset[BtfKind]) -> int:
        for _ in range(LONGEST_CHAIN):
            found = self.type(type_id)
            if found.kind not in kinds:
                return type_id
            type_id = found.target
        raise BtfError(f"BTF type {type_id}: more than {LONGEST_CHAIN} modifiers, or circular ones")

    def pointee(self, type_id: int) -> int | None:
        """The id that a pointer (below modifiers and typedefs) points to; None where it is no pointer."""
        found = self.type(self.resolve(type_id))
        return found.target if found.kind is BtfKind.PTR else None

    def size_of(self, type_id: int) -> int:
        """Bytes of a type. Raises BtfError for what has no size: void, functions, forwards."""
        count = 1
        for _ in range(LONGEST_CHAIN):
            found = self.type(self.resolve(type_id))
            if found.kind in _SIZED:
                size = found.size
            elif found.kind is BtfKind.PTR:
                size = 8
            elif found.kind is BtfKind.ARRAY:
                array_of = self.array(found.id)
                count, type_id = count * array_of.count, array_of.element
                continue
            elif found.kind is BtfKind.VAR:
                type_id = found.target
                continue
            else:
                raise BtfError(f"BTF type {found.id} ({found.kind.name} {found.name!r}) has no size")
            if count * size > LARGEST_SIZE:
                raise BtfError(f"BTF type {type_id} has {count * size} bytes: too many")
            return count * size
        raise BtfError(f"BTF type {type_id}: more than {LONGEST_CHAIN} arrays in each other, or circular ones")

    # -- finding ------------------------------------------------------------------------------------------------------

    def find(self, name: str, *kinds: BtfKind) -> int | None:
        """The first id of that name, of one of the kinds where any are given; None where there is none.

        The base is asked first: its ids are the smaller ones.
        """
        return next(iter(self.find_all(name, *kinds)), None)

    def find_all(self, name: str, *kinds: BtfKind) -> Iterator[int]:
        """Every id of that name, in order."""
        if self.base:
            yield from self.base.find_all(name, *kinds)
        for type_id in self._name_index().get(name.encode(), ()):
            if not kinds or self.type(type_id).kind in kinds:
                yield type_id

    def of_essential_name(self, name: str) -> Iterator[int]:
        """Every id whose name is the given one, or is it with a flavour ("name___old"), in no order to rely on."""
        if self.base:
            yield from self.base.of_essential_name(name)
        yield from self._name_index().get(name.encode(), ())
        yield from self._flavour_index().get(name.encode(), ())

    def _flavour_index(self) -> dict[bytes, list[int]]:
        """Name without flavour -> the ids whose names have one, made at the first call."""
        if self._flavours is None:
            self._flavours = {}
            for name, ids in self._name_index().items():
                if b"___" in name:
                    self._flavours.setdefault(name[: name.rindex(b"___")], []).extend(ids)
        return self._flavours

    def of_kind(self, *kinds: BtfKind) -> Iterator[int]:
        """Every id of the given kinds that this section defines itself, kind by kind, in order."""
        if self._by_kind is None:
            self._by_kind = {kind: [] for kind in KINDS}
            lists = list(self._by_kind.values())
            words = self._type_words
            for type_id, at in enumerate(self._offsets, self._first_id):
                lists[words[at + 1] >> 24 & 0x1F].append(type_id)
        for kind in kinds:
            yield from self._by_kind[kind]

    def names(self) -> Iterable[str]:
        """Every name that a type of this section has."""
        return (name.decode(errors="replace") for name in self._name_index())

    def _name_index(self) -> dict[bytes, list[int]]:
        """Name -> ids, made at the first call. Names of the base's strings are read there."""
        if self._names is None:
            index: dict[bytes, list[int]] = {}
            at_offset = self._strings_by_offset()
            words = self._type_words
            for type_id, at in enumerate(self._offsets, self._first_id):
                offset = words[at]
                if offset:
                    name = at_offset.get(offset)
                    if name is None:
                        name = self._name(offset).encode()
                    if name in index:
                        index[name].append(type_id)
                    else:
                        index[name] = [type_id]
            self._names = index
        return self._names

    def _strings_by_offset(self) -> dict[int, bytes]:
        strings = self._strings.split(b"\0")
        starts = accumulate((len(text) + 1 for text in strings), initial=self._first_string)
        return dict(zip(starts, strings, strict=False))


def read_btf(source: str | Path | bytes | Btf, base: Btf | None = None) -> Btf:
    """BTF from a path, from bytes, or as it is. Raises BtfError, and OSError where the file cannot be read."""
    if isinstance(source, Btf):
        return source
    return _opened(source if isinstance(source, bytes) else Path(source).read_bytes(), base)


@lru_cache(maxsize=8)
def _opened(data: bytes, base: Btf | None) -> Btf:
    """A kernel's BTF has some megabytes, and a test run gives the same one to every program."""
    return Btf(data, base)
