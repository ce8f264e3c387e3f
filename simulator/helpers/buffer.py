"""Helpers on what a socket buffer carries beside its bytes: hash, tunnel key, cgroup, time."""

from __future__ import annotations

import errno
from struct import Struct
from zlib import crc32

from bpflisp.spec.alu import M32
from simulator.helpers.packet import ETHERNET, IPV4, IPV6, VLAN_PROTOCOLS, data_of, field, protocol, set_field
from simulator.helpers.registry import models
from simulator.machine import Machine

_TUNNEL_KEY = Struct("<I16sBBHI16s")
_TUNNEL_SIZES = frozenset({8, 22, 24, 28, 44})
"""The structure's sizes in the kernels that there have been."""
_TUNNEL_IPV6, _ZERO_CSUM, _NO_FRAGMENT, _SEQUENCE, _NO_KEY = 1, 2, 4, 8, 16
_TUNNEL_FLAGS = 16
_HAS_CSUM, _HAS_KEY, _HAS_SEQUENCE, _HAS_NO_FRAGMENT, _NO_CACHE = 1, 4, 8, 0x100, 0x2000
_FLOW_LABEL = 0xFFFFF
_CE = 3
_MAX_TAGS = 8
_MAX_TSTAMP_TYPE = 2


@models("bpf_get_hash_recalc")
def get_hash_recalc(machine: Machine, *_: int) -> int:
    """The packet's flow as a number: never 0, the same for packets of one flow. The kernel's own is secret."""
    known = field(machine, "hash")
    if not known:
        known = crc32(_flow(machine)) or 1
        set_field(machine, "hash", known)
    return known


def _flow(machine: Machine) -> bytes:
    """Addresses, protocol and ports of an IP packet; of any other, its first bytes."""
    data = data_of(machine)[max(0, machine.network_offset - len(machine.link_header)) :]
    if protocol(machine) == IPV4 and len(data) >= 24:
        head = (data[0] & 15) * 4
        return data[9:10] + data[12:20] + data[head : head + 4]
    if protocol(machine) == IPV6 and len(data) >= 44:
        return data[6:7] + data[8:44]
    return data[:14]


@models("bpf_set_hash_invalid")
def set_hash_invalid(machine: Machine, *_: int) -> int:
    """Forgets the packet's hash."""
    set_field(machine, "hash", 0)
    return 0


@models("bpf_set_hash")
def set_hash(machine: Machine, context: int, value: int, *_: int) -> int:
    """Sets the packet's hash."""
    set_field(machine, "hash", value & M32)
    return 0


@models("bpf_skb_get_tunnel_key")
def get_tunnel_key(machine: Machine, context: int, to: int, size: int, flags: int, *_: int) -> int:
    """The key of the tunnel that the packet came through: the world's `tunnel_key`, or what was set for it since.

    EINVAL and zeros where there is none, EPROTO where it is of the other IP.
    """
    size &= M32
    found = machine.buffer.tunnel
    if found is None and machine.world.tunnel_key is not None:
        key = machine.world.tunnel_key.ljust(_TUNNEL_KEY.size, b"\0")
    elif found is None or flags & ~(_TUNNEL_IPV6 | _TUNNEL_FLAGS):
        return _no_tunnel_key(machine, to, size, errno.EINVAL)
    elif (flags ^ found[1]) & _TUNNEL_IPV6:
        return _no_tunnel_key(machine, to, size, errno.EPROTO)
    else:
        key = _seen_from_inside(*found, with_flags=bool(flags & _TUNNEL_FLAGS))
    if size not in _TUNNEL_SIZES or (size == min(_TUNNEL_SIZES) and flags & _TUNNEL_IPV6):
        return _no_tunnel_key(machine, to, size, errno.EINVAL)
    machine.write(to, key[:size])
    return 0


def _no_tunnel_key(machine: Machine, to: int, size: int, error: int) -> int:
    machine.write(to, bytes(size))
    return -error


def _seen_from_inside(key: bytes, flags: int, with_flags: bool) -> bytes:
    """What a key that was set reads as: its two ends change places, and of IPv4 the rest of the addresses is zero."""
    number, remote, tos, ttl, _, label, local = _TUNNEL_KEY.unpack(key)
    if not flags & _TUNNEL_IPV6:
        remote, local, label = remote[:4].ljust(16, b"\0"), local[:4].ljust(16, b"\0"), 0
    bits = _NO_CACHE
    for flag, unset, bit in (
        (_ZERO_CSUM, True, _HAS_CSUM), (_NO_FRAGMENT, False, _HAS_NO_FRAGMENT),
        (_SEQUENCE, False, _HAS_SEQUENCE), (_NO_KEY, True, _HAS_KEY),
    ):  # fmt: skip
        bits |= bit if bool(flags & flag) is not unset else 0
    said = int.from_bytes(bits.to_bytes(2, "big"), "little") if with_flags else 0
    return _TUNNEL_KEY.pack(number, local, tos, ttl, said, label & _FLOW_LABEL, remote)


