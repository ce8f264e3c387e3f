"""Helpers on sockets: looking them up in the world, and what programs ask of the ones that they have."""

from __future__ import annotations

import errno
import ipaddress
import struct
from dataclasses import dataclass

from bpflisp.spec.alu import M32, signed
from simulator.helpers.registry import models
from simulator.machine import Machine
from simulator.maps.sockets import SocketMap
from simulator.sockets import TCP_LISTEN, Socket

_IPV4_TUPLE, _IPV6_TUPLE = 12, 36
_ANY_NETNS = -1
_SK_PASS = 1
_SK_DROP = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a lookup is for, as the packet has it: from where, to where."""

    source: str
    source_port: int
    target: str
    target_port: int

    def finds(self, socket: Socket) -> bool:
        """Whether the socket is the connection's own."""
        return (socket.remote, socket.remote_port, socket.local, socket.local_port) == (
            self.source, self.source_port, self.target, self.target_port,
        )  # fmt: skip

    def reaches(self, socket: Socket) -> bool:
        """Whether the socket takes what comes for that address and port from anyone."""
        anywhere = ipaddress.ip_address(socket.local).is_unspecified
        return not socket.remote and socket.local_port == self.target_port and (anywhere or socket.local == self.target)


def _wanted(data: bytes) -> Wanted:
    size = 4 if len(data) == _IPV4_TUPLE else 16
    source, target = data[:size], data[size : 2 * size]
    source_port, target_port = struct.unpack_from(">HH", data, 2 * size)
    return Wanted(str(ipaddress.ip_address(source)), source_port, str(ipaddress.ip_address(target)), target_port)


def _find(machine: Machine, kind: str, place: int, size: int, netns: int, flags: int) -> int:
    """The address of the socket that a tuple is for; 0 where there is none, or the kernel refuses the question."""
    size = size & M32
    network = signed(netns, 64)
    if flags or size not in (_IPV4_TUPLE, _IPV6_TUPLE) or not (network < 0 or network <= (1 << 31) - 1):
        return 0
    wanted = _wanted(machine.read(place, size))
    candidates = [socket for socket in machine.world.sockets if socket.kind == kind]
    found = next((socket for socket in candidates if wanted.finds(socket)), None)
    found = found or next((socket for socket in candidates if wanted.reaches(socket)), None)
    return found.address if found is not None else 0


@models("bpf_sk_lookup_tcp", "bpf_skc_lookup_tcp")
def sk_lookup_tcp(machine: Machine, context: int, place: int, size: int, netns: int, flags: int) -> int:
    """The TCP socket that a packet with these addresses and ports would get to."""
    return _find(machine, "tcp", place, size, netns, flags)


@models("bpf_sk_lookup_udp")
def sk_lookup_udp(machine: Machine, context: int, place: int, size: int, netns: int, flags: int) -> int:
    """The same for UDP."""
    return _find(machine, "udp", place, size, netns, flags)


@models("bpf_sk_release")
def sk_release(machine: Machine, socket: int, *_: int) -> int:
    """Lets a socket go."""
    return 0


@models("bpf_sk_fullsock")
def sk_fullsock(machine: Machine, socket: int, *_: int) -> int:
    """The socket itself: those here are full ones."""
    return socket


@models("bpf_get_listener_sock")
def get_listener_sock(machine: Machine, socket: int, *_: int) -> int:
    """The socket itself if it listens, else 0."""
    found = socket_at(machine, socket)
    return socket if found is not None and found.state == TCP_LISTEN else 0


@models("bpf_tcp_sock")
def tcp_sock(machine: Machine, socket: int, *_: int) -> int:
    """What TCP knows of a socket: the address of its struct bpf_tcp_sock, 0 of one that is not TCP's."""
    found = socket_at(machine, socket)
    return found.tcp_address if found is not None else 0


def socket_at(machine: Machine, address: int) -> Socket | None:
    """The world's socket at this address, None where there is none."""
    return next((socket for socket in machine.world.sockets if socket.address == address), None)


@models("bpf_sk_assign")
def sk_assign(machine: Machine, context: int, socket: int, flags: int, *_: int) -> int:
    """Gives the packet to a socket: EINVAL for flags of TC, EOPNOTSUPP on the way out."""
    assert machine.program is not None
    if machine.program.type != "sk_lookup" and flags:
        return -errno.EINVAL
    machine.redirect = ("socket", socket)
    return 0


@models("bpf_get_socket_cookie")
def get_socket_cookie(machine: Machine, context: int, *_: int) -> int:
    """A number of the socket's own: of the world's sockets theirs, of the packet's the world's first."""
    found = socket_at(machine, context)
    return found.cookie if found is not None else 1


@models("bpf_get_netns_cookie")
def get_netns_cookie(machine: Machine, *_: int) -> int:
    """The number of the network namespace: a world has one."""
    return 1


@models("bpf_get_socket_uid")
def get_socket_uid(machine: Machine, *_: int) -> int:
    """The user that owns the packet's socket: the current task's."""
    return machine.world.task.uid


@models("bpf_sk_redirect_map", "bpf_msg_redirect_map", "bpf_sk_redirect_hash", "bpf_msg_redirect_hash")
def sk_redirect(machine: Machine, context: int, handle: int, key: int, flags: int, *_: int) -> int:
    """To a socket of a map: SK_PASS, or SK_DROP where the map has none there or the flags are unknown."""
    found = machine.map_of(handle)
    if flags & ~1 or not isinstance(found, SocketMap):
        return _SK_DROP
    raw = (key & M32).to_bytes(4, "little") if found.indexed else machine.read(key, found.definition.key_size)
    if found.socket_at(raw) is None:
        return _SK_DROP
    machine.redirect = (found.name, int.from_bytes(raw, "little"))
    return _SK_PASS


@models("bpf_sk_select_reuseport")
def sk_select_reuseport(machine: Machine, context: int, handle: int, key: int, flags: int, *_: int) -> int:
    """Chooses the socket of a group: EINVAL for flags, ENOENT where the map has none there."""
    found = machine.map_of(handle)
    if flags:
        return -errno.EINVAL
    raw = machine.read(key, found.definition.key_size)
    if not isinstance(found, SocketMap) or found.socket_at(raw) is None:
        return -errno.ENOENT
    machine.redirect = (found.name, int.from_bytes(raw, "little"))
    return 0
