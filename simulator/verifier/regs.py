"""What a register, or a spilled stack slot, may hold in a state of the verifier.

Invariant: a `Reg` never changes once it is made, so states share them freely; `is` is the first test of equality.
Whether a scalar has to be known precisely belongs to the checkpoint that holds it (`state.Frame`), not to the value.
Source: enum bpf_reg_type, enum bpf_type_flag and struct bpf_reg_state of include/linux/bpf{,_verifier}.h.
"""

from __future__ import annotations

from functools import cache
from sys import getrefcount
from typing import Any, Final

from simulator.verifier.scalar import Scalar, const
from simulator.verifier.scalar import drop_unused as drop_unused_scalars

# The kinds of values. A type is one of these with flags or-ed to it.
(
    NOT_INIT, SCALAR, PTR_CTX, PTR_MAP, PTR_MAP_VALUE, PTR_MAP_KEY, PTR_STACK, PTR_PACKET_META, PTR_PACKET,
    PTR_PACKET_END, PTR_FLOW_KEYS, PTR_SOCKET, PTR_SOCK_COMMON, PTR_TCP_SOCK, PTR_TP_BUFFER, PTR_XDP_SOCK, PTR_BTF_ID,
    PTR_MEM, PTR_ARENA, PTR_BUF, PTR_FUNC, PTR_DYNPTR,
) = range(22)  # fmt: skip
BASE_MASK: Final = 0xFF

MAYBE_NULL: Final = 1 << 8
MEM_RDONLY: Final = 1 << 9
MEM_RINGBUF: Final = 1 << 10
MEM_USER: Final = 1 << 11
MEM_PERCPU: Final = 1 << 12
OBJ_RELEASE: Final = 1 << 13
UNTRUSTED: Final = 1 << 14
MEM_UNINIT: Final = 1 << 15
DYNPTR_LOCAL: Final = 1 << 16
DYNPTR_RINGBUF: Final = 1 << 17
MEM_FIXED_SIZE: Final = 1 << 18
MEM_ALLOC: Final = 1 << 19
TRUSTED: Final = 1 << 20
MEM_RCU: Final = 1 << 21
NON_OWN_REF: Final = 1 << 22
DYNPTR_SKB: Final = 1 << 23
DYNPTR_XDP: Final = 1 << 24
MEM_ALIGNED: Final = 1 << 25
MEM_WRITE: Final = 1 << 26
DYNPTR_SKB_META: Final = 1 << 27
DYNPTR_FLAGS: Final = DYNPTR_LOCAL | DYNPTR_RINGBUF | DYNPTR_SKB | DYNPTR_XDP | DYNPTR_SKB_META
TRUST: Final = MEM_ALLOC | TRUSTED | NON_OWN_REF
"""Flags of a typed pointer that say that it may be followed; others take that away."""

ADD_CONST64: Final = 1 << 31
ADD_CONST32: Final = 1 << 30
ADD_CONST: Final = ADD_CONST64 | ADD_CONST32
"""One is set in a scalar's id: it is the value of that id plus the constant `off`, added in 64 or in 32 bits."""

# What a packet pointer's range says when it is known to stand at or past the packet's end.
AT_PKT_END, BEYOND_PKT_END = -1, -2

_NAMES: Final = (
    "?", "scalar", "ctx", "map_ptr", "map_value", "map_key", "fp", "pkt_meta", "pkt", "pkt_end", "flow_keys", "sock",
    "sock_common", "tcp_sock", "tp_buffer", "xdp_sock", "ptr_", "mem", "arena", "buf", "func", "dynptr_ptr",
)  # fmt: skip

_PREFIXES: Final = (
    (MEM_RDONLY, "rdonly_"), (MEM_RINGBUF, "ringbuf_"), (MEM_USER, "user_"), (MEM_PERCPU, "percpu_"),
    (MEM_RCU, "rcu_"), (UNTRUSTED, "untrusted_"), (TRUSTED, "trusted_"),
)  # fmt: skip

ZERO: Final = const(0)
"""The variable part of a pointer that has none."""


