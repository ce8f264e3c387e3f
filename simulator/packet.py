"""What a run is given: the packet's bytes, and the fields of its context.

Invariant: what the kernel's test run refuses as input is refused here, with the same error number, for every engine.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from simulator.program import Program

MIN_PACKET = 14
"""Bytes of the shortest packet that a test run takes: an Ethernet header."""

PACKET_TYPES = frozenset(
    {
        "xdp", "socket_filter", "sched_cls", "sched_act", "cgroup_skb", "lwt_in", "lwt_out", "lwt_xmit",
        "lwt_seg6local", "sk_skb", "flow_dissector",
    }
)  # fmt: skip
"""The program types that run on a packet."""

_NO_FIELDS: Mapping[str, Any] = MappingProxyType({})


class InputRefused(ValueError):  # noqa: N818
    """An input that the kernel's test run refuses; `errno` is what it answers."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.errno = number

    def __str__(self) -> str:
        return f"{errno.errorcode.get(self.errno, self.errno)}: {self.args[0]}"


@dataclass(slots=True)
class Input:
    """The input of one run: a packet for the types that have one, and context fields by name. Nobody changes it; it is
    not frozen only because that takes longer to make.

    A field's value is an int, or bytes for an array; what is not named has the value of the kernel's own test run.
    """

    packet: bytes | None = None
    context: Mapping[str, Any] = field(default_factory=dict)


def as_input(program: Program, given: Any = None, context: Mapping[str, Any] = _NO_FIELDS) -> Input:
    """An Input from what `run` takes: None, bytes, a scapy packet, or a mapping of context fields.

    Raises InputRefused where the program type needs a packet and has none or one under 14 bytes, TypeError for what
    is none of these.
    """
    packet = given
    if given is None or type(given) is dict or isinstance(given, Mapping):
        packet = None
        if given:
            context = {**context, **given} if context else given
    elif not isinstance(given, bytes):
        packet = _bytes_of(given)
    if (packet is None or len(packet) < MIN_PACKET) and program.type in PACKET_TYPES:
        size = "no packet" if packet is None else f"a packet of {len(packet)} bytes"
        raise InputRefused(
            errno.EINVAL, f"a {program.type} run takes a packet of {MIN_PACKET} bytes or more, not {size}"
        )
    return Input(packet, context)


def _bytes_of(given: Any) -> bytes:
    if isinstance(given, (bytearray, memoryview)):
        return bytes(given)
    if hasattr(given, "build") or hasattr(given, "__bytes__"):
        return bytes(given)
    raise TypeError(f"a packet is bytes, a scapy packet or a mapping of context fields, not {type(given).__name__}")
