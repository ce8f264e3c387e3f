"""What the checker knows of a value: a number's width and sign, a pointer's region, a struct's layout.

Every value is a 64-bit word; types are knowledge about it, not a form of it. A `Number` of fewer bits says that the
word is that number, zero- or sign-extended.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from bpflisp.lean import dataclass, field, replace
from bpflisp.spec import btf_build as btf


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number of 8, 16, 32 or 64 bits."""

    bits: int
    signed: bool = False

    @property
    def size(self) -> int:
        """Bytes."""
        return self.bits // 8

    @property
    def name(self) -> str:
        """As it is written."""
        return f"{'i' if self.signed else 'u'}{self.bits}"

    def holds(self, number: int) -> bool:
        """Whether it can hold this number, or the bits of it: both -1 and 255 fit into eight bits of either kind."""
        return -(1 << (self.bits - 1)) <= number < 1 << self.bits


class Region(StrEnum):
    """What a pointer points into."""

    CONTEXT = "the context"
    PACKET = "the packet"
    PACKET_END = "the end of the packet"
    STACK = "the stack"
    MAP_VALUE = "a map value"
    RECORD = "a ring-buffer record"
    MAP = "a map"
    DATA = "read-only data"
    GLOBAL = "a global variable"
    KERNEL = "the kernel's memory"
    OTHER = "memory"


@dataclass(frozen=True, slots=True)
class Pointer:
    """An address. `struct` is the layout of what is there, if known; `size` the bytes known to be there; `align` the
    power of two, at most 8, of which it is known to be a multiple."""

    region: Region
    struct: Struct | None = None
    maybe_null: bool = False
    size: int | None = None
    align: int = 8

    @property
    def name(self) -> str:
        """For messages."""
        return f"a pointer to {self.region}"


@dataclass(frozen=True, slots=True)
class Never:
    """Of a form that does not come back: `return`."""

    name: str = "nothing"


@dataclass(frozen=True, slots=True)
class Unknown:
    """Of a form with an error: whatever is done with it is no further error."""

    name: str = "an erroneous form"


Type = Number | Pointer | Never | Unknown

U8, U16, U32, U64 = (Number(bits) for bits in (8, 16, 32, 64))
I8, I16, I32, I64 = (Number(bits, signed=True) for bits in (8, 16, 32, 64))
NEVER: Final = Never()
UNKNOWN: Final = Unknown()

SCALARS: Final[Mapping[str, Number]] = MappingProxyType(
    {kind.name.upper(): kind for kind in (U8, U16, U32, U64, I8, I16, I32, I64)}
)
"""Upper-case name -> type."""

C_SPELLINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CHAR": "u8", "SHORT": "i16", "INT": "i32", "LONG": "i64", "SIZE_T": "u64", "BOOL": "u8", "BYTE": "u8",
        **{f"{sign}INT{bits}_T": f"{letter}{bits}" for sign, letter in (("U", "u"), ("", "i"))
           for bits in (8, 16, 32, 64)},
        **{f"__U{bits}": f"u{bits}" for bits in (8, 16, 32, 64)},
        **{f"S{bits}": f"i{bits}" for bits in (8, 16, 32, 64)},
    }
)  # fmt: skip
"""How other languages write a type -> how it is written here."""


def join(a: Type, b: Type, a_zero: bool = False, b_zero: bool = False) -> Type:
    """What is known of a value that is either; `*_zero` says that this one is the number 0, which may mean null."""
    if isinstance(a, Never | Unknown) or isinstance(b, Never | Unknown):
        return b if isinstance(a, Never) else a if isinstance(b, Never) else UNKNOWN
    if isinstance(a, Pointer) and isinstance(b, Pointer):
        if replace(a, maybe_null=b.maybe_null) == b:
            return replace(a, maybe_null=a.maybe_null or b.maybe_null)
        region = a.region if a.region is b.region else Region.OTHER
        return Pointer(region, None, a.maybe_null or b.maybe_null, align=min(a.align, b.align))
    if isinstance(a, Pointer):
        return replace(a, maybe_null=True) if b_zero else U64
    if isinstance(b, Pointer):
        return replace(b, maybe_null=True) if a_zero else U64
    if a_zero or b_zero or a == b:
        return b if a_zero else a
    return a if not a.signed and not b.signed and a.bits >= b.bits else b if not a.signed and not b.signed else U64


@dataclass(frozen=True, slots=True)
class ArrayOf:
    """A member that is `count` elements of one type."""

    element: Number | ArrayOf | Struct
    count: int

    @property
    def size(self) -> int:
        """Bytes of all elements."""
        return self.element.size * self.count

    @property
    def dimensions(self) -> int:
        """How many indices name a number or struct of it."""
        return 1 + (self.element.dimensions if isinstance(self.element, ArrayOf) else 0)


@dataclass(frozen=True, slots=True)
class Field:
    """A member: its name in Lisp, type, and offset in bytes."""

    name: str
    type: Number | ArrayOf | Struct
    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class Struct:
    """A struct or union: its name in upper case, its size and alignment in bytes, its members by upper-case name."""

    name: str
    size: int
    align: int
    fields: Mapping[str, Field] = field(default_factory=dict)
    union: bool = False

    @property
    def c_name(self) -> str:
        """The name in C and BTF."""
        return c_name(self.name)


def c_name(name: str) -> str:
    """A Lisp name in C: lower case, hyphens to underscores."""
    return name.lower().replace("-", "_")


def align_of(kind: Number | ArrayOf | Struct) -> int:
    """Natural alignment in bytes."""
    if isinstance(kind, Number):
        return kind.size
    return align_of(kind.element) if isinstance(kind, ArrayOf) else kind.align


def lay_out(name: str, members: list[tuple[str, Number | ArrayOf | Struct]], *, union: bool = False) -> Struct:
    """The layout that C gives these members."""
    offset, size, align = 0, 0, 1
    fields: dict[str, Field] = {}
    for member, kind in members:
        align = max(align, align_of(kind))
        if not union:
            offset = -(-size // align_of(kind)) * align_of(kind)
        fields[member] = Field(member, kind, offset)
        size = max(size, offset + kind.size)
    return Struct(name, -(-size // align) * align, align, fields, union)


def to_btf(kind: Number | ArrayOf | Struct) -> btf.CType:
    """A type as BTF has it."""
    if isinstance(kind, Number):
        index = (8, 16, 32, 64).index(kind.bits)
        return ((btf.S8, btf.S16, btf.S32, btf.S64) if kind.signed else (btf.U8, btf.U16, btf.U32, btf.U64))[index]
    if isinstance(kind, ArrayOf):
        return btf.Array(to_btf(kind.element), kind.count)
    members = [btf.Member(c_name(f.name), to_btf(f.type), f.offset * 8) for f in kind.fields.values()]
    return btf.Struct(kind.c_name, kind.size, members, kind.union)