@cache
def type_name(kind: int) -> str:
    """A type as the kernel's messages name it, such as "map_value_or_null" or "trusted_ptr_"."""
    base = kind & BASE_MASK
    prefix = "".join(text for flag, text in _PREFIXES if kind & flag)
    postfix = ""
    if kind & MAYBE_NULL:
        postfix = "or_null_" if base == PTR_BTF_ID else "_or_null"
    return prefix + _NAMES[base] + postfix


class Reg:
    """A value: its type, fixed offset, variable part, identity, the reference that it holds, and what the type adds.

    `data` by type: stack -> frame number; packet -> bytes known to exist; map, map value, map key -> (map, uid);
    mem -> (size, dynptr id); func -> subprogram; BTF pointer -> (BTF, type id); dynptr -> (kind, first slot);
    iterator slot -> (BTF name, state, depth). For a scalar whose id has ADD_CONST, `off` is the constant.
    """

    __slots__ = ("data", "id", "num", "off", "ref", "type")

    def __init__(self, type: int, off: int, num: Scalar, id: int = 0, ref: int = 0, data: Any = None) -> None:
        self.type = type
        self.off = off
        self.num = num
        self.id = id
        self.ref = ref
        self.data = data

    def but(self, **changes: Any) -> Reg:
        """This value with some fields changed."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return Reg(**(fields | changes))

    def same_but_ids(self, other: Reg) -> bool:
        """Whether everything but the identity and the reference is equal."""
        return self.type == other.type and self.off == other.off and self.num is other.num and self.data == other.data


NOTHING: Final = Reg(NOT_INIT, 0, ZERO)
"""A register that was not written, or may no longer be read."""

_SCALARS: dict[Scalar, Reg] = {}


def scalar_reg(num: Scalar) -> Reg:
    """The scalar value without identity for these bounds; one object for each."""
    reg = _SCALARS.get(num)
    if reg is None:
        reg = _SCALARS[num] = Reg(SCALAR, 0, num)
    return reg


def drop_unused() -> None:
    """Forget the numbers that no state and no constant holds; see `scalar.drop_unused`."""
    for num in list(_SCALARS):
        if getrefcount(_SCALARS[num]) <= 2:  # the dictionary's own, and that of the call
            del _SCALARS[num]
    drop_unused_scalars()


def const_reg(number: int) -> Reg:
    """A known number; any integer, taken modulo 2**64."""
    return scalar_reg(const(number & 0xFFFFFFFFFFFFFFFF))


def is_null(reg: Reg) -> bool:
    """Whether it is the scalar 0."""
    return reg.type == SCALAR and reg.num is ZERO


def is_packet(kind: int) -> bool:
    """A pointer into the packet or its metadata."""
    return kind in (PTR_PACKET, PTR_PACKET_META)


def is_socket(kind: int) -> bool:
    """A non-null pointer to one of the kernel's socket views."""
    return kind in (PTR_SOCKET, PTR_SOCK_COMMON, PTR_TCP_SOCK, PTR_XDP_SOCK)


_SPILLABLE = frozenset(
    {
        PTR_MAP_VALUE, PTR_STACK, PTR_CTX, PTR_PACKET, PTR_PACKET_META, PTR_PACKET_END, PTR_FLOW_KEYS, PTR_MAP,
        PTR_SOCKET, PTR_SOCK_COMMON, PTR_TCP_SOCK, PTR_XDP_SOCK, PTR_BTF_ID, PTR_BUF, PTR_MEM, PTR_FUNC, PTR_MAP_KEY,
        PTR_ARENA,
    }
)  # fmt: skip


def is_spillable(kind: int) -> bool:
    """Whether a pointer of this type keeps its meaning in a stack slot."""
    return kind & BASE_MASK in _SPILLABLE


def number_text(number: int) -> str:
    """A signed number as the log prints it: decimal where it fits 16 bits, else hexadecimal of 64 bits."""
    if -0x8000 <= number <= 0x7FFF:
        return str(number)
    return f"{number & 0xFFFFFFFFFFFFFFFF:#x}"