@models("bpf_skb_set_tunnel_key")
def set_tunnel_key(machine: Machine, context: int, key: int, size: int, flags: int, *_: int) -> int:
    """The key of the tunnel that the packet is to go through: then the world's `sent_tunnel_key`."""
    size &= M32
    known = _TUNNEL_IPV6 | _ZERO_CSUM | _NO_FRAGMENT | _SEQUENCE | _NO_KEY
    if size not in _TUNNEL_SIZES or flags & ~known:
        return -errno.EINVAL
    given = machine.read(key, size)
    whole = given.ljust(_TUNNEL_KEY.size, b"\0")
    _, _, _, _, extra, label, _ = _TUNNEL_KEY.unpack(whole)
    if extra or (label and not flags & _TUNNEL_IPV6):
        return -errno.EINVAL
    machine.world.sent_tunnel_key = given
    machine.buffer.tunnel = whole, flags
    return 0


@models("bpf_skb_get_tunnel_opt")
def get_tunnel_opt(machine: Machine, context: int, to: int, size: int, *_: int) -> int:
    """Options of that tunnel: ENOENT, there are none."""
    machine.write(to, bytes(size & M32))
    return -errno.ENOENT


@models("bpf_skb_set_tunnel_opt")
def set_tunnel_opt(machine: Machine, context: int, options: int, size: int, *_: int) -> int:
    """Sets options of the tunnel that the packet is to go through: EINVAL without a key, or not in fours."""
    size &= M32
    if machine.buffer.tunnel is None or size & 3:
        return -errno.EINVAL
    return -errno.ENOMEM if size > 255 else 0


@models("bpf_get_cgroup_classid", "bpf_skb_cgroup_classid", "bpf_get_route_realm")
def classid(machine: Machine, *_: int) -> int:
    """The net_cls class or the route's realm: none."""
    return 0


@models("bpf_skb_cgroup_id", "bpf_sk_cgroup_id")
def skb_cgroup_id(machine: Machine, *_: int) -> int:
    """The cgroup of the packet's socket: the task's."""
    return machine.world.task.cgroup_id


@models("bpf_skb_ecn_set_ce")
def ecn_set_ce(machine: Machine, *_: int) -> int:
    """Marks congestion: 1 where the packet can carry the mark and does now, else 0."""
    data = bytearray(data_of(machine))
    at = machine.network_offset - len(machine.link_header)
    family = _protocol_after_tags(machine, machine.link_header + data)
    if family == IPV4 and len(data) >= at + 20 and data[at + 1] & 3:
        _mark_ipv4(data, at)
    elif family == IPV6 and len(data) >= at + 40 and data[at + 1] & 0x30:
        data[at + 1] |= _CE << 4
    else:
        return 0
    assert machine.packet is not None
    machine.packet.view[machine.meta :] = data
    return 1


def _protocol_after_tags(machine: Machine, frame: bytes | bytearray) -> int:
    """The protocol behind the VLAN tags that are in the packet, 0 where they do not end."""
    found, at = protocol(machine), machine.buffer.link_length - 4 if machine.buffer.link_length else ETHERNET
    for _ in range(_MAX_TAGS):
        if found not in VLAN_PROTOCOLS:
            return found
        found, at = int.from_bytes(frame[at + 2 : at + 4], "big"), at + 4
        if at > len(frame):
            return 0
    return 0


def _mark_ipv4(data: bytearray, at: int) -> None:
    """Sets the bits, and changes the header's checksum by what they add; one that is marked stays as it is."""
    before = data[at + 1] & _CE
    if before == _CE:
        return
    total = int.from_bytes(data[at + 10 : at + 12], "big") + 0xFFFC + before
    data[at + 10 : at + 12] = ((total & 0xFFFF) + (total >> 16)).to_bytes(2, "big")
    data[at + 1] |= _CE


@models("bpf_skb_set_tstamp")
def set_tstamp(machine: Machine, context: int, time: int, kind: int, *_: int) -> int:
    """Sets when the packet came or is to go: EOPNOTSUPP for anything but IP, EINVAL for a time that has no kind."""
    if protocol(machine) not in (IPV4, IPV6):
        return -errno.EOPNOTSUPP
    if kind > _MAX_TSTAMP_TYPE or (kind and not time):
        return -errno.EINVAL
    set_field(machine, "tstamp", time)
    set_field(machine, "tstamp_type", kind)
    return 0
