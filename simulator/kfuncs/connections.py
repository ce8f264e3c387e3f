"""Kernel functions on connection tracking: looked up by a packet's ends, made, inserted, changed."""

from __future__ import annotations

import errno
import struct
from typing import Final

from bpflisp.spec.alu import M32, signed
from simulator.connections import ANY_ZONE, CONFIRMED, TCP, UDP, Connection, Ends, Zone
from simulator.helpers.system import ticks
from simulator.kfuncs.registry import models
from simulator.machine import HelperFault, Machine

_OPTIONS = struct.Struct("<iiBBH")
_SHORT, _LONG = 12, 16
"""Bytes of struct bpf_ct_opts, without and with a zone's direction."""
_CURRENT_NETNS = -1
_SOURCE_NAT, _DESTINATION_NAT = 0, 1
_FIRST_TIMEOUT = 10
"""Seconds that a connection has which a program makes."""
_TICK_MS = 4
_SEEN_REPLY, _ASSURED, _EXPECTED, _DYING = 1 << 1, 1 << 2, 1 << 0, 1 << 9
_NAT: Final = {_SOURCE_NAT: 1 << 4 | 1 << 7, _DESTINATION_NAT: 1 << 5 | 1 << 8}
"""What a rewriting of addresses sets in the status: that there is one, and that it is done."""
_UNCHANGEABLE = CONFIRMED | _EXPECTED | _DYING | (1 << 7 | 1 << 8) | (1 << 4 | 1 << 5) | 1 << 6 | 1 << 11 | 1 << 14


class _Refused(Exception):  # noqa: N818
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _asked(machine: Machine, ends: int, size: int, options: int, options_size: int) -> tuple[Ends, int, Zone]:
    """The ends, the protocol and the zone that are asked for. Raises _Refused in the kernel's order."""
    if not ends or options_size not in (_SHORT, _LONG):
        raise _Refused(errno.EINVAL)
    namespace, _, protocol, _, zone = _OPTIONS.unpack(machine.read(options, _OPTIONS.size))
    if options_size == _LONG and any(machine.read(options + 13, 3)):
        raise _Refused(errno.EINVAL)
    if options_size == _SHORT and zone:
        raise _Refused(errno.EINVAL)
    if protocol not in (TCP, UDP):
        raise _Refused(errno.EPROTO)
    if namespace < _CURRENT_NETNS:
        raise _Refused(errno.EINVAL)
    if size not in (_SHORT, 36):
        raise _Refused(errno.EAFNOSUPPORT)
    data, wide = machine.read(ends, size), 4 if size == _SHORT else 16
    if namespace >= 0:
        raise _Refused(errno.ENONET)
    ports = data[2 * wide :]
    counts = ANY_ZONE[1]
    if options_size == _LONG:
        counts = machine.read(options + 12, 1)[0] or counts
        machine.write(options + 12, bytes([counts]))
    return (data[:wide] + ports[:2], data[wide : 2 * wide] + ports[2:]), protocol, (zone, counts)


def _tell(machine: Machine, options: int, error: int) -> int:
    """0, and the error in the options: 6.18 writes it there whatever size they are said to have."""
    machine.write(options + 4, (-error & M32).to_bytes(4, "little"))
    return 0


@models("bpf_skb_ct_lookup", "bpf_xdp_ct_lookup")
def lookup(machine: Machine, context: int, ends: int, size: int, options: int, options_size: int) -> int:
    """The connection that a packet between these ends is of, its direction in the options; 0, and the error there."""
    options_size &= M32
    try:
        asked = _asked(machine, ends, size & M32, options, options_size)
    except _Refused as refused:
        return _tell(machine, options, refused.number)
    found = machine.world.connections.find(*asked)
    if found is None:
        return _tell(machine, options, errno.ENOENT)
    machine.write(options + 9, bytes([found[1]]))
    return found[0].address


@models("bpf_skb_ct_alloc", "bpf_xdp_ct_alloc")
def alloc(machine: Machine, context: int, ends: int, size: int, options: int, options_size: int) -> int:
    """A new connection between these ends, which no lookup finds before it is inserted."""
    options_size &= M32
    try:
        asked = _asked(machine, ends, size & M32, options, options_size)
    except _Refused as refused:
        return _tell(machine, options, refused.number)
    made = machine.world.connections.make(*asked)
    made.timeout = _FIRST_TIMEOUT * 1000 // _TICK_MS
    return made.address


def _at(machine: Machine, address: int) -> Connection:
    found = machine.world.connections.at(address)
    if found is None:
        raise HelperFault(f"{address:#x} is no connection of the world's")
    return found


@models("bpf_ct_insert_entry")
def insert(machine: Machine, address: int, *_: int) -> int:
    """Makes a connection one that lookups find: 0 where there is one between its ends."""
    made, connections = _at(machine, address), machine.world.connections
    connections.fresh.pop(address, None)
    if any(one.tuple_of(a) == made.tuple_of(b) for one in connections for a in (0, 1) for b in (0, 1)):
        return 0
    made.timeout += ticks(machine)
    made.status |= CONFIRMED
    connections.known.append(made)
    return address


def _in_ticks(milliseconds: int) -> int:
    return -(-(milliseconds & M32) // _TICK_MS)


@models("bpf_ct_set_timeout")
def set_timeout(machine: Machine, address: int, milliseconds: int, *_: int) -> int:
    """How long a connection lasts that is not inserted yet."""
    _at(machine, address).timeout = _in_ticks(milliseconds)
    return 0


@models("bpf_ct_change_timeout")
def change_timeout(machine: Machine, address: int, milliseconds: int, *_: int) -> int:
    """How long it lasts from now on."""
    _at(machine, address).timeout = ticks(machine) + _in_ticks(milliseconds)
    return 0


@models("bpf_ct_set_status", "bpf_ct_change_status")
def change_status(machine: Machine, address: int, status: int, *_: int) -> int:
    """Sets bits of its state: EBUSY for one that nobody may change."""
    found, status = _at(machine, address), status & M32
    changed = found.status ^ status
    lost = changed & ~status
    if changed & (_EXPECTED | CONFIRMED | _DYING) or lost & (_SEEN_REPLY | _ASSURED):
        return -errno.EBUSY
    found.status |= status & ~_UNCHANGEABLE
    return 0


@models("bpf_ct_set_nat_info")
def set_nat_info(machine: Machine, address: int, to: int, port: int, manipulated: int, *_: int) -> int:
    """Where packets are rewritten to, of the source (0) or the destination (1): the other direction's end."""
    found, data = _at(machine, address), machine.read(to, 16)
    end_at, manipulated = (20 if manipulated & M32 == _SOURCE_NAT else 0), manipulated & M32
    wide = 4 if found.tuple_of(0)[18] == 2 else 16
    ports = bytes(found.region.view[88 + end_at + 16 : 88 + end_at + 18])
    if signed(port, 32) > 0:
        ports = (port & 0xFFFF).to_bytes(2, "big")
    found.put_end(1, end_at, data[:wide] + ports)
    found.status |= _NAT[manipulated]
    return 0
