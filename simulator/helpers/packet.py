"""Helpers on the packet's bytes and length: of socket buffers and of XDP frames."""

from __future__ import annotations

import errno

from bpflisp.spec.alu import M32, signed
from simulator.contexts.skb import SKB
from simulator.contexts.xdp import FRAME_HEADER, FRAME_ROOM, HEADROOM
from simulator.helpers.registry import models
from simulator.machine import HelperFault, Machine
from simulator.maps.hash import ENOTSUPP

ETHERNET = 14
_MAX_SKB = 1 << 16
_MAX_OFFSET = 0xFFFF
_INT_MAX = (1 << 31) - 1
_RECOMPUTE_CSUM, _INVALIDATE_HASH = 1, 2
_HEADER_MAC, _HEADER_NET = 0, 1
VLAN_PROTOCOLS = (0x8100, 0x88A8)
IPV4, IPV6 = 0x0800, 0x86DD
LEAST_ETHERTYPE = 0x600
"""Below it the two bytes after the addresses are a length."""
MAX_METADATA = 252


def data_of(machine: Machine) -> bytes:
    """The packet's bytes as the program counts them: without metadata. A fault where there is no packet."""
    if machine.packet is None:
        raise HelperFault("there is no packet")
    return bytes(machine.packet.view[machine.meta :])


def change(machine: Machine, data: bytes | bytearray) -> None:
    """Another packet in the place of this one, its metadata kept."""
    assert machine.packet is not None
    assert machine.model is not None
    meta = bytes(machine.packet.view[: machine.meta])
    machine.set_packet(meta + data, machine.meta)
    machine.model.packet_changed(machine)


def field(machine: Machine, name: str) -> int:
    """A field of the program's __sk_buff."""
    assert machine.context is not None
    place = SKB.field(name)
    assert place is not None
    return int.from_bytes(machine.context.view[place.offset : place.offset + place.size], "little")


def set_field(machine: Machine, name: str, value: int) -> None:
    """Sets a field of the program's __sk_buff."""
    assert machine.context is not None
    place = SKB.field(name)
    assert place is not None
    machine.context.view[place.offset : place.offset + place.size] = value.to_bytes(place.size, "little")


def protocol(machine: Machine) -> int:
    """The packet's protocol in host order: 0x800 for IPv4."""
    return int.from_bytes(field(machine, "protocol").to_bytes(4, "little")[:2], "big")


def set_protocol(machine: Machine, value: int) -> None:
    """Sets the packet's protocol, given in host order."""
    set_field(machine, "protocol", int.from_bytes(value.to_bytes(2, "big"), "little"))


# Bytes of a socket buffer.


@models("bpf_skb_load_bytes")
def skb_load_bytes(machine: Machine, context: int, offset: int, to: int, size: int, *_: int) -> int:
    """Copies packet bytes; zeros and EFAULT where the packet ends before.

    A flow dissector gets EFAULT always: what a test run of the kernel's gives it has no socket buffer to read from.
    """
    data = b"" if machine.program is not None and machine.program.type == "flow_dissector" else data_of(machine)
    return _load(machine, data, offset & M32, to, size & M32)


def _load(machine: Machine, data: bytes, offset: int, to: int, size: int) -> int:
    found = data[offset : offset + size] if 0 <= offset <= _INT_MAX else b""
    if len(found) < size:
        machine.write(to, bytes(size))
        return -errno.EFAULT
    machine.write(to, found)
    return 0


@models("bpf_skb_load_bytes_relative")
def skb_load_bytes_relative(machine: Machine, context: int, offset: int, to: int, size: int, start: int) -> int:
    """The same, counted from the link-layer or the network header."""
    offset, size = offset & M32, size & M32
    whole = machine.link_header + data_of(machine)
    if offset > _MAX_OFFSET or start & M32 not in (_HEADER_MAC, _HEADER_NET):
        machine.write(to, bytes(size))
        return -errno.EFAULT
    return _load(machine, whole, offset + (machine.network_offset if start & M32 else 0), to, size)


@models("bpf_skb_store_bytes")
def skb_store_bytes(machine: Machine, context: int, offset: int, source: int, size: int, flags: int) -> int:
    """Writes packet bytes: EFAULT where the packet ends before, EINVAL for unknown flags."""
    offset, size = offset & M32, size & M32
    if flags & ~(_RECOMPUTE_CSUM | _INVALIDATE_HASH):
        return -errno.EINVAL
    if offset > _INT_MAX or offset + size > len(data_of(machine)):
        return -errno.EFAULT
    assert machine.packet is not None
    start = machine.meta + offset
    machine.packet.view[start : start + size] = machine.read(source, size)
    if flags & _INVALIDATE_HASH:
        set_field(machine, "hash", 0)
    return 0


