"""What may be read of the socket structures that helpers hand out.

Source: bpf_sock_is_valid_access and its kin in net/core/filter.c; layouts from include/uapi/linux/bpf.h.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from bpflisp.spec.contexts import Field, Struct, struct
from simulator.verifier import regs as r

_STRUCTS = {"sock": "bpf_sock", "sock_common": "bpf_sock", "tcp_sock": "bpf_tcp_sock"}
_NARROW = frozenset(
    {"state", "family", "type", "protocol", "src_port", "rx_queue_mapping", "src_ip4", "src_ip6", "dst_ip4", "dst_ip6"}
)
_FULL_SOCKETS_ONLY = frozenset({"type", "protocol", "mark", "priority"})


def _narrow(field: Field, width: int) -> set[tuple[int, int]]:
    """Reads of 1, 2 and 4 bytes inside each element of `width` bytes."""
    end = field.offset + field.size
    return {
        (at, size)
        for size in (1, 2, 4)
        if size <= width
        for at in range(field.offset, end - size + 1)
        if at % size == 0 and (at - field.offset) % width + size <= width
    }


def _sock_reads(layout: Struct, common: bool) -> set[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    for field in layout.fields:
        if common and field.name in _FULL_SOCKETS_ONLY:
            continue
        if field.name == "dst_port":
            found |= _narrow(field, 2) | {(field.offset, 4)}
        elif field.name in _NARROW:
            found |= _narrow(field, 4)
        else:
            found.add((field.offset, 4))
    return found


_VIEWS: Final = {
    r.PTR_SOCKET: "sock",
    r.PTR_SOCK_COMMON: "sock_common",
    r.PTR_TCP_SOCK: "tcp_sock",
    r.PTR_XDP_SOCK: "xdp_sock",
}


@cache
def reads(kind: int) -> frozenset[tuple[int, int]]:
    """The (offset, size) pairs that may be read through a pointer of that kind, one of the kernel's socket views."""
    name = _VIEWS[kind]
    if name == "xdp_sock":
        return frozenset({(0, 4)})  # queue_id is all that struct bpf_xdp_sock has
    layout = struct(_STRUCTS[name])
    if name in ("sock", "sock_common"):
        return frozenset(_sock_reads(layout, name == "sock_common"))
    return frozenset((field.offset, field.size) for field in layout.fields)
