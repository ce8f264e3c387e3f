"""Socket buffers: struct __sk_buff, for the program types that run on a packet in the stack.

As the kernel's test run has it: the packet is an Ethernet frame; only TC sees its Ethernet header, the other types
start at the network header, and get 14 zero bytes in its place back.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from struct import Struct
from types import MappingProxyType
from typing import Any, Final

from bpflisp.spec.contexts import access_table, struct
from simulator.buffer import Buffer
from simulator.contexts.base import get, known_field, put
from simulator.machine import Machine
from simulator.memory import CONTEXT_BASE, PACKET_BASE, PACKET_ROOM, SCRATCH_BASE, Region
from simulator.packet import Input, InputRefused

SKB_TYPES: Final = frozenset(
    {
        "socket_filter", "sched_cls", "sched_act", "cgroup_skb", "lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local",
        "sk_skb",
    }
)  # fmt: skip
_SEES_LINK_HEADER = frozenset({"sched_cls", "sched_act"})

HEADER = 14
MAX_METADATA = 252
"""Bytes of metadata that an XDP program can hand on."""

MAX_PACKET = 4096 - 64 - 320
"""Bytes of the longest packet: a page less the kernel's room before it and skb_shared_info after it."""

_IPV4, _IPV6 = 0x0800, 0x86DD
_LEAST = {_IPV4: 20, _IPV6: 40}
_HOST, _, _MULTICAST, _OTHER_HOST = range(4)
_AF_INET, _AF_INET6 = 2, 10
_MAX_WIRE, _MAX_SEGS = 65536, 65535

SKB: Final = struct("__sk_buff")
_SETTABLE = frozenset(
    {"mark", "priority", "ingress_ifindex", "ifindex", "cb", "tstamp", "wire_len", "gso_segs", "gso_size", "hwtstamp"}
)
# Fields that are of the simulation, not of the input: they hold addresses.
_OFFSETS = {field.name: field.offset for field in SKB.fields}
_SOCKET = struct("bpf_sock")
_SOCKET_OFFSETS = {field.name: field.offset for field in _SOCKET.fields}
_HEADROOM = 64
_MAX_QUEUE = 0xFFFF
_TCP_CLOSE, _NO_QUEUE = 7, 0xFFFFFFFF
_U32, _U64 = Struct("<I"), Struct("<Q")


class SkbModel:
    """The context of one program type that runs on an skb."""

    size = SKB.size
    known: Mapping[tuple[int, int], tuple[int, int]] = MappingProxyType(
        {
            (CONTEXT_BASE + 76, 4): (PACKET_BASE, PACKET_BASE),
            (CONTEXT_BASE + 80, 4): (PACKET_BASE, PACKET_BASE + PACKET_ROOM),
            (CONTEXT_BASE + 140, 4): (PACKET_BASE, PACKET_BASE),
        }
    )

    def __init__(self, prog_type: str, attach_type: str) -> None:
        self.link_header = prog_type in _SEES_LINK_HEADER
        table = access_table(prog_type, attach_type)
        writes = table.writes if table else frozenset()
        self._written = [field for field in SKB.fields if any(field.offset == offset for offset, _ in writes)]

    def enter_packet(self, machine: Machine, packet: bytes) -> Sequence[int]:
        """Puts a packet with nothing else in place."""
        return self.enter(machine, Input(packet, {}))

    def enter(self, machine: Machine, given: Input) -> Sequence[int]:
        """Puts packet and __sk_buff in place."""
        frame = given.packet
        assert frame is not None
        if len(frame) > MAX_PACKET:
            raise InputRefused(errno.EINVAL, f"a packet of {len(frame)} bytes: a test run takes {MAX_PACKET} at most")
        data, header = (frame, b"") if self.link_header else (frame[HEADER:], frame[:HEADER])
        metadata, context = self._metadata(given.context)
        machine.set_packet(metadata + data, len(metadata))
        machine.link_header, machine.network_offset = header, HEADER
        machine.buffer = Buffer(_HEADROOM if self.link_header else _HEADROOM + HEADER)
        fields = bytearray(SKB.size)
        socket = bytearray(_SOCKET.size)
        _describe(fields, socket, frame)
        machine.memory.put(Region("socket", SCRATCH_BASE, socket, writable=False))
        _U64.pack_into(fields, _OFFSETS["sk"], SCRATCH_BASE)
        if context:
            _given(fields, context, len(data))
        machine.set_context(fields)
        self.packet_changed(machine)
        return (CONTEXT_BASE,)

    def _metadata(self, context: Mapping[str, Any]) -> tuple[bytes, Mapping[str, Any]]:
        """What an XDP program left before the packet, given as bytes in `data_meta`, and the other fields."""
        found = context.get("data_meta")
        if not isinstance(found, bytes):
            return b"", context
        if not self.link_header or len(found) % 4 or len(found) > MAX_METADATA:
            raise InputRefused(
                errno.EINVAL, f"data_meta is up to {MAX_METADATA} bytes in words of 4, of TC programs, not {len(found)}"
            )
        return found, {name: value for name, value in context.items() if name != "data_meta"}

    def leave(self, machine: Machine) -> tuple[bytes | None, Mapping[str, int]]:
        """The frame after the run; of types that do not see the Ethernet header, zeros in its place."""
        assert machine.packet is not None
        assert machine.context is not None
        header = b"" if self.link_header else bytes(HEADER)
        view = machine.context.view
        written: dict[str, int] = {}
        for field in self._written:
            written[field.name] = get(view, field)
        _narrow(written)
        return header + bytes(machine.packet.view[machine.meta :]), written

    def packet_changed(self, machine: Machine) -> None:
        """New pointers and length in __sk_buff."""
        assert machine.packet is not None
        assert machine.context is not None
        view = machine.context.view
        data = PACKET_BASE + machine.meta
        for name, value in (("data", data), ("data_end", machine.packet.end), ("data_meta", PACKET_BASE)):
            view[_OFFSETS[name] : _OFFSETS[name] + 4] = value.to_bytes(4, "little")
        view[0:4] = (machine.packet.end - data).to_bytes(4, "little")