@models("bpf_skb_pull_data")
def skb_pull_data(machine: Machine, context: int, size: int, *_: int) -> int:
    """Makes bytes readable directly: here they all are. ENOMEM where the packet has fewer."""
    return -errno.ENOMEM if size & M32 > len(data_of(machine)) else 0


@models("bpf_skb_change_tail")
def skb_change_tail(machine: Machine, context: int, size: int, flags: int, *_: int) -> int:
    """Cuts the packet, or adds zeros to it."""
    size &= M32
    least = machine.buffer.least(machine.network_offset - len(machine.link_header))
    if flags or size > _MAX_SKB or size < least:
        return -errno.EINVAL
    if machine.buffer.encapsulated:
        return -ENOTSUPP
    change(machine, data_of(machine)[:size].ljust(size, b"\0"))
    if field(machine, "gso_size"):
        set_field(machine, "gso_size", 0)
        set_field(machine, "gso_segs", 0)
    return 0


@models("bpf_skb_change_head")
def skb_change_head(machine: Machine, context: int, size: int, flags: int, *_: int) -> int:
    """Puts zeros in front of the packet."""
    data = data_of(machine)
    size &= M32
    most = _INT_MAX if field(machine, "gso_size") else _MAX_SKB
    if flags or len(data) + size > most:
        return -errno.EINVAL
    machine.network_offset += size - len(machine.link_header)
    machine.buffer.grow(size)
    machine.buffer.link_length = machine.network_offset & 0xFFFF
    machine.link_header = b""
    change(machine, bytes(size) + data)
    return 0


@models("bpf_skb_change_type")
def skb_change_type(machine: Machine, context: int, kind: int, *_: int) -> int:
    """Sets whom the packet is for: this host, all, some, another."""
    if kind & M32 > 3 or field(machine, "pkt_type") > 3:
        return -errno.EINVAL
    set_field(machine, "pkt_type", kind & M32)
    return 0


@models("bpf_skb_change_proto")
def skb_change_proto(machine: Machine, context: int, wanted: int, flags: int, *_: int) -> int:
    """Makes room for an IPv6 header in the place of an IPv4 one, or the other way round."""
    to = int.from_bytes((wanted & 0xFFFF).to_bytes(2, "little"), "big")
    if flags:
        return -errno.EINVAL
    if (protocol(machine), to) not in ((IPV4, IPV6), (IPV6, IPV4)):
        return -ENOTSUPP
    data, at = data_of(machine), machine.network_offset - len(machine.link_header)
    change(machine, data[:at] + (bytes(20) + data[at:] if to == IPV6 else data[at + 20 :]))
    if to == IPV6:
        machine.buffer.grow(20)
    else:
        machine.buffer.shrink(20)
    if field(machine, "gso_size"):
        machine.buffer.segments_known = True
    set_protocol(machine, to)
    set_field(machine, "hash", 0)
    return 0


# Room for tunnels.

_ROOM_NET, _ROOM_MAC = 0, 1
_FIXED_GSO, _ENCAP_L3_IPV4, _ENCAP_L3_IPV6, _ENCAP_L4_GRE, _ENCAP_L4_UDP = 1, 2, 4, 8, 16
_NO_CSUM_RESET, _ENCAP_L2_ETH, _DECAP_L3_IPV4, _DECAP_L3_IPV6 = 32, 64, 128, 256
_L2_LENGTH = 0xFF << 56
_ENCAP_L3 = _ENCAP_L3_IPV4 | _ENCAP_L3_IPV6
_DECAP_L3 = _DECAP_L3_IPV4 | _DECAP_L3_IPV6
_ROOM_FLAGS = (
    _FIXED_GSO | _ENCAP_L3 | _ENCAP_L4_GRE | _ENCAP_L4_UDP | _NO_CSUM_RESET | _ENCAP_L2_ETH | _DECAP_L3 | _L2_LENGTH
)  # fmt: skip


