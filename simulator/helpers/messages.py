"""Helpers of sk_msg programs, on the message that a socket sends.

The program sees the whole message; the kernel shows it the first of the pieces that it came in, until it pulls more.
"""

from __future__ import annotations

import errno

from bpflisp.spec.alu import M32
from bpflisp.spec.contexts import struct
from simulator.helpers.packet import data_of
from simulator.helpers.registry import models
from simulator.machine import Machine
from simulator.memory import PACKET_BASE

_DATA, _DATA_END, _SIZE = (struct("sk_msg_md").field(name) for name in ("data", "data_end", "size"))


@models("bpf_msg_apply_bytes", "bpf_msg_cork_bytes")
def apply_bytes(machine: Machine, context: int, size: int, *_: int) -> int:
    """How many bytes the verdict is for, or are to come before the program is asked again."""
    return 0


def _change(machine: Machine, data: bytes) -> None:
    machine.set_packet(data)
    _window(machine, 0, len(data))


def _window(machine: Machine, start: int, end: int) -> None:
    """Shows the program these bytes, and tells it the message's length."""
    assert machine.context is not None
    size = len(data_of(machine))
    for field, value in ((_DATA, PACKET_BASE + start), (_DATA_END, PACKET_BASE + end), (_SIZE, size)):
        assert field is not None
        machine.context.view[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")


@models("bpf_msg_pull_data")
def pull_data(machine: Machine, context: int, start: int, end: int, flags: int, *_: int) -> int:
    """Shows the bytes from start to end: EINVAL where the message ends before."""
    start, end = start & M32, end & M32
    if flags or end <= start or end > len(data_of(machine)):
        return -errno.EINVAL
    _window(machine, start, end)
    return 0


@models("bpf_msg_push_data")
def push_data(machine: Machine, context: int, start: int, size: int, flags: int, *_: int) -> int:
    """Puts zeros in: EINVAL behind the message's end."""
    data, start, size = data_of(machine), start & M32, size & M32
    if flags:
        return -errno.EINVAL
    if not size:
        return 0
    if start > len(data):
        return -errno.EINVAL
    _change(machine, data[:start] + bytes(size) + data[start:])
    return 0


@models("bpf_msg_pop_data")
def pop_data(machine: Machine, context: int, start: int, size: int, flags: int, *_: int) -> int:
    """Takes bytes out: EINVAL where the message ends before."""
    data, start, size = data_of(machine), start & M32, size & M32
    if flags:
        return -errno.EINVAL
    if not size:
        return 0
    if start + size > len(data):
        return -errno.EINVAL
    _change(machine, data[:start] + data[start + size :])
    return 0