def _narrow(written: dict[str, int]) -> None:
    """What the kernel keeps of fields that are wider in __sk_buff than in its own structures."""
    for name in ("tc_index", "tc_classid"):
        if name in written:
            written[name] &= 0xFFFF
    if written.get("queue_mapping", 0) >= _MAX_QUEUE:
        written["queue_mapping"] = 0


def _put(fields: bytearray, name: str, value: Any) -> None:
    put(fields, known_field(SKB, name), value)


def _describe(fields: bytearray, socket: bytearray, frame: bytes) -> None:
    """What the kernel reads off the frame: kind of packet, protocol, addresses of the socket that it makes for it."""
    protocol = int.from_bytes(frame[12:14], "big")
    if protocol < 0x600:
        protocol = 1 if frame[14:16] == b"\xff\xff" else 4
    if len(frame) - HEADER < _LEAST.get(protocol, 0):
        raise InputRefused(errno.EINVAL, f"an IP packet of {len(frame) - HEADER} bytes is shorter than its header")
    _U32.pack_into(fields, _OFFSETS["protocol"], protocol >> 8 | (protocol & 0xFF) << 8)
    _U32.pack_into(fields, _OFFSETS["pkt_type"], _kind(frame[:6]))
    _U32.pack_into(fields, _OFFSETS["ifindex"], 1)
    _U32.pack_into(socket, _SOCKET_OFFSETS["state"], _TCP_CLOSE)
    _U32.pack_into(socket, _SOCKET_OFFSETS["rx_queue_mapping"], _NO_QUEUE)
    if protocol in _LEAST:
        family, local, remote = _addresses(protocol, frame)
        version = 4 if family == _AF_INET else 6
        _U32.pack_into(fields, _OFFSETS["family"], family)
        _U32.pack_into(socket, _SOCKET_OFFSETS["family"], family)
        for data, offset, value in (
            (fields, _OFFSETS[f"local_ip{version}"], local), (fields, _OFFSETS[f"remote_ip{version}"], remote),
            (socket, _SOCKET_OFFSETS[f"src_ip{version}"], local), (socket, _SOCKET_OFFSETS[f"dst_ip{version}"], remote),
        ):  # fmt: skip
            data[offset : offset + len(value)] = value


def _addresses(protocol: int, frame: bytes) -> tuple[int, bytes, bytes]:
    """Family, and the addresses that the test run gives its socket: source is local, destination remote."""
    if protocol == _IPV4:
        return _AF_INET, frame[26:30], frame[30:34]
    return _AF_INET6, frame[22:38], frame[38:54]


def _kind(destination: bytes) -> int:
    """Of a frame that came in on the loopback device, whose address is zero."""
    # The loopback device has no broadcast address of its own: one of all ones is to it one more of a group.
    if destination[0] & 1:
        return _MULTICAST
    return _OTHER_HOST if any(destination) else _HOST


def _given(fields: bytearray, context: Mapping[str, Any], size: int) -> None:
    """Fields that the test gives, by the rules of the kernel's test run."""
    for name, value in context.items():
        field = known_field(SKB, name)
        if name.partition("[")[0] not in _SETTABLE and value:
            raise InputRefused(
                errno.EINVAL, f"field {name} of __sk_buff cannot be given; these can: {sorted(_SETTABLE)}"
            )
        put(fields, field, value)
    wire_len = int(context.get("wire_len", 0)) or size
    if not size <= wire_len <= _MAX_WIRE or int(context.get("gso_segs", 0)) > _MAX_SEGS:
        raise InputRefused(errno.EINVAL, f"wire_len {wire_len} or gso_segs is out of range for {size} bytes")
    _put(fields, "wire_len", wire_len)
    if not context.get("ifindex"):
        _put(fields, "ifindex", 1)
