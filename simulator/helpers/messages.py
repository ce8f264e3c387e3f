"""Helpers of sk_msg programs, on the message that a socket sends.

A program sees the first of the pieces that the message is in: all of it at first, as of one that was sent at once. What
is put in is a piece of its own and parts the one around it, as does what is taken out; pulling joins pieces.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

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


def _change(machine: Machine, data: bytes, pieces: Sequence[int]) -> None:
    """Another message in the place of this one, in these pieces."""
    machine.set_packet(data)
    machine.buffer.pieces = tuple(length for length in pieces if length)
    _window(machine, 0, next(iter(machine.buffer.pieces), 0))


def _parted(pieces: Sequence[int], at: int) -> tuple[list[int], list[int]]:
    """The pieces before a byte of the message, and those from there on; one that has bytes on both sides is parted."""
    before, after, start = list[int](), list[int](), 0
    for length in pieces:
        inside = min(max(at - start, 0), length)
        before.append(inside)
        after.append(length - inside)
        start += length
    return [length for length in before if length], [length for length in after if length]


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
    machine.buffer.pieces = _joined(machine.buffer.pieces, start, end)
    _window(machine, start, end)
    return 0


def _joined(pieces: Sequence[int], start: int, end: int) -> tuple[int, ...]:
    """The pieces, those that have bytes from start to end as one."""
    before, within, after, at = list[int](), 0, list[int](), 0
    for length in pieces:
        if at + length <= start:
            before.append(length)
        elif at < end:
            within += length
        else:
            after.append(length)
        at += length
    return (*before, within, *after)


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
    before, after = _parted(machine.buffer.pieces, start)
    _change(machine, data[:start] + bytes(size) + data[start:], (*before, size, *after))
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
    before, after = _parted(machine.buffer.pieces, start)[0], _parted(machine.buffer.pieces, start + size)[1]
    _change(machine, data[:start] + data[start + size :], (*before, *after))
    return 0
