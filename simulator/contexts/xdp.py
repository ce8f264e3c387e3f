"""XDP: struct xdp_md over a packet with room in front of it."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

from simulator.contexts.base import NO_FIELDS
from simulator.machine import Machine
from simulator.memory import CONTEXT_BASE, PACKET_BASE, PACKET_ROOM
from simulator.packet import MIN_PACKET, Input, InputRefused

_MD = struct.Struct("<6I")
_POINTERS = struct.Struct("<3I")

HEADROOM = 256
"""Bytes before the packet that metadata and a longer head may take."""

FRAME_HEADER = 40
"""Bytes of the headroom that the kernel keeps for its own struct xdp_frame."""

FRAME_ROOM = 4096 - 320
"""Bytes of a page that headroom, metadata and packet share: what the kernel's skb_shared_info leaves of it."""

_REGISTERS = (CONTEXT_BASE,)
_MAX_META = HEADROOM - FRAME_HEADER
_FIELDS = frozenset({"data", "data_end", "data_meta", "ingress_ifindex", "rx_queue_index", "egress_ifindex"})


class XdpModel:
    """The context of XDP programs: interface 1, queue 0, as the kernel's test run has it."""

    size = _MD.size
    known: Mapping[tuple[int, int], tuple[int, int]] = MappingProxyType(
        {
            (CONTEXT_BASE, 4): (PACKET_BASE, PACKET_BASE),
            (CONTEXT_BASE + 4, 4): (PACKET_BASE, PACKET_BASE + PACKET_ROOM),
            (CONTEXT_BASE + 8, 4): (PACKET_BASE, PACKET_BASE),
        }
    )

    def enter_packet(self, machine: Machine, packet: bytes) -> Sequence[int]:
        """Puts a packet without metadata in place."""
        size = len(packet)
        if not MIN_PACKET <= size <= FRAME_ROOM - HEADROOM:
            return self.enter(machine, Input(packet, {}))
        machine.set_packet(packet)
        machine.headroom, machine.hidden = HEADROOM, b""
        machine.set_context(plain_context(size))
        return _REGISTERS

    def enter(self, machine: Machine, given: Input) -> Sequence[int]:
        """Puts packet and xdp_md in place."""
        packet = given.packet
        assert packet is not None
        meta, ifindex, queue = 0, 1, 0
        if given.context:
            meta, ifindex, queue = _checked(given.context, len(packet))
        if len(packet) - meta < MIN_PACKET:
            raise InputRefused(errno.EINVAL, f"an xdp run takes {MIN_PACKET} bytes after {meta} bytes of metadata")
        if len(packet) > FRAME_ROOM - HEADROOM + meta:
            raise InputRefused(errno.EINVAL, f"an xdp packet of {len(packet)} bytes: fragments are not modelled")
        machine.set_packet(packet, meta)
        machine.set_context(_MD.pack(PACKET_BASE + meta, PACKET_BASE + len(packet), PACKET_BASE, ifindex, queue, 0))
        machine.headroom, machine.hidden = HEADROOM - meta, b""
        return _REGISTERS

    def leave(self, machine: Machine) -> tuple[bytes | None, Mapping[str, int]]:
        """The packet, its metadata before it, as the kernel's test run gives them."""
        assert machine.packet is not None
        return bytes(machine.packet.view), NO_FIELDS

    def packet_changed(self, machine: Machine) -> None:
        """New pointers in xdp_md."""
        assert machine.packet is not None
        assert machine.context is not None
        start = machine.packet.base
        _POINTERS.pack_into(machine.context.view, 0, start + machine.meta, machine.packet.end, start)


@cache
def plain_context(size: int) -> bytes:
    """The context of a packet of this size without metadata, on interface 1, queue 0."""
    return _MD.pack(PACKET_BASE, PACKET_BASE + size, PACKET_BASE, 1, 0, 0)


def _checked(context: Mapping[str, int], size: int) -> tuple[int, int, int]:
    """Metadata bytes, interface and queue of a given context, by the rules of the kernel's test run."""
    for name in context:
        if name not in _FIELDS:
            raise InputRefused(errno.EINVAL, f"xdp_md has no field {name!r}; it has {', '.join(sorted(_FIELDS))}")
    meta, end = context.get("data", 0), context.get("data_end", size)
    if context.get("data_meta") or context.get("egress_ifindex"):
        raise InputRefused(errno.EINVAL, "data_meta and egress_ifindex of an xdp run are 0")
    if not 0 <= meta <= end <= size or meta % 4 or meta > _MAX_META:
        raise InputRefused(errno.EINVAL, f"data ({meta}) and data_end ({end}) do not fit {size} bytes of packet")
    if end != size:
        raise InputRefused(errno.EINVAL, "an xdp packet of several fragments is not modelled")
    ifindex, queue = context.get("ingress_ifindex", 1), context.get("rx_queue_index", 0)
    if not ifindex and queue:
        raise InputRefused(errno.EINVAL, "rx_queue_index needs an ingress_ifindex")
    return meta, ifindex or 1, queue
