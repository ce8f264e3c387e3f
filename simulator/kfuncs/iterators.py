"""Kernel functions that iterate: over numbers, and over the bits of words."""

from __future__ import annotations

import errno
import struct

from bpflisp.spec.alu import M32, signed
from simulator.kfuncs.registry import models
from simulator.machine import Machine

_MAX_LOOPS = 1 << 23
_MAX_WORDS = 511
_NUMBERS = struct.Struct("<ii")


@models("bpf_iter_num_new")
def iter_num_new(machine: Machine, at: int, start: int, end: int, *_: int) -> int:
    """Begins to count: EINVAL where start is beyond end, E2BIG for more than 8 million numbers."""
    first, last = signed(start, 32), signed(end, 32)
    wrong = -errno.EINVAL if first > last else -errno.E2BIG if last - first > _MAX_LOOPS else 0
    machine.write(at, bytes(8) if wrong else _NUMBERS.pack(signed(first - 1, 32), last))
    return wrong


@models("bpf_iter_num_next")
def iter_num_next(machine: Machine, at: int, *_: int) -> int:
    """The address of the next number, 0 after the last."""
    current, end = _NUMBERS.unpack(machine.read(at, 8))
    if current + 1 >= end:
        machine.write(at, bytes(8))
        return 0
    machine.write(at, _NUMBERS.pack(current + 1, end))
    return at


@models("bpf_iter_num_destroy")
def iter_num_destroy(machine: Machine, at: int, *_: int) -> int:
    """Ends it."""
    machine.write(at, bytes(8))
    return 0


@models("bpf_iter_bits_new")
def iter_bits_new(machine: Machine, at: int, words: int, count: int, *_: int) -> int:
    """Begins to go through the bits of words in kernel memory: EINVAL for none, E2BIG for over 511, EFAULT."""
    count &= M32
    machine.write(at, bytes(16))
    machine.bits.pop(at, None)
    if not words or not count:
        return -errno.EINVAL
    if count > _MAX_WORDS:
        return -errno.E2BIG
    data = machine.world.kernel_memory.read(machine.memory, words, count * 8)
    if data is None:
        return -errno.EFAULT
    number = int.from_bytes(data, "little")
    machine.bits[at] = [index for index in range(count * 64 - 1, -1, -1) if number >> index & 1]
    return 0


@models("bpf_iter_bits_next")
def iter_bits_next(machine: Machine, at: int, *_: int) -> int:
    """The address of the next bit's number, 0 after the last."""
    left = machine.bits.get(at)
    if not left:
        return 0
    machine.write(at + 8, left.pop().to_bytes(4, "little"))
    return at + 8


@models("bpf_iter_bits_destroy")
def iter_bits_destroy(machine: Machine, at: int, *_: int) -> int:
    """Ends it."""
    machine.bits.pop(at, None)
    return 0