@models("bpf_skb_adjust_room")
def skb_adjust_room(machine: Machine, context: int, difference: int, mode: int, flags: int, *_: int) -> int:
    """Adds zeros behind the link-layer or the network header, or takes bytes away from there."""
    difference, mode = signed(difference, 32), mode & M32
    family = protocol(machine)
    if flags & ~_ROOM_FLAGS:
        return -errno.EINVAL
    if abs(difference) > 0xFFF:
        return -errno.EFAULT
    if family not in (IPV4, IPV6) or mode not in (_ROOM_NET, _ROOM_MAC):
        return -ENOTSUPP
    header = 20 if family == IPV4 else 40
    data, network = data_of(machine), machine.network_offset - len(machine.link_header)
    refused = _refuses_room(difference, flags, len(data), network, header, bool(field(machine, "gso_size")))
    if refused:
        return refused
    refused = _refuses_tunnel(machine, difference, flags)
    if refused:
        return refused
    at = network + (header if mode == _ROOM_NET else 0)
    if difference < 0 and at - difference > len(data):
        return -errno.ENOMEM
    change(machine, data[:at] + (bytes(difference) + data[at:] if difference >= 0 else data[at - difference :]))
    if difference >= 0:
        machine.buffer.grow(difference)
    else:
        machine.buffer.shrink(-difference)
    if not flags & _NO_CSUM_RESET:
        machine.buffer.checked = None
    if flags & _ENCAP_L3 and difference >= 0:
        machine.buffer.encapsulated = True
        set_protocol(machine, IPV6 if flags & _ENCAP_L3_IPV6 else IPV4)
    if flags & _DECAP_L3:
        set_protocol(machine, IPV6 if flags & _DECAP_L3_IPV6 else IPV4)
    return 0


def _refuses_room(difference: int, flags: int, size: int, network: int, header: int, segmented: bool) -> int:
    """The error of a change of room by its measures, 0 for none."""
    least, after_link = header, size - network
    if flags & _DECAP_L3:
        if difference >= 0 or flags & _DECAP_L3 == _DECAP_L3:
            return -errno.EINVAL
        least = 20 if flags & _DECAP_L3_IPV4 else 40
    if difference < 0:
        return -ENOTSUPP if -difference >= after_link or after_link + difference < least else 0
    return -ENOTSUPP if size + difference > _MAX_SKB and not segmented else 0


def _refuses_tunnel(machine: Machine, difference: int, flags: int) -> int:
    """The error of a change of room by what is to be put there, 0 for none, in the order in which the kernel looks."""
    if difference < 0 and flags & ~(_FIXED_GSO | _NO_CSUM_RESET | _DECAP_L3):
        return -errno.EINVAL
    if field(machine, "gso_size"):
        return -ENOTSUPP  # Of TCP alone segments may change, and a test run's packet does not say what it is of.
    if difference < 0 or not flags & _ENCAP_L3:
        return 0
    inner = flags >> 56
    if flags & _ENCAP_L3 == _ENCAP_L3 or (flags & _ENCAP_L4_GRE and flags & _ENCAP_L4_UDP):
        return -errno.EINVAL
    if flags & _ENCAP_L2_ETH and inner < ETHERNET:
        return -errno.EINVAL
    if machine.buffer.encapsulated:
        return -errno.EALREADY
    return -errno.EINVAL if inner > difference else 0


# VLAN tags: the outermost is beside the packet, in the buffer's own fields.


@models("bpf_skb_vlan_push")
def skb_vlan_push(machine: Machine, context: int, kind: int, tag: int, *_: int) -> int:
    """Adds a VLAN tag; one that is there already goes into the packet."""
    kind = int.from_bytes((kind & 0xFFFF).to_bytes(2, "little"), "big")
    kind = kind if kind in VLAN_PROTOCOLS else VLAN_PROTOCOLS[0]
    if field(machine, "vlan_present"):
        data = data_of(machine)
        outer = field(machine, "vlan_proto").to_bytes(4, "little")[:2]
        tagged = data[:12] + outer + field(machine, "vlan_tci").to_bytes(4, "little")[:2][::-1] + data[12:]
        change(machine, tagged)
        machine.buffer.grow(4)
        set_protocol(machine, int.from_bytes(outer, "big"))
    set_field(machine, "vlan_present", 1)
    set_field(machine, "vlan_tci", tag & 0xFFFF)
    set_field(machine, "vlan_proto", int.from_bytes(kind.to_bytes(2, "big"), "little"))
    return 0


@models("bpf_skb_vlan_pop")
def skb_vlan_pop(machine: Machine, *_: int) -> int:
    """Takes the outermost VLAN tag off."""
    if field(machine, "vlan_present"):
        for name in ("vlan_present", "vlan_tci", "vlan_proto"):
            set_field(machine, name, 0)
    elif protocol(machine) not in VLAN_PROTOCOLS:
        return 0
    elif _pop_from_packet(machine) < 0:
        return -errno.ENOMEM
    if protocol(machine) in VLAN_PROTOCOLS:
        kind, tag = protocol(machine), _pop_from_packet(machine)
        if tag < 0:
            return -errno.ENOMEM
        set_field(machine, "vlan_present", 1)
        set_field(machine, "vlan_tci", tag)
        set_field(machine, "vlan_proto", int.from_bytes(kind.to_bytes(2, "big"), "little"))
    return 0


