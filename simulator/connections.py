"""Connections that a world tracks: struct nf_conn as programs read it, found by the addresses of either direction.

Invariant: what programs write to a connection is in its bytes, which are laid out as in kernel 6.18.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from simulator.memory import Memory, Region

AF_INET, AF_INET6 = 2, 10
TCP, UDP = 6, 17
ORIGINAL, REPLY = 0, 1
CONFIRMED: Final = 1 << 3

_SIZE, _TIMEOUT, _ZONE, _STATUS, _MARK = 248, 8, 12, 128, 168
_TUPLES: Final = (32, 88)
"""Where the tuples of the two directions are: source and destination, twenty bytes each."""
_ADDRESS, _PORT, _FAMILY, _PROTOCOL, _DIRECTION = 16, 16, 18, 38, 39

ANY_ZONE: Final = (0, 3)
"""The zone of what is given none: its number, and the directions in which it counts, as bits."""

Zone = tuple[int, int]
Ends = tuple[bytes, bytes]
"""Address and port of the source, and of the destination, as in a packet: each address, then two bytes."""


class Connection:
    """One connection. `memory` holds its structure; a test reads and sets `mark`, `status` and `timeout` there."""

    def __init__(self, memory: Memory, ends: Ends, protocol: int, zone: Zone = ANY_ZONE) -> None:
        self.region: Region = memory.allocate("connection", _SIZE)
        view = self.region.view
        self.zone = zone
        view[_ZONE : _ZONE + 4] = zone[0].to_bytes(2, "little") + bytes([0, zone[1]])
        for direction, (source, destination) in enumerate((ends, ends[::-1])):
            at = _TUPLES[direction]
            self.put_end(direction, 0, source)
            self.put_end(direction, 20, destination)
            family = AF_INET if len(source) == 6 else AF_INET6
            view[at + _FAMILY : at + _FAMILY + 2] = family.to_bytes(2, "little")
            view[at + _PROTOCOL], view[at + _DIRECTION] = protocol, direction

    def put_end(self, direction: int, side: int, end: bytes) -> None:
        """Sets the source (0) or the destination (20) of a direction."""
        at, view = _TUPLES[direction] + side, self.region.view
        view[at : at + _ADDRESS] = end[:-2].ljust(_ADDRESS, b"\0")
        view[at + _PORT : at + _PORT + 2] = end[-2:]

    def tuple_of(self, direction: int) -> bytes:
        """What a direction is found by: ends, family and protocol."""
        at = _TUPLES[direction]
        return bytes(self.region.view[at : at + _DIRECTION]) + _zone_of(self.zone, direction)

    @property
    def address(self) -> int:
        """Where programs find it."""
        return self.region.base

    @property
    def mark(self) -> int:
        """Its mark."""
        return self._number(_MARK, 4)

    @mark.setter
    def mark(self, value: int) -> None:
        self._set(_MARK, 4, value)

    @property
    def status(self) -> int:
        """Its state, as bits of enum ip_conntrack_status."""
        return self._number(_STATUS, 8)

    @status.setter
    def status(self, value: int) -> None:
        self._set(_STATUS, 8, value)

    @property
    def timeout(self) -> int:
        """The tick at which it ends, of 32 bits; before it is confirmed, ticks from then on."""
        return self._number(_TIMEOUT, 4)

    @timeout.setter
    def timeout(self, value: int) -> None:
        self._set(_TIMEOUT, 4, value & 0xFFFF_FFFF)

    def _number(self, at: int, size: int) -> int:
        return int.from_bytes(self.region.view[at : at + size], "little")

    def _set(self, at: int, size: int, value: int) -> None:
        self.region.view[at : at + size] = value.to_bytes(size, "little")


class Connections:
    """Those of a world that are confirmed, and those that a program has made and not inserted yet."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.known: list[Connection] = []
        self.fresh: dict[int, Connection] = {}

    def __iter__(self) -> Iterator[Connection]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)

    def add(self, source: str, source_port: int, to: str, to_port: int, kind: str = "tcp", mark: int = 0) -> Connection:
        """A connection that is there before a program runs: addresses as text, ports in host order."""
        ends = _end(source, source_port), _end(to, to_port)
        made = Connection(self._memory, ends, TCP if kind == "tcp" else UDP)
        made.mark, made.status = mark, CONFIRMED
        self.known.append(made)
        return made

    def make(self, ends: Ends, protocol: int, zone: Zone) -> Connection:
        """One that a program makes."""
        made = Connection(self._memory, ends, protocol, zone)
        self.fresh[made.address] = made
        return made

    def at(self, address: int) -> Connection | None:
        """The one at an address."""
        return self.fresh.get(address) or next((one for one in self.known if one.address == address), None)

    def find(self, ends: Ends, protocol: int, zone: Zone) -> tuple[Connection, int] | None:
        """The one that a packet between these ends is of, and its direction."""
        for direction in (ORIGINAL, REPLY):
            like = _found_by(ends, protocol) + _zone_of(zone, direction)
            for one in self.known:
                if one.tuple_of(direction) == like:
                    return one, direction
        return None


def _zone_of(zone: Zone, direction: int) -> bytes:
    """The zone's number in a direction: 0 where it does not count."""
    return (zone[0] if zone[1] >> direction & 1 else 0).to_bytes(2, "little")


def _found_by(ends: Ends, protocol: int) -> bytes:
    """What `Connection.tuple_of` begins with for a packet between these ends."""
    family = AF_INET if len(ends[0]) == 6 else AF_INET6
    source, destination = (end[:-2].ljust(_ADDRESS, b"\0") + end[-2:] for end in ends)
    return source + family.to_bytes(2, "little") + destination + bytes([protocol])


def _end(address: str, port: int) -> bytes:
    return ipaddress.ip_address(address).packed + port.to_bytes(2, "big")
