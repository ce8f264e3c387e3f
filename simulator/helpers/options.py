"""Socket options as programs set and read them, and the views of a socket by its kind."""

from __future__ import annotations

import errno
from typing import Final

from bpflisp.spec.alu import M32, signed
from bpflisp.spec.contexts import context_struct, struct
from simulator.helpers import option_rules as rules
from simulator.helpers.option_rules import SOL_IP, SOL_IPV6, SOL_SOCKET, SOL_TCP, Option
from simulator.helpers.registry import models
from simulator.helpers.sockets import socket_at
from simulator.machine import HelperFault, Machine
from simulator.maps.hash import ENOTSUPP
from simulator.maps.sockets import SocketMap
from simulator.sockets import Socket

_DEFAULT_CONGESTION = b"cubic"
_NAME_SIZE, _DEVICE_NAME_SIZE = 16, 16
_PLAIN: Final = Socket("0.0.0.0", 0)
"""What is known of a socket that a context was not given."""


def _socket(machine: Machine, context: int) -> int:
    """The address of the socket that a helper's first argument is or, being the context, has."""
    if machine.context is None or context != machine.context.base or machine.program is None:
        return context
    layout = context_struct(machine.program.type)
    field = layout.field("sk") if layout else None
    if field is None:
        return context
    return int.from_bytes(machine.context.view[field.offset : field.offset + field.size], "little")


def _option(socket: Socket, level: int, name: int) -> tuple[Option | None, int]:
    """What a socket has under a level and a number; else the error of asking for it."""
    found = rules.OPTIONS.get((level, name))
    if (level == SOL_TCP and socket.kind != "tcp") or (level == SOL_IPV6 and socket.version != 6):
        found = None
    if found is not None and (level, name) == (SOL_SOCKET, rules.REHASH) and socket.kind != "tcp":
        return None, -errno.EOPNOTSUPP
    return found, -errno.EINVAL


@models("bpf_setsockopt")
def setsockopt(machine: Machine, context: int, level: int, name: int, value: int, size: int) -> int:
    """Sets an option, which is then in the world's `options`: EINVAL for one that programs may not set."""
    level, name, size = signed(level, 32), signed(name, 32), signed(size, 32)
    data = machine.read(value, size) if size > 0 else b""
    place = (_socket(machine, context), level, name)
    socket = socket_at(machine, place[0]) or _PLAIN
    if (level, name) == (SOL_TCP, rules.CONGESTION) and socket.kind == "tcp":
        return _set_congestion(machine, place, data)
    if (level, name) == (SOL_SOCKET, rules.BIND_TO_DEVICE):
        return _bind_to_device(machine, place[0], data)
    if (level, name) == (SOL_TCP, rules.SAVED_SYN) and socket.kind == "tcp":
        return -errno.ENOPROTOOPT if size >= 4 else -errno.EINVAL
    option, refused = _option(socket, level, name)
    if option is None or size != 4:
        return refused
    number = int.from_bytes(data, "little", signed=True)
    kept = option.keep(number)
    if (level, name) == (SOL_IP, rules.SERVICE) and socket.kind == "udp":
        kept = number & 0xFF
    if (level, name) == (SOL_SOCKET, rules.RECEIVE_AT_LEAST):
        kept = _receive_at_least(machine, place[0], socket, number)
    if kept is None:
        return -errno.EINVAL
    if (level, name) == (SOL_TCP, rules.CALLBACK_FLAGS):
        _set_callbacks(machine, kept)
    machine.world.options[place] = (kept & M32).to_bytes(4, "little")
    return 0


def _set_congestion(machine: Machine, place: tuple[int, int, int], data: bytes) -> int:
    """The algorithm by its name: ENOENT for one that there is not."""
    if len(data) < 2:
        return -errno.EINVAL
    text = data[: _NAME_SIZE - 1].partition(b"\0")[0]
    if text == b"cdg":
        return -ENOTSUPP  # What it keeps of a socket is where the kernel keeps what a program does.
    if text not in rules.ALGORITHMS:
        return -errno.ENOENT
    machine.world.options[place] = text
    return 0


def _bind_to_device(machine: Machine, socket: int, data: bytes) -> int:
    """The device by its name, none for an empty one: ENODEV for one that the world has not."""
    name = data[: _DEVICE_NAME_SIZE - 1].partition(b"\0")[0].decode("latin-1")
    found = [index for index, device in machine.world.devices.items() if device.name == name]
    if name and not found:
        return -errno.ENODEV
    machine.world.options[socket, SOL_SOCKET, rules.BOUND_DEVICE] = (found[0] if name else 0).to_bytes(4, "little")
    return 0


def _receive_at_least(machine: Machine, address: int, socket: Socket, number: int) -> int:
    """No more than half of a buffer that was set; of UDP whatever is asked for."""
    if socket.kind == "udp":
        return (number if number >= 0 else (1 << 31) - 1) or 1
    wanted = rules.OPTIONS[SOL_SOCKET, rules.RECEIVE_AT_LEAST].keep(number) or 1
    buffer = machine.world.options.get((address, SOL_SOCKET, rules.RECEIVE_BUFFER))
    return min(wanted, int.from_bytes(buffer, "little") >> 1) if buffer else wanted


@models("bpf_getsockopt")
def getsockopt(machine: Machine, context: int, level: int, name: int, to: int, size: int) -> int:
    """Reads an option: as it was set, or as it is at first; zeros and EINVAL for one that programs may not read."""
    level, name, size = signed(level, 32), signed(name, 32), signed(size, 32)
    address = _socket(machine, context)
    known, socket = machine.world.options.get((address, level, name)), socket_at(machine, address) or _PLAIN
    if (level, name) == (SOL_TCP, rules.CONGESTION) and size > 1 and socket.kind == "tcp":
        text = (_DEFAULT_CONGESTION if known is None else known)[: size - 1]
        machine.write(to, text.ljust(size, b"\0"))
        return 0
    option, refused = _option(socket, level, name)
    if option is None or option.at_first is None or size != 4:
        machine.write(to, bytes(max(0, size)))
        return refused
    at_first = option.at_first if socket.kind == "tcp" or option.of_udp is None else option.of_udp
    machine.write(to, known if known is not None else (at_first & M32).to_bytes(4, "little"))
    return 0


@models("bpf_sock_ops_cb_flags_set")
def sock_ops_cb_flags_set(machine: Machine, context: int, flags: int, *_: int) -> int:
    """Asks for more calls of the program: the flags that there are not."""
    _set_callbacks(machine, flags & rules.ALL_CALLBACKS)
    return flags & M32 & ~rules.ALL_CALLBACKS


def _set_callbacks(machine: Machine, flags: int) -> None:
    """The events that the socket's programs are called for, as a program on socket events sees them."""
    if machine.program is None or machine.program.type != "sock_ops":
        return
    field = struct("bpf_sock_ops").field("bpf_sock_ops_cb_flags")
    assert field is not None
    assert machine.context is not None
    machine.context.view[field.offset : field.offset + field.size] = flags.to_bytes(field.size, "little")


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