def _pop_from_packet(machine: Machine) -> int:
    """Takes the tag out of the packet: its number, -1 where the packet ends before."""
    data = data_of(machine)
    if len(data) < ETHERNET + 4:
        return -1
    change(machine, data[:12] + data[16:])
    inner = int.from_bytes(data[16:18], "big")
    if inner < LEAST_ETHERTYPE:
        inner = 1 if data[18:20] == b"\xff\xff" else 4
    set_protocol(machine, inner)
    machine.network_offset = max(ETHERNET, machine.network_offset - 4)
    machine.buffer.link_length = machine.network_offset
    machine.buffer.shrink(4)
    return int.from_bytes(data[14:16], "big")


# XDP frames.


@models("bpf_xdp_adjust_head")
def xdp_adjust_head(machine: Machine, context: int, difference: int, *_: int) -> int:
    """Moves the packet's beginning: forwards takes bytes off, backwards gives bytes of the headroom."""
    assert machine.packet is not None
    by, data = signed(difference, 32), data_of(machine)
    if machine.headroom + by < FRAME_HEADER or by > len(data) - ETHERNET:
        return -errno.EINVAL
    room = bytes(machine.hidden).rjust(-by, machine.blank[:1])
    memory, start, end = bytearray(room + machine.packet.view), len(room), len(room) + machine.meta
    # Metadata moves along, over what was the packet's head.
    memory[start + by : end + by] = memory[start:end]
    machine.hidden = bytes(memory[: start + by])
    machine.headroom += by
    machine.set_packet(memory[start + by :], machine.meta)
    assert machine.model is not None
    machine.model.packet_changed(machine)
    return 0


@models("bpf_xdp_adjust_tail")
def xdp_adjust_tail(machine: Machine, context: int, difference: int, *_: int) -> int:
    """Moves the packet's end: forwards gives zeros."""
    by, data = signed(difference, 32), data_of(machine)
    if len(data) + by < ETHERNET or machine.headroom + machine.meta + len(data) + by > FRAME_ROOM:
        return -errno.EINVAL
    change(machine, data[: len(data) + by].ljust(len(data) + by, b"\0"))
    return 0


@models("bpf_xdp_adjust_meta")
def xdp_adjust_meta(machine: Machine, context: int, difference: int, *_: int) -> int:
    """Moves the beginning of the metadata in front of the packet."""
    assert machine.packet is not None
    assert machine.model is not None
    by = signed(difference, 32)
    meta = machine.meta - by
    if machine.headroom + by < FRAME_HEADER or meta < 0:
        return -errno.EINVAL
    if meta & 3 or meta > MAX_METADATA:
        return -errno.EACCES
    whole = bytes(machine.packet.view)
    room = bytes(machine.hidden)
    changed = whole[by:] if by >= 0 else room.rjust(-by, machine.blank[:1])[by:] + whole
    machine.hidden = room + whole[:by] if by >= 0 else room[:by]
    machine.headroom += by
    machine.set_packet(changed, meta)
    machine.model.packet_changed(machine)
    return 0


@models("bpf_xdp_load_bytes")
def xdp_load_bytes(machine: Machine, context: int, offset: int, to: int, size: int, *_: int) -> int:
    """Copies packet bytes: EINVAL where the packet ends before."""
    offset, size, data = offset & M32, size & M32, data_of(machine)
    if offset > _MAX_OFFSET or size > _MAX_OFFSET:
        return -errno.EFAULT
    if offset + size > len(data):
        return -errno.EINVAL
    machine.write(to, data[offset : offset + size])
    return 0


@models("bpf_xdp_store_bytes")
def xdp_store_bytes(machine: Machine, context: int, offset: int, source: int, size: int, *_: int) -> int:
    """Writes packet bytes: EINVAL where the packet ends before."""
    offset, size, data = offset & M32, size & M32, data_of(machine)
    if offset > _MAX_OFFSET or size > _MAX_OFFSET:
        return -errno.EFAULT
    if offset + size > len(data):
        return -errno.EINVAL
    assert machine.packet is not None
    start = machine.meta + offset
    machine.packet.view[start : start + size] = machine.read(source, size)
    return 0


@models("bpf_xdp_get_buff_len")
def xdp_get_buff_len(machine: Machine, *_: int) -> int:
    """Bytes of the packet."""
    return len(data_of(machine))


__all__ = ["HEADROOM"]
