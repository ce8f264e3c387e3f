"""Socket options as programs set and read them, and the views of a socket by its kind."""

from __future__ import annotations

import errno
from typing import Final

from bpflisp.spec.alu import M32, signed
from bpflisp.spec.contexts import context_struct, struct
from simulator.helpers.registry import models
from simulator.helpers.sockets import socket_at
from simulator.machine import HelperFault, Machine
from simulator.maps.sockets import SocketMap

_SOL_IP, _SOL_SOCKET, _SOL_TCP, _SOL_IPV6 = 0, 1, 6, 41
_CONGESTION, _DEFAULT_CONGESTION, _CONGESTION_SIZE = 13, b"cubic", 16
_SNDBUF, _RCVBUF, _PACING = 7, 8, 47

_NUMBERS: Final = {
    _SOL_SOCKET: frozenset({2, 7, 8, 9, 12, 15, 18, 36, 47, 62, 74, 1009}),
    _SOL_TCP: frozenset({1, 2, 4, 5, 6, 7, 10, 16, 18, 25, 27, 1001, 1002, 1003, 1004, 1008}),
    _SOL_IP: frozenset({1}),
    _SOL_IPV6: frozenset({67, 70}),
}
"""Level -> the options that a program may set and that are a number of four bytes."""

_ALL_CALLBACKS = 0x7F

_TWICE: Final = frozenset({(_SOL_SOCKET, _SNDBUF), (_SOL_SOCKET, _RCVBUF)})
"""Options of which the kernel keeps twice what it is given."""


def _socket(machine: Machine, context: int) -> int:
    """The address of the socket that a helper's first argument is or, being the context, has."""
    if machine.context is None or context != machine.context.base or machine.program is None:
        return context
    layout = context_struct(machine.program.type)
    field = layout.field("sk") if layout else None
    if field is None:
        return context
    return int.from_bytes(machine.context.view[field.offset : field.offset + field.size], "little")


@models("bpf_setsockopt")
def setsockopt(machine: Machine, context: int, level: int, name: int, value: int, size: int) -> int:
    """Sets an option, which is then in the world's `options`: EINVAL for one that programs may not set."""
    level, name, size = signed(level, 32), signed(name, 32), signed(size, 32)
    data = machine.read(value, size) if size > 0 else b""
    place = (_socket(machine, context), level, name)
    if (level, name) == (_SOL_TCP, _CONGESTION):
        text = data[: _CONGESTION_SIZE - 1].partition(b"\0")[0]
        if size < 2:
            return -errno.EINVAL
        machine.world.options[place] = text
        return 0
    if name not in _NUMBERS.get(level, ()) or (size != 4 and (name != _PACING or size != 8)):
        return -errno.EINVAL
    if (level, name) in _TWICE:
        data = (2 * int.from_bytes(data, "little") & M32).to_bytes(4, "little")
    machine.world.options[place] = data
    return 0


@models("bpf_getsockopt")
def getsockopt(machine: Machine, context: int, level: int, name: int, to: int, size: int) -> int:
    """Reads an option that was set, 0 for others; zeros and EINVAL for one that programs may not read."""
    level, name, size = signed(level, 32), signed(name, 32), signed(size, 32)
    known = machine.world.options.get((_socket(machine, context), level, name))
    if (level, name) == (_SOL_TCP, _CONGESTION) and size > 1:
        text = (_DEFAULT_CONGESTION if known is None else known)[: size - 1]
        machine.write(to, text.ljust(size, b"\0"))
        return 0
    if name not in _NUMBERS.get(level, ()) or size not in (4, len(known or bytes(4))):
        machine.write(to, bytes(max(0, size)))
        return -errno.EINVAL
    machine.write(to, (known or b"")[:size].ljust(size, b"\0"))
    return 0


@models("bpf_sock_ops_cb_flags_set")
def sock_ops_cb_flags_set(machine: Machine, context: int, flags: int, *_: int) -> int:
    """Asks for more calls of the program: the flags that there are not."""
    field = struct("bpf_sock_ops").field("bpf_sock_ops_cb_flags")
    assert field is not None
    assert machine.context is not None
    known = flags & _ALL_CALLBACKS
    machine.context.view[field.offset : field.offset + field.size] = known.to_bytes(field.size, "little")
    return flags & M32 & ~_ALL_CALLBACKS


@models("bpf_sock_map_update", "bpf_sock_hash_update")
def sock_map_update(machine: Machine, context: int, handle: int, key: int, flags: int, *_: int) -> int:
    """Puts the socket of an event into a map."""
    found = machine.map_of(handle)
    if not isinstance(found, SocketMap):
        raise HelperFault(f"sockets are kept in a sockmap or sockhash, not in {found!r}")
    socket = socket_at(machine, _socket(machine, context))
    if socket is None:
        raise HelperFault("the event has no socket of the world's: give the context one, as sk=Socket(...)")
    return found.put(machine.read(key, found.definition.key_size), socket, flags)


# Views of a socket: its own address where it is of that kind, else 0.


def _of_kind(machine: Machine, address: int, kind: str, version: int) -> int:
    found = socket_at(machine, address)
    if found is None:
        # The plain socket of a context that was given none: an event's is TCP.
        return address if kind == "tcp" and version != 6 else 0
    return address if found.kind == kind and version in (0, found.version) else 0


@models("bpf_skc_to_tcp_sock")
def skc_to_tcp_sock(machine: Machine, address: int, *_: int) -> int:
    """The socket if it is TCP's."""
    return _of_kind(machine, address, "tcp", 0)


@models("bpf_skc_to_tcp6_sock")
def skc_to_tcp6_sock(machine: Machine, address: int, *_: int) -> int:
    """The socket if it is TCP's over IPv6."""
    return _of_kind(machine, address, "tcp", 6)


@models("bpf_skc_to_udp6_sock")
def skc_to_udp6_sock(machine: Machine, address: int, *_: int) -> int:
    """The socket if it is UDP's over IPv6."""
    return _of_kind(machine, address, "udp", 6)


@models("bpf_skc_to_tcp_timewait_sock", "bpf_skc_to_tcp_request_sock", "bpf_skc_to_unix_sock", "bpf_skc_to_mptcp_sock")
def skc_to_other(machine: Machine, *_: int) -> int:
    """0: a world has no such sockets."""
    return 0
