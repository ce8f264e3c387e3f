"""Writing BTF: C types as values, and the builder that lays them out as a .BTF section.

Equal values get one id, so that a caller describes what it means and never keeps ids. A struct that points to itself
does so by `Pointer(Forward("node"))`: a forward whose name the builder knows as a struct or union becomes that type.

Source: Documentation/bpf/btf.rst of the kernel, include/uapi/linux/btf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from bpflisp.lean import dataclass, field
from bpflisp.spec.btf import HEADER, INT_BOOL, INT_CHAR, INT_SIGNED, MAGIC, VERSION, BtfKind


@dataclass(frozen=True, slots=True)
class Void:
    """No type: the target of `void *`, the result of a function that returns nothing."""


@dataclass(frozen=True, slots=True)
class Int:
    """An integer of `size` bytes; `encoding` is 0 or one of INT_SIGNED, INT_CHAR, INT_BOOL: the kernel takes no two."""

    name: str
    size: int
    encoding: int = 0

    def __post_init__(self) -> None:
        if self.encoding not in (0, INT_SIGNED, INT_CHAR, INT_BOOL):
            raise ValueError(f"integer {self.name!r} has encoding {self.encoding}: at most one of signed, char, bool")


@dataclass(frozen=True, slots=True)
class Pointer:
    """A pointer to `target`."""

    target: CType


@dataclass(frozen=True, slots=True)
class Array:
    """`count` elements of one type."""

    element: CType
    count: int


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a struct or union, at an offset in bits; `bits` is the width of a bit-field, 0 for a whole member."""

    name: str
    type: CType
    bit_offset: int
    bits: int = 0


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct of `size` bytes; of kind union with `union`. Its hash is kept: types that share parts stay cheap."""

    name: str
    size: int
    members: Sequence[Member]
    union: bool = False
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        object.__setattr__(self, "_hash", hash((self.name, self.size, self.members, self.union)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class Forward:
    """A struct or union that is only named."""

    name: str
    union: bool = False


@dataclass(frozen=True, slots=True)
class Enum:
    """Named numbers of `size` bytes; written as ENUM64 where the size is 8."""

    name: str
    size: int
    values: Sequence[tuple[str, int]]
    signed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple((str(name), int(number)) for name, number in self.values))


@dataclass(frozen=True, slots=True)
class Typedef:
    """Another name for a type."""

    name: str
    type: CType


@dataclass(frozen=True, slots=True)
class Qualified:
    """A type under `const`, `volatile` or `restrict`."""

    qualifier: str
    type: CType


@dataclass(frozen=True, slots=True)
class TypeTag:
    """A type under `__attribute__((btf_type_tag(name)))`; what a pointer with the tag points to."""

    name: str
    type: CType


@dataclass(frozen=True, slots=True)
class Float:
    """A floating-point number of `size` bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes, as (name, type) pairs, and returns."""

    result: CType
    params: Sequence[tuple[str, CType]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", tuple((name, kind) for name, kind in self.params))


CType = Void | Int | Pointer | Array | Struct | Forward | Enum | Typedef | Qualified | TypeTag | Float | Signature
"""Any C type as a value."""

_UNSIGNED = ("unsigned char", "unsigned short", "unsigned int", "unsigned long long")
_SIGNED = ("signed char", "short", "int", "long long")

# By the names that linux/types.h gives them, so that the C that bpftool writes of them compiles.
U8, U16, U32, U64 = (Typedef(f"__u{8 << at}", Int(name, 1 << at)) for at, name in enumerate(_UNSIGNED))
S8, S16, S32, S64 = (Typedef(f"__s{8 << at}", Int(name, 1 << at, INT_SIGNED)) for at, name in enumerate(_SIGNED))
INT, CHAR = Int("int", 4, INT_SIGNED), Int("char", 1, INT_SIGNED)

_QUALIFIERS = {"const": BtfKind.CONST, "volatile": BtfKind.VOLATILE, "restrict": BtfKind.RESTRICT}


@dataclass(slots=True)
class _Record:
    """A type as it will be written: header fields, and the words that follow."""

    name: int
    kind: int
    vlen: int = 0
    size_or_type: int = 0
    flag: bool = False
    tail: list[int] = field(default_factory=list)

    def encode(self) -> bytes:
        info = self.vlen | self.kind << 24 | int(self.flag) << 31
        words = [self.name, info, self.size_or_type, *self.tail]
        return struct.pack(f"<{len(words)}I", *(word & 0xFFFFFFFF for word in words))


class BtfBuilder:
    """Collects types and strings, and gives the bytes of a .BTF section. Ids start at 1; 0 is void."""

    def __init__(self) -> None:
        self._strings: dict[str, int] = {"": 0}
        self._string_bytes = bytearray(b"\0")
        self._records: list[_Record] = []
        self._ids: dict[CType, int] = {}
        self._named: dict[tuple[str, bool], int] = {}
        self._forwards: list[tuple[int, Forward]] = []

    def string(self, text: str) -> int:
        """The offset of a string in the string section, added once."""
        if text not in self._strings:
            if "\0" in text:
                raise ValueError(f"a BTF string cannot hold a zero byte: {text!r}")
            self._strings[text] = len(self._string_bytes)
            self._string_bytes += text.encode() + b"\0"
        return self._strings[text]

    def add(self, ctype: CType) -> int:
        """The id of a type, written once however often it is asked for."""
        if isinstance(ctype, Void):
            return 0
        if ctype not in self._ids:
            if isinstance(ctype, Struct):
                self._add_struct(ctype)
            else:
                self._ids[ctype] = self._append(self._record(ctype))
                if isinstance(ctype, Forward):
                    self._forwards.append((self._ids[ctype], ctype))
        return self._ids[ctype]

    def func(self, name: str, signature: Signature, linkage: int) -> int:
        """A function; the id of its FUNC."""
        return self._append(_Record(self.string(name), BtfKind.FUNC, linkage, self.add(signature)))

    def var(self, name: str, type_id: int, linkage: int) -> int:
        """A variable; the id of its VAR."""
        return self._append(_Record(self.string(name), BtfKind.VAR, 0, type_id, tail=[linkage]))

    def datasec(self, name: str, size: int, variables: Sequence[tuple[int, int, int]]) -> int:
        """A data section of `size` bytes with its variables: (id of the VAR or FUNC, offset, size)."""
        tail = [word for variable in variables for word in variable]
        return self._append(_Record(self.string(name), BtfKind.DATASEC, len(variables), size, tail=tail))

    def decl_tag(self, name: str, target: int, component: int = -1) -> int:
        """A tag on a declaration, or on its member or argument number `component`."""
        return self._append(_Record(self.string(name), BtfKind.DECL_TAG, 0, target, tail=[component]))

    def anonymous_struct(self, size: int, members: Sequence[tuple[str, int, int]]) -> int:
        """A struct without a name, never shared: (name, type id, bit offset) a member. Map definitions are these."""
        tail = [word for name, type_id, offset in members for word in (self.string(name), type_id, offset)]
        return self._append(_Record(0, BtfKind.STRUCT, len(members), size, tail=tail))

    def pointer(self, target: int) -> int:
        """A pointer to a type that is known by its id."""
        return self._append(_Record(0, BtfKind.PTR, 0, target))

    def array(self, element: int, count: int) -> int:
        """An array of a type that is known by its id."""
        index = self.add(Int("__ARRAY_SIZE_TYPE__", 4))
        return self._append(_Record(0, BtfKind.ARRAY, tail=[element, index, count]))

    def to_bytes(self) -> bytes:
        """The whole section."""
        self._settle_forwards()
        types = b"".join(record.encode() for record in self._records)
        strings = bytes(self._string_bytes)
        header = HEADER.pack(MAGIC, VERSION, 0, HEADER.size, 0, len(types), len(types), len(strings))
        return header + types + strings

    def _append(self, record: _Record) -> int:
        self._records.append(record)
        return len(self._records)

    def _add_struct(self, ctype: Struct) -> None:
        # The id is taken before the members are written, so that the struct precedes what it holds, as in clang's.
        kind = BtfKind.UNION if ctype.union else BtfKind.STRUCT
        bitfields = any(member.bits for member in ctype.members)
        record = _Record(self.string(ctype.name), kind, len(ctype.members), ctype.size, bitfields)
        self._ids[ctype] = self._append(record)
        if ctype.name:
            self._named.setdefault((ctype.name, ctype.union), self._ids[ctype])
        for member in ctype.members:
            offset = member.bit_offset | (member.bits << 24 if bitfields else 0)
            record.tail += [self.string(member.name), self.add(member.type), offset]

    def _settle_forwards(self) -> None:
        """Points what pointed to a forward at the struct of that name, where there is one.

        The forward itself stays: nothing may be renumbered any more. A pointer is the only thing that can hold one.
        """
        known = {at: self._named[f.name, f.union] for at, f in self._forwards if (f.name, f.union) in self._named}
        through = {BtfKind.PTR, BtfKind.TYPEDEF, BtfKind.TYPE_TAG, *_QUALIFIERS.values()}
        for record in self._records:
            if record.kind in through:
                record.size_or_type = known.get(record.size_or_type, record.size_or_type)

    def _record(self, ctype: CType) -> _Record:
        match ctype:
            case Int():
                return _Record(
                    self.string(ctype.name), BtfKind.INT, 0, ctype.size, tail=[ctype.encoding << 24 | ctype.size * 8]
                )
            case Pointer():
                return _Record(0, BtfKind.PTR, 0, self.add(ctype.target))
            case Array():
                index = self.add(Int("__ARRAY_SIZE_TYPE__", 4))
                return _Record(0, BtfKind.ARRAY, tail=[self.add(ctype.element), index, ctype.count])
            case Forward():
                return _Record(self.string(ctype.name), BtfKind.FWD, flag=ctype.union)
            case Enum():
                return self._enum(ctype)
            case Typedef():
                return _Record(self.string(ctype.name), BtfKind.TYPEDEF, 0, self.add(ctype.type))
            case Qualified():
                return _Record(0, _QUALIFIERS[ctype.qualifier], 0, self.add(ctype.type))
            case TypeTag():
                return _Record(self.string(ctype.name), BtfKind.TYPE_TAG, 0, self.add(ctype.type))
            case Float():
                return _Record(self.string(ctype.name), BtfKind.FLOAT, 0, ctype.size)
            case Signature():
                tail = [word for name, param in ctype.params for word in (self.string(name), self.add(param))]
                return _Record(0, BtfKind.FUNC_PROTO, len(ctype.params), self.add(ctype.result), tail=tail)
            case _:
                raise TypeError(f"not a C type: {ctype!r}")

    def _enum(self, ctype: Enum) -> _Record:
        wide = ctype.size == 8
        tail: list[int] = []
        for name, number in ctype.values:
            tail += [self.string(name), number & 0xFFFFFFFF]
            if wide:
                tail.append(number >> 32 & 0xFFFFFFFF)
        kind = BtfKind.ENUM64 if wide else BtfKind.ENUM
        return _Record(self.string(ctype.name), kind, len(ctype.values), ctype.size, ctype.signed, tail)
