"""Helpers on what a socket buffer carries beside its bytes: hash, tunnel key, cgroup, time."""

from __future__ import annotations

import errno
from zlib import crc32

from bpflisp.spec.alu import M32
from simulator.helpers.packet import IPV4, IPV6, data_of, field, protocol, set_field
from simulator.helpers.registry import models
from simulator.machine import Machine

_TUNNEL_KEY = 44
_TUNNEL_SIZES = frozenset({8, 22, 24, 28, 44})
_CE = 3
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
    """The key of the tunnel that the packet came through: the world's `tunnel_key`, EINVAL and zeros where it came
    through none."""
    size &= M32
    key = machine.world.tunnel_key
    if key is None or size not in _TUNNEL_SIZES:
        machine.write(to, bytes(size))
        return -errno.EINVAL
    machine.write(to, key.ljust(_TUNNEL_KEY, b"\0")[:size])
    return 0


@models("bpf_skb_set_tunnel_key")
def set_tunnel_key(machine: Machine, context: int, key: int, size: int, flags: int, *_: int) -> int:
    """The key of the tunnel that the packet is to go through: then the world's `sent_tunnel_key`."""
    size &= M32
    if size not in _TUNNEL_SIZES or flags & ~0x1F:
        return -errno.EINVAL
    machine.world.sent_tunnel_key = machine.read(key, size)
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
    if machine.world.sent_tunnel_key is None or size & 3:
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
    family = protocol(machine)
    if family == IPV4 and len(data) >= at + 20 and data[at + 1] & 3:
        _mark_ipv4(data, at)
    elif family == IPV6 and len(data) >= at + 40 and data[at + 1] & 0x30:
        data[at + 1] |= _CE << 4
    else:
        return 0
    assert machine.packet is not None
    machine.packet.view[machine.meta :] = data
    return 1


def _mark_ipv4(data: bytearray, at: int) -> None:
    """Sets the bits, and the header's checksum with them."""
    before = int.from_bytes(data[at : at + 2], "big")
    data[at + 1] |= _CE
    total = (~int.from_bytes(data[at + 10 : at + 12], "big") & 0xFFFF) + (~before & 0xFFFF)
    total += int.from_bytes(data[at : at + 2], "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    data[at + 10 : at + 12] = (~total & 0xFFFF).to_bytes(2, "big")


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
