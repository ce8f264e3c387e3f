"""Contexts with a window on bytes, or with a socket: messages, options, reuseport groups, socket events and addresses.

The bytes are given as the packet is: `run(program, b"...", context={...})`, and come back as the outcome's packet.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bpflisp.spec.contexts import Field, Struct, struct
from simulator.buffer import Buffer
from simulator.contexts.base import known_field
from simulator.contexts.other import StructModel
from simulator.machine import Machine
from simulator.memory import PACKET_BASE, SCRATCH_BASE, Region
from simulator.packet import Input, InputRefused
from simulator.sockets import AF_INET, AF_INET6, Socket

WINDOWS: Final[Mapping[str, tuple[str, str, str]]] = {
    "sk_msg": ("data", "data_end", "size"),
    "sk_reuseport": ("data", "data_end", "len"),
    "sock_ops": ("skb_data", "skb_data_end", "skb_len"),
    "cgroup_sockopt": ("optval", "optval_end", ""),
}
"""Program type -> the fields that are the window's beginning and end, and the one that is its length."""

WITH_SOCKET: Final = frozenset({"cgroup_sock_addr", "cgroup_sockopt", "sock_ops", "sk_msg", "sk_reuseport"})
"""Program types whose context has a socket, which is never missing in the kernel."""

_SOCK = struct("bpf_sock")
_MAX_PORT = 0xFFFF


class WindowModel(StructModel):
    """A structure with a window, a socket, or both. A socket that is not given is a plain one without addresses."""

    def __init__(self, layout: Struct, prog_type: str, attach_type: str) -> None:
        super().__init__(layout, prog_type, attach_type)
        self._window = WINDOWS.get(prog_type)
        self._has_socket = prog_type in WITH_SOCKET

    def enter_packet(self, machine: Machine, packet: bytes) -> Sequence[int]:
        """Puts the window's bytes with nothing else in place."""
        return self.enter(machine, Input(packet, {}))

    def enter(self, machine: Machine, given: Input) -> Sequence[int]:
        """Puts structure, window and socket in place."""
        context = dict(given.context)
        data = b""
        if self._window:
            begin, end, _ = self._window
            data = context.pop(begin, b"") if isinstance(context.get(begin), bytes | bytearray) else given.packet or b""
            if begin in context or end in context:
                raise InputRefused(errno.EINVAL, f"{begin} and {end} are the window's: give its bytes as {begin}")
        elif given.packet is not None:
            raise InputRefused(errno.EINVAL, "a program of this type runs on a context, not on a packet")
        registers = super().enter(machine, Input(None, self._with_sockets(machine, context)))
        if self._window:
            machine.set_packet(data)
            machine.buffer = Buffer(pieces=(len(data),))
            self.packet_changed(machine)
            length = self._window[2]
            if length and length not in context:
                self._set(machine, known_field(self._layout, length), len(data))
        return registers

    def _with_sockets(self, machine: Machine, context: dict[str, Any]) -> dict[str, Any]:
        """Sockets as their addresses."""
        for name, value in context.items():
            if isinstance(value, Socket):
                if not value.address:
                    machine.world.add_socket(value)
                context[name] = value.address
        if self._has_socket and "sk" not in context:
            machine.memory.put(Region("socket", SCRATCH_BASE, bytearray(_SOCK.size), writable=False))
            context["sk"] = SCRATCH_BASE
        return context

    def leave(self, machine: Machine) -> tuple[bytes | None, Mapping[str, int]]:
        """The window's bytes after the run, and the fields that such programs may write."""
        fields = super().leave(machine)[1]
        return (bytes(machine.packet.view) if self._window and machine.packet is not None else None), fields

    def packet_changed(self, machine: Machine) -> None:
        """New ends of the window."""
        if self._window and machine.packet is not None:
            self._set(machine, known_field(self._layout, self._window[0]), PACKET_BASE)
            self._set(machine, known_field(self._layout, self._window[1]), machine.packet.end)

    @staticmethod
    def _set(machine: Machine, field: Field, value: int) -> None:
        assert machine.context is not None
        machine.context.view[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")


class SkLookupModel(StructModel):
    """struct bpf_sk_lookup by the rules of the kernel's test run: a family is needed, a socket cannot be given."""

    def enter(self, machine: Machine, given: Input) -> Sequence[int]:
        """Puts the structure in place, without the addresses of the other family."""
        context = {name: value for name, value in given.context.items() if name not in ("sk", "cookie") or value}
        if not context or "sk" in context or "cookie" in context or context.get("ingress_ifindex"):
            raise InputRefused(errno.EINVAL, "a lookup is given the fields from family to local_port, and no other")
        if int(context.get("local_port", 0)) > _MAX_PORT:
            raise InputRefused(errno.ERANGE, f"local_port is {_MAX_PORT} at most")
        family = context.get("family", 0)
        if family not in (AF_INET, AF_INET6):
            raise InputRefused(errno.EAFNOSUPPORT, f"family is {AF_INET} or {AF_INET6}, not {family}")
        other = "ip6" if family == AF_INET else "ip4"
        kept = {name: value for name, value in context.items() if other not in name}
        return super().enter(machine, Input(None, kept))


class SysctlModel(StructModel):
    """struct bpf_sysctl, and what the helpers give besides: `name`, `current_value`, and `new_value` of a write."""

    def enter(self, machine: Machine, given: Input) -> Sequence[int]:
        """Puts the structure in place, and the texts where the helpers find them."""
        context = dict(given.context)
        machine.sysctl = {key: _text(key, context.pop(key, b"")) for key in ("name", "current_value", "new_value")}
        if machine.sysctl["new_value"]:
            context.setdefault("write", 1)
        return super().enter(machine, Input(None, context))


def _text(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, bytes):
        raise InputRefused(errno.EINVAL, f"{name} of a sysctl is text, not {type(value).__name__}")
    return value
