"""Helpers that run functions of the program, or keep others from running: loops, timers, locks."""

from __future__ import annotations

import errno

from bpflisp.spec.alu import M32
from simulator.helpers.registry import models
from simulator.machine import Machine

_MAX_LOOPS = 1 << 23
_CLOCKS = frozenset({0, 1, 7})
"""CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME."""


@models("bpf_loop")
def loop(machine: Machine, count: int, callback: int, context: int, flags: int, *_: int) -> int:
    """Calls a function of the program with 0, 1, ... until it returns 1; how often it was called."""
    count &= M32
    if flags:
        return -errno.EINVAL
    if count > _MAX_LOOPS:
        # The kernel writes the loop out in the program, where this is a 32-bit move.
        return -errno.E2BIG & M32
    for index in range(count):
        if machine.call_function(callback, (index, context)):
            return index + 1
    return count


@models("bpf_spin_lock", "bpf_spin_unlock")
def spin_lock(machine: Machine, lock: int, *_: int) -> int:
    """Nothing: one program runs at a time. The lock's bytes have to be there."""
    machine.read(lock, 4)
    return 0


@models("bpf_timer_init")
def timer_init(machine: Machine, timer: int, handle: int, flags: int, *_: int) -> int:
    """Makes a timer: EINVAL for an unknown clock, EBUSY for one that is made already."""
    if flags not in _CLOCKS:
        return -errno.EINVAL
    return machine.world.timers.init(timer, machine.map_of(handle))


@models("bpf_timer_set_callback")
def timer_set_callback(machine: Machine, timer: int, callback: int, *_: int) -> int:
    """Says which function of the program the timer runs."""
    call = machine.call_function
    return machine.world.timers.set_callback(timer, lambda arguments: call(callback, arguments))


@models("bpf_timer_start")
def timer_start(machine: Machine, timer: int, delay: int, flags: int, *_: int) -> int:
    """Lets a timer run out in `delay` ns, or at that time (flag 1). It does when the world's clock gets there."""
    if flags & ~3:
        return -errno.EINVAL
    now = machine.world.clock.now
    return machine.world.timers.start(timer, delay if flags & 1 else now + delay)


@models("bpf_timer_cancel")
def timer_cancel(machine: Machine, timer: int, *_: int) -> int:
    """Stops a timer: 1 where it was running, 0 where not."""
    return machine.world.timers.cancel(timer)
