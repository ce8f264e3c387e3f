"""Helpers on dynptrs: over local memory, ring-buffer records and packets."""

from __future__ import annotations

import errno

from bpflisp.spec.alu import M32
from simulator import dynptrs
from simulator.dynptrs import LOCAL, RINGBUF, Dynptr
from simulator.helpers.registry import models
from simulator.helpers.ringbuf import finish, ring_of
from simulator.machine import Machine


@models("bpf_dynptr_from_mem")
def from_mem(machine: Machine, data: int, size: int, flags: int, to: int, *_: int) -> int:
    """Over memory of the program: a null one with E2BIG or EINVAL."""
    size &= M32
    wrong = -errno.E2BIG if size > dynptrs.MAX_SIZE else -errno.EINVAL if flags else 0
    dynptrs.write(machine, to, None if wrong else Dynptr(data, LOCAL, size))
    return wrong


@models("bpf_ringbuf_reserve_dynptr")
def reserve(machine: Machine, handle: int, size: int, flags: int, to: int, *_: int) -> int:
    """Over a new ring-buffer record: a null one with E2BIG, or EINVAL also where it does not fit."""
    size &= M32
    wrong = -errno.EINVAL if flags else -errno.E2BIG if size > dynptrs.MAX_SIZE else 0
    address = 0 if wrong else ring_of(machine, handle).reserve(size)
    if not address:
        dynptrs.write(machine, to, None)
        return wrong or -errno.EINVAL
    dynptrs.write(machine, to, Dynptr(address, RINGBUF, size))
    return 0


def _finish(machine: Machine, at: int, discard: bool) -> int:
    found = dynptrs.read(machine, at)
    if found is None:
        return 0
    finish(machine, found.data, discard)
    dynptrs.write(machine, at, None)
    return 0


@models("bpf_ringbuf_submit_dynptr")
def submit(machine: Machine, at: int, flags: int, *_: int) -> int:
    """Hands a record over."""
    return _finish(machine, at, discard=False)


@models("bpf_ringbuf_discard_dynptr")
def discard(machine: Machine, at: int, flags: int, *_: int) -> int:
    """Gives a record up."""
    return _finish(machine, at, discard=True)


@models("bpf_dynptr_read")
def read(machine: Machine, to: int, size: int, at: int, offset: int, flags: int) -> int:
    """Copies out of a dynptr: EINVAL for a null one or flags, E2BIG where it ends before."""
    size, offset, found = size & M32, offset & M32, dynptrs.read(machine, at)
    if found is None or flags:
        return -errno.EINVAL
    wrong = found.misfit(offset, size)
    if not wrong:
        machine.write(to, machine.read(found.address(machine, offset), size))
    return wrong


@models("bpf_dynptr_write")
def write(machine: Machine, at: int, offset: int, source: int, size: int, flags: int) -> int:
    """Copies into a dynptr: EINVAL for a null or read-only one, E2BIG where it ends before."""
    size, offset, found = size & M32, offset & M32, dynptrs.read(machine, at)
    if found is None or found.read_only or (flags and found.kind in (LOCAL, RINGBUF, dynptrs.XDP)):
        return -errno.EINVAL
    wrong = found.misfit(offset, size)
    if not wrong:
        machine.write(found.address(machine, offset), machine.read(source, size))
    return wrong


@models("bpf_dynptr_data")
def data(machine: Machine, at: int, offset: int, size: int, *_: int) -> int:
    """The address of bytes of a dynptr; 0 where they are not all in it, for a read-only one, and for a packet's."""
    size, offset, found = size & M32, offset & M32, dynptrs.read(machine, at)
    if found is None or found.read_only or found.misfit(offset, size) or found.kind not in (LOCAL, RINGBUF):
        return 0
    return found.address(machine, offset)
