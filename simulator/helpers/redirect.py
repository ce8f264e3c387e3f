"""Helpers that send a packet elsewhere, and that ask where it would go. The target is in the outcome's `redirect`."""

from __future__ import annotations

import errno

from bpflisp.spec.alu import M32, signed
from simulator.helpers.packet import ETHERNET, data_of, field
from simulator.helpers.registry import models
from simulator.machine import HelperFault, Machine
from simulator.maps.redirect import RedirectMap

_XDP_ABORTED, _XDP_REDIRECT = 0, 4
_TC_SHOT, _TC_REDIRECT = 2, 7
_INGRESS = 1
_ACTION_BITS, _BROADCAST, _EXCLUDE_INGRESS = 3, 8, 16
_NEIGH_SIZE = 20
_MTU_SEGMENTS, _MTU_FRAG_NEEDED, _MTU_SEGS_TOO_BIG = 1, 1, 2


@models("bpf_redirect")
def redirect(machine: Machine, ifindex: int, flags: int, *_: int) -> int:
    """To another interface's way out (flag 1: its way in), by the number that the program then returns."""
    assert machine.program is not None
    if machine.program.type == "xdp":
        if flags:
            return _XDP_ABORTED
        machine.redirect = ifindex & M32
        return _XDP_REDIRECT
    if flags & ~_INGRESS:
        return _TC_SHOT
    machine.redirect = ifindex & M32
    return _TC_REDIRECT


@models("bpf_redirect_peer")
def redirect_peer(machine: Machine, ifindex: int, flags: int, *_: int) -> int:
    """Into the other end of a veth pair."""
    if flags:
        return _TC_SHOT
    machine.redirect = ifindex & M32
    return _TC_REDIRECT


@models("bpf_redirect_neigh")
def redirect_neigh(machine: Machine, ifindex: int, parameters: int, size: int, flags: int, *_: int) -> int:
    """To another interface, the neighbour's address filled in."""
    if flags or 0 < signed(size, 32) < _NEIGH_SIZE:
        return _TC_SHOT
    machine.redirect = ifindex & M32
    return _TC_REDIRECT


@models("bpf_redirect_map")
def redirect_map(machine: Machine, handle: int, key: int, flags: int, *_: int) -> int:
    """To what a map has under a key; the action in the flags where it has nothing there."""
    found = machine.map_of(handle)
    if not isinstance(found, RedirectMap):
        raise HelperFault(f"a redirect through {found!r}")
    broadcast = _BROADCAST | _EXCLUDE_INGRESS if found.broadcasts else 0
    if flags & ~(_ACTION_BITS | broadcast):
        return _XDP_ABORTED
    if flags & _BROADCAST:
        machine.redirect = (found.name, None)
        return _XDP_REDIRECT
    if not found.has(key & M32):
        return flags & _ACTION_BITS
    machine.redirect = (found.name, key & M32)
    return _XDP_REDIRECT


@models("bpf_clone_redirect")
def clone_redirect(machine: Machine, context: int, ifindex: int, flags: int, *_: int) -> int:
    """A copy of the packet to another interface: it is then in the world's `sent`."""
    ifindex &= M32
    if flags & ~_INGRESS:
        return -errno.EINVAL
    if field(machine, "gso_size") and not machine.buffer.segments_known:
        return -errno.EBADMSG  # A test run's packet of segments does not say what they are of.
    if ifindex not in machine.world.devices:
        return -errno.EINVAL
    machine.world.sent.append((ifindex, data_of(machine)))
    return 0


@models("bpf_check_mtu")
def check_mtu(machine: Machine, context: int, ifindex: int, length: int, difference: int, flags: int) -> int:
    """Whether the packet fits the largest that an interface sends; tells that size."""
    assert machine.program is not None
    allowed = 0 if machine.program.type == "xdp" else _MTU_SEGMENTS
    if flags & ~allowed:
        return -errno.EINVAL
    given = int.from_bytes(machine.read(length, 4), "little")
    if flags & _MTU_SEGMENTS and (difference or given):
        return -errno.EINVAL
    device = machine.world.devices.get(ifindex & M32 or 1)
    if device is None:
        return -errno.ENODEV
    size = signed((given + ETHERNET if given else len(data_of(machine))) + difference, 32)
    machine.write(length, device.mtu.to_bytes(4, "little"))
    segmented = machine.program.type != "xdp" and field(machine, "gso_size")
    return 0 if segmented or size <= device.mtu + ETHERNET else _MTU_FRAG_NEEDED
