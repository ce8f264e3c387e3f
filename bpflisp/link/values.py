"""What the linker takes: functions, maps and globals as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from bpflisp.lean import dataclass, field
from bpflisp.spec.btf_build import CType, Signature
from bpflisp.spec.insn import Insn


class RelocKind(StrEnum):
    """What a relocated instruction refers to."""

    MAP = "map"  # a 64-bit load of the map `symbol`
    DATA = "data"  # a 64-bit load of the address of the global `symbol`, plus `addend` bytes
    CALL = "call"  # a call of the function `symbol`
    FUNC = "func"  # a 64-bit load of the address of the function `symbol`, for a callback
    KFUNC = "kfunc"  # a call of the kernel's function `symbol`, declared in `externs`


@dataclass(frozen=True, slots=True)
class Relocation:
    """The instruction at `slot` of its function stands for `symbol`; the linker sets the fields that say so."""

    slot: int
    kind: RelocKind
    symbol: str
    addend: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """From `slot` on, the code of a source line. `text` is the whole line, as the kernel's log shall quote it."""

    slot: int
    file: str
    line: int
    column: int
    text: str


@dataclass(frozen=True, slots=True)
class CoreAccess:
    """A CO-RE record: the immediate or offset at `slot` comes from `type` by `access`, as in clang's access strings.

    `kind` is the number of enum bpf_core_relo_kind: 0 for a field's byte offset.
    """

    slot: int
    kind: int
    type: CType
    access: str


@dataclass(frozen=True, slots=True)
class LinkFunction:
    """A program or a subprogram. Insns in the form of `insn.decode`, or without the None after a 64-bit load.

    `section` is ".text" for a subprogram; several programs may share a section, in the order given. `is_global` gives
    it BTF linkage global: the kernel then verifies a subprogram on its own, by its signature.
    """

    name: str
    section: str
    insns: Sequence[Insn | None]
    signature: Signature
    relocations: Sequence[Relocation] = ()
    lines: Sequence[Line] = ()
    core: Sequence[CoreAccess] = ()
    is_global: bool = True


@dataclass(frozen=True, slots=True)
class LinkMap:
    """A BTF-defined map; `type` by the kernel's name in lower case. Sizes in bytes; a type given sets its own.

    `pinning` is 0 or 1 (by name); `slots` the initial entries of a prog array or array of maps: index -> symbol;
    `inner` the template of a map in map, or of its values when they are named in `slots`.
    """

    name: str
    type: str
    key: CType | None = None
    value: CType | None = None
    key_size: int = 0
    value_size: int = 0
    max_entries: int = 0
    flags: int = 0
    extra: int = 0
    pinning: int = 0
    inner: LinkMap | None = None
    slots: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LinkGlobal:
    """A global variable in `section`: ".data", ".rodata" (or with a suffix), or ".bss" when `data` is all zero."""

    name: str
    section: str
    type: CType
    data: bytes
    align: int = 8
    is_global: bool = True


@dataclass(frozen=True, slots=True)
class LinkObject:
    """All that one object file holds.

    `externs` are the kernel functions that are called, by name; `types` those that BTF shall have though nothing of the
    above names them (structs of the source). `license` "" leaves the section out.
    """

    functions: Sequence[LinkFunction]
    maps: Sequence[LinkMap] = ()
    globals: Sequence[LinkGlobal] = ()
    externs: Mapping[str, Signature] = field(default_factory=dict)
    types: Sequence[CType] = ()
    license: str = "GPL"


class LinkError(ValueError):
    """The values do not make an object: an unknown symbol, a name used twice. Says which function and slot."""
