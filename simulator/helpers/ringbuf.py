"""Helpers that hand records to user space: ring buffers and perf events."""

from __future__ import annotations

import errno

from bpflisp.spec.alu import M32
from simulator import dynptrs
from simulator.helpers.registry import models
from simulator.machine import HelperFault, Machine
from simulator.maps.perf import PerfEventArray
from simulator.maps.ringbuf import RingBuffer
from simulator.maps.user_ringbuf import UserRingBuffer

_NO_WAKEUP, _FORCE_WAKEUP = 1, 2
_CURRENT_CPU = M32
_MAX_DRAINED = 128 << 10
_LENGTH_SHIFT, _LENGTH_BITS = 32, 20


@models("bpf_ringbuf_reserve")
def reserve(machine: Machine, handle: int, size: int, flags: int, *_: int) -> int:
    """The address of a new record, 0 where it does not fit."""
    return 0 if flags else ring_of(machine, handle).reserve(size)


@models("bpf_ringbuf_submit")
def submit(machine: Machine, record: int, flags: int, *_: int) -> int:
    """Hands a record over."""
    return finish(machine, record, discard=False)


@models("bpf_ringbuf_discard")
def discard(machine: Machine, record: int, flags: int, *_: int) -> int:
    """Gives a record up."""
    return finish(machine, record, discard=True)


@models("bpf_ringbuf_output")
def output(machine: Machine, handle: int, data: int, size: int, flags: int, *_: int) -> int:
    """Copies a record in: 0, EINVAL for unknown flags, EAGAIN where it does not fit."""
    if flags & ~(_NO_WAKEUP | _FORCE_WAKEUP):
        return -errno.EINVAL
    return ring_of(machine, handle).output(machine.read(data, size))


@models("bpf_ringbuf_query")
def query(machine: Machine, handle: int, what: int, *_: int) -> int:
    """A ring buffer's size or positions."""
    return ring_of(machine, handle).query(what)


@models("bpf_perf_event_output")
def perf_event_output(machine: Machine, context: int, handle: int, flags: int, data: int, size: int) -> int:
    """Copies a sample to the reader of a CPU, with as many bytes of the packet as the flags ask for."""
    found = machine.map_of(handle)
    if not isinstance(found, PerfEventArray):
        raise HelperFault(f"perf events through {found!r}")
    index, length = flags & M32, flags >> _LENGTH_SHIFT
    if length >> _LENGTH_BITS or (length and machine.packet is None):
        return -errno.EINVAL
    cpu = machine.world.cpu if index == _CURRENT_CPU else index
    sample = machine.read(data, size)
    if length:
        assert machine.packet is not None
        packet = bytes(machine.packet.view[machine.meta :])
        if length > len(packet):
            return -errno.EFAULT
        sample += packet[:length]
    return found.output(cpu, machine.world.cpu, sample)


@models("bpf_user_ringbuf_drain")
def user_ringbuf_drain(machine: Machine, handle: int, callback: int, context: int, flags: int, *_: int) -> int:
    """Gives what user space wrote to a function of the program, sample by sample, until it returns 1: how many."""
    found = machine.map_of(handle)
    if not isinstance(found, UserRingBuffer):
        raise HelperFault(f"a user ring buffer is wanted, not {found!r}")
    if flags & ~(_NO_WAKEUP | _FORCE_WAKEUP):
        return -errno.EINVAL
    drained = 0
    while found.samples and drained < _MAX_DRAINED:
        stop = _show(machine, found.samples.pop(0), callback, context)
        drained += 1
        if stop:
            break
    return drained


def _show(machine: Machine, sample: bytes, callback: int, context: int) -> int:
    """Calls a function with a dynptr over a sample: what it returns."""
    region = machine.memory.allocate("sample of a user ring buffer", max(1, len(sample)))
    place = machine.memory.allocate("dynptr of a sample", dynptrs.SIZE)
    region.view[: len(sample)] = sample
    try:
        dynptrs.write(machine, place.base, dynptrs.Dynptr(region.base, dynptrs.LOCAL, len(sample)))
        return machine.call_function(callback, (place.base, context))
    finally:
        machine.memory.free(region)
        machine.memory.free(place)


def ring_of(machine: Machine, handle: int) -> RingBuffer:
    """The ring buffer of a handle; a fault where it is another map."""
    found = machine.map_of(handle)
    if not isinstance(found, RingBuffer):
        raise HelperFault(f"a ring buffer is wanted, not {found!r}")
    return found


def finish(machine: Machine, record: int, discard: bool) -> int:
    """Submits or discards the record at an address. A fault where no ring buffer has one there."""
    for found in machine.world.handles.values():
        if isinstance(found, RingBuffer) and found.commit(record, discard):
            return 0
    raise HelperFault(f"no reserved record is at {record:#x}")
