"""Contexts: the structure that a program of each type is given, and what it may read and write of it.

What may be accessed was asked of kernel 6.18.44 byte by byte, at every size (`tools/probe_kernel.py`). A context whose
types come from the kernel's BTF (tracing, lsm, struct_ops, ext) is not here: `access_table` says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Final

from bpflisp.lean import dataclass, replace
from bpflisp.spec import kernels
from bpflisp.spec.tabledata import numbers, prefer, table

_TRUSTED = "trusted_ptr_"


@dataclass(frozen=True, slots=True)
class Access:
    """What a permitted access is: `kind` of the register after a full load, "scalar" after a store.

    `kind` is the verifier's word: scalar, pkt, pkt_end, pkt_meta, flow_keys, sock, sock_or_null, sock_common_or_null,
    tp_buffer, or trusted_ptr with `btf` the structure's name.
    """

    kind: str
    btf: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """A structure's member: offset and size in bytes; of a bit-field, which bits of the bytes at `offset`."""

    name: str
    offset: int
    size: int
    ctype: str
    bit_offset: int = 0
    bits: int = 0

    @property
    def element_size(self) -> int:
        """Bytes of one element of an array, else the size."""
        count = self.ctype.rpartition("[")[2].rstrip("]")
        return self.size // int(count) if self.ctype.endswith("]") and int(count) else self.size


@dataclass(frozen=True, slots=True)
class Struct:
    """A structure of the kernel's user API: its size in bytes and its members, unnamed unions taken apart."""

    name: str
    size: int
    fields: Sequence[Field]

    def field(self, name: str) -> Field | None:
        """The member of this name."""
        return next((field for field in self.fields if field.name == name), None)


@dataclass(frozen=True, slots=True)
class AccessTable:
    """What of one context may be read and written: (offset, size) -> access.

    `spans` are the bytes, from and below, of a context without a structure, where any aligned access is a scalar;
    `writable` says whether stores may go there.
    """

    struct: str
    size: int
    reads: Mapping[tuple[int, int], Access]
    writes: frozenset[tuple[int, int]]
    spans: Sequence[tuple[int, int]] = ()
    writable: bool = False

    def access(self, off: int, size: int, write: bool) -> Access | None:
        """What this access is; None where the kernel refuses it."""
        if self.spans:
            inside = off % size == 0 and any(low <= off < high for low, high in self.spans)
            return _SCALAR if inside and (self.writable or not write) else None
        if write:
            return _SCALAR if (off, size) in self.writes else None
        return self.reads.get((off, size))


_SCALAR = Access("scalar")


def _access(kind: str) -> Access:
    return Access("trusted_ptr", kind.removeprefix(_TRUSTED)) if kind.startswith(_TRUSTED) else Access(kind)


def _places(sizes: Mapping[str, str]) -> list[tuple[int, int]]:
    return [(off, int(size)) for size, offsets in sizes.items() for off in sorted(numbers(offsets))]


@cache
def _table(index: int, struct: str, size: int) -> AccessTable:
    row = table("contexts")["tables"][index]
    if "spans" in row:
        spans = tuple((low, high) for low, high in row["spans"])
        return AccessTable(struct, size, MappingProxyType({}), frozenset(), spans, row["writable"])
    reads = {place: _access(kind) for kind, sizes in row["reads"].items() for place in _places(sizes)}
    return AccessTable(struct, size, MappingProxyType(reads), frozenset(_places(row["writes"])))


FIELD_MIN_KERNEL: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("__sk_buff", "hwtstamp"): "5.16",
        ("__sk_buff", "tstamp_type"): "5.18",
        ("bpf_sock_ops", "skb_hwtstamp"): "6.2",
        ("sk_reuseport_md", "sk"): "5.14",
        ("sk_reuseport_md", "migrating_sk"): "5.14",
        ("bpf_sk_lookup", "ingress_ifindex"): "5.17",
    }
)
"""(structure, field) -> the first release that has it, for what came after 5.10. Which fields: by the BTF of 5.10.262,
6.1.192 and 6.12.117, where the same are missing; the releases from the commits that added them."""


@cache
def access_table(prog_type: str, attach_type: str = "", kernel: str = "") -> AccessTable | None:
    """The table of a program type; None where its context is typed by the kernel's BTF, or the type is unknown.

    With a `kernel`, the fields that it lacks are left out.
    """
    rows = [row for row in table("contexts")["kinds"] if row[0] == prog_type]
    wanted = prefer(prog_type, attach_type)
    chosen = next((row for row in rows if row[1] == wanted), rows[0] if rows else None)
    found = _table(chosen[4], chosen[2], chosen[3]) if chosen else None
    return found if found is None or not kernel else _older(found, kernels.profile(kernel))


def _older(found: AccessTable, profile: kernels.Profile) -> AccessTable:
    """The table without what lies in fields that this kernel does not have."""
    named = (name for (of, name), least in FIELD_MIN_KERNEL.items() if of == found.struct and not profile.since(least))
    missing = [field for name in named if (field := struct(found.struct).field(name))]
    hidden = {byte for field in missing for byte in range(field.offset, field.offset + field.size)}
    if not hidden:
        return found
    reads = {place: what for place, what in found.reads.items() if place[0] not in hidden}
    writes = frozenset(place for place in found.writes if place[0] not in hidden)
    return replace(found, reads=MappingProxyType(reads), writes=writes)


def access(prog_type: str, attach_type: str, off: int, size: int, write: bool) -> Access | None:
    """What a load or store of `size` bytes at `off` of the context is; None where the kernel refuses it.

    The kernel's words are then `invalid bpf_context access off=N size=N`. Raises KeyError for a program type without
    a table: ask `access_table` first.
    """
    found = access_table(prog_type, attach_type)
    if found is None:
        raise KeyError(f"the context of program type {prog_type!r} is typed by the kernel's BTF")
    return found.access(off, size, write)


def context_struct(prog_type: str) -> Struct | None:
    """The structure of a program type's context; None where it has none, or one of the kernel's own BTF."""
    found = access_table(prog_type)
    if found is None or not found.struct:
        return None
    return pt_regs("x86_64") if found.struct == "pt_regs" else struct(found.struct)


@cache
def struct(name: str) -> Struct:
    """A structure of the user API by its C name: `xdp_md`, `bpf_fib_lookup`, `bpf_timer`. KeyError for any other."""
    size, fields = table("structs")[name]
    return Struct(name, size, tuple(Field(*field) for field in fields))


def struct_names() -> Sequence[str]:
    """The structures that `struct` knows."""
    return tuple(table("structs"))


@cache
def pt_regs(arch: str) -> Struct:
    """The registers of a kprobe's context: `x86_64` or `arm64`; KeyError for any other architecture."""
    row = table("pt_regs")[arch]
    fields = tuple(Field(name, off, size, f"__u{size * 8}") for name, off, size in row["fields"])
    return Struct("pt_regs", row["size"], fields)


@cache
def pt_regs_parm(arch: str) -> Mapping[str, str]:
    """Which register carries what: "1" to "6" (the parameters), "rc", "ret", "fp", "sp", "ip" -> a field's name."""
    return MappingProxyType(dict(table("pt_regs")[arch]["parm"]))
