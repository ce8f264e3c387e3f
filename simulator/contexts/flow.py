"""Flow dissectors: struct __sk_buff with the keys that the program fills in, struct bpf_flow_keys."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from bpflisp.spec.contexts import struct
from simulator.contexts.base import get, known_field, put
from simulator.machine import Machine
from simulator.memory import CONTEXT_BASE, PACKET_BASE, PACKET_ROOM, SCRATCH_BASE, Region
from simulator.packet import Input, InputRefused

_SKB, _KEYS = struct("__sk_buff"), struct("bpf_flow_keys")
_HEADER = 14
_DATA, _DATA_END, _KEYS_AT = 76, 80, 144
_KNOWN_FLAGS = 7


class FlowModel:
    """The context of flow dissectors, as the kernel's test run has it: the network header is behind Ethernet's.

    The keys are the outcome's fields. Only their `flags` can be given.
    """

    size = _SKB.size
    known: Final[Mapping[tuple[int, int], tuple[int, int]]] = MappingProxyType(
        {
            (CONTEXT_BASE + _DATA, 4): (PACKET_BASE, PACKET_BASE),
            (CONTEXT_BASE + _DATA_END, 4): (PACKET_BASE, PACKET_BASE + PACKET_ROOM),
        }
    )

    def enter_packet(self, machine: Machine, packet: bytes) -> Sequence[int]:
        """Puts a packet with nothing else in place."""
        return self.enter(machine, Input(packet, {}))

    def enter(self, machine: Machine, given: Input) -> Sequence[int]:
        """Puts packet, __sk_buff and keys in place."""
        frame = given.packet
        assert frame is not None
        machine.set_packet(frame)
        machine.link_header, machine.network_offset, machine.headroom = b"", _HEADER, 0
        keys = bytearray(_KEYS.size)
        for name, value in given.context.items():
            field = known_field(_KEYS, name)
            if value and (name != "flags" or int(value) & ~_KNOWN_FLAGS):
                raise InputRefused(
                    errno.EINVAL, f"of a flow dissector's keys only flags up to {_KNOWN_FLAGS} are given"
                )
            put(keys, field, value)
        keys[0:2] = keys[2:4] = _HEADER.to_bytes(2, "little")
        protocol = known_field(_KEYS, "n_proto")
        keys[protocol.offset : protocol.offset + 2] = frame[12:14]
        machine.memory.put(Region("flow keys", SCRATCH_BASE, keys))
        fields = bytearray(_SKB.size)
        fields[_KEYS_AT : _KEYS_AT + 8] = SCRATCH_BASE.to_bytes(8, "little")
        machine.set_context(fields)
        self.packet_changed(machine)
        return (CONTEXT_BASE,)

    def leave(self, machine: Machine) -> tuple[bytes | None, Mapping[str, int]]:
        """The keys, their offsets brought inside the packet as the kernel does."""
        assert machine.packet is not None
        keys = bytearray(machine.memory.read(SCRATCH_BASE, _KEYS.size))
        end, least = machine.packet.size, _HEADER
        for name in ("nhoff", "thoff"):
            field = known_field(_KEYS, name)
            place = slice(field.offset, field.offset + field.size)
            least = min(max(int.from_bytes(keys[place], "little"), least), end)
            keys[place] = least.to_bytes(2, "little")
        view = memoryview(keys)
        return None, {field.name: get(view, field) for field in _KEYS.fields}

    def packet_changed(self, machine: Machine) -> None:
        """The packet's bounds in __sk_buff."""
        assert machine.packet is not None
        assert machine.context is not None
        view = machine.context.view
        view[_DATA : _DATA + 4] = PACKET_BASE.to_bytes(4, "little")
        view[_DATA_END : _DATA_END + 4] = machine.packet.end.to_bytes(4, "little")
