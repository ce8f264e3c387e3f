"""bpf_fib_lookup: where a packet would be forwarded, by the world's devices, routes and neighbours."""

from __future__ import annotations

import errno
import ipaddress
import struct
from typing import TYPE_CHECKING

from bpflisp.spec.alu import M32, signed
from simulator.helpers.packet import ETHERNET, data_of
from simulator.helpers.registry import models
from simulator.machine import Machine
from simulator.network import LOCAL_TABLE, MAIN_TABLE, REFUSING, Route, link_address

if TYPE_CHECKING:
    from simulator.network import Address

_SIZE = 64
_AF_INET, _AF_INET6 = 2, 10
_DIRECT, _OUTPUT, _SKIP_NEIGHBOUR, _TABLE, _SOURCE, _MARK = 1, 2, 4, 8, 16, 32
_KNOWN = _DIRECT | _OUTPUT | _SKIP_NEIGHBOUR | _TABLE | _SOURCE | _MARK

_SUCCESS, _BLACKHOLE, _UNREACHABLE, _PROHIBIT, _NOT_FORWARDED, _DISABLED = range(6)
_NO_NEIGHBOUR, _TOO_LONG, _NO_SOURCE = 7, 8, 9
_REASONS = dict(zip(REFUSING, (_BLACKHOLE, _UNREACHABLE, _PROHIBIT), strict=True))

# Offsets in struct bpf_fib_lookup (include/uapi/linux/bpf.h).
_LENGTH, _IFINDEX, _METRIC, _SOURCE_AT, _TARGET_AT, _VLAN_OR_TABLE, _SENDER, _RECEIVER = 6, 8, 12, 16, 32, 48, 52, 58
_MAX_MTU = {4: 0xFFFF, 6: 0xFFFF + 40}
_VLAN = 4


class _Lookup:
    """One question: the struct's bytes, which it answers into."""

    def __init__(self, machine: Machine, data: bytearray, flags: int) -> None:
        self.network, self.devices = machine.world.network, machine.world.devices
        self.data, self.flags = data, flags
        self.version = 4 if data[0] == _AF_INET else 6
        self.size = 4 if self.version == 4 else 16

    def address(self, at: int) -> Address:
        return ipaddress.ip_address(bytes(self.data[at : at + self.size]))

    def put(self, at: int, value: Address) -> None:
        self.data[at : at + self.size] = value.packed

    def number(self, at: int, layout: str) -> int:
        found: int = struct.unpack_from(layout, self.data, at)[0]
        return found

    def answer(self, checks_length: bool) -> int:
        """The return value; the struct is filled as far as the kernel fills it."""
        to, ifindex = self.address(_TARGET_AT), self.number(_IFINDEX, "<I")
        if self.version == 6 and any(map(_needs_its_link, (to, self.address(_SOURCE_AT)))):
            return _NOT_FORWARDED
        device = self.devices.get(ifindex)
        if device is None:
            return -errno.ENODEV
        if not device.forwarding:
            return _DISABLED
        tables = self._tables()
        route = self.network.find(to, tables, ifindex if self.flags & _OUTPUT else 0) if tables else None
        if route is None:
            return _NOT_FORWARDED
        if route.kind != "unicast":
            return _REASONS.get(route.kind, _NOT_FORWARDED)
        return self._forward(route, to, checks_length)

    def _tables(self) -> tuple[int, ...]:
        if not self.flags & _DIRECT:
            return LOCAL_TABLE, MAIN_TABLE
        wanted = self.number(_VLAN_OR_TABLE, "<I") if self.flags & _TABLE else 0
        if wanted:
            struct.pack_into("<I", self.data, _VLAN_OR_TABLE, 0)
        table = wanted or MAIN_TABLE
        return (table,) if self.network.has_table(table) else ()

    def _forward(self, route: Route, to: Address, checks_length: bool) -> int:
        device = self.devices[route.device]
        mtu = min(device.mtu, _MAX_MTU[self.version]) if checks_length else 0
        if checks_length and self.number(_LENGTH, "<H") > mtu:
            struct.pack_into("<H", self.data, _LENGTH, mtu & 0xFFFF)
            return _TOO_LONG
        struct.pack_into("<I", self.data, _METRIC, route.priority)
        struct.pack_into("<I", self.data, _IFINDEX, route.device)
        gateway = ipaddress.ip_address(route.via) if route.via else to
        if self.flags & _SOURCE:
            source = self.network.source(route, gateway)
            if source is None and self.version == 6:
                return _NO_SOURCE
            self.put(_SOURCE_AT, source or ipaddress.IPv4Address(0))
        self.put(_TARGET_AT, gateway)
        if not self.flags & _SKIP_NEIGHBOUR:
            neighbour = self.network.neighbour(route.device, gateway)
            if neighbour is None:
                return _NO_NEIGHBOUR
            self.data[_RECEIVER : _RECEIVER + 6] = neighbour
            self.data[_SENDER : _SENDER + 6] = link_address(device.address)
        struct.pack_into("<I", self.data, _VLAN_OR_TABLE, 0)
        if mtu:
            struct.pack_into("<H", self.data, _LENGTH, mtu & 0xFFFF)
        return _SUCCESS


def _needs_its_link(address: Address) -> bool:
    """Whether an IPv6 address means something on its own link alone."""
    return address.is_multicast or address.is_link_local or address.is_loopback


@models("bpf_fib_lookup")
def fib_lookup(machine: Machine, context: int, place: int, size: int, flags: int, *_: int) -> int:
    """Where a packet would go: interface, gateway and link-layer addresses, or a reason of BPF_FIB_LKUP_RET_*."""
    flags &= M32
    if signed(size, 32) < _SIZE or flags & ~_KNOWN:
        return -errno.EINVAL
    data = bytearray(machine.read(place, _SIZE))
    if data[0] not in (_AF_INET, _AF_INET6):
        return -errno.EAFNOSUPPORT
    assert machine.program is not None
    is_xdp = machine.program.type == "xdp"
    lookup = _Lookup(machine, data, flags)
    checks = is_xdp or lookup.number(_LENGTH, "<H") != 0
    result = lookup.answer(checks)
    if result == _SUCCESS and not checks:
        result = _fits(machine, lookup)
    machine.write(place, data)
    return result


def _fits(machine: Machine, lookup: _Lookup) -> int:
    """Whether the packet itself is short enough for the interface, where no length was given."""
    mtu = lookup.devices[lookup.number(_IFINDEX, "<I")].mtu
    struct.pack_into("<H", lookup.data, _LENGTH, mtu & 0xFFFF)
    return _SUCCESS if len(data_of(machine)) <= mtu + ETHERNET + _VLAN else _TOO_LONG
