"""Resilient spin locks: one program runs at a time, so that only a lock that it has itself is refused."""

from __future__ import annotations

import errno

from simulator.kfuncs.registry import models
from simulator.machine import Machine

_NOTED = 31


@models("bpf_res_spin_lock", "bpf_res_spin_lock_irqsave")
def res_spin_lock(machine: Machine, lock: int, *_: int) -> int:
    """Takes a lock: EDEADLK for one that the program has, or ETIMEDOUT where it has more than the kernel notes."""
    machine.read(lock, 4)
    if lock in machine.locks:
        return -errno.EDEADLK if machine.locks.index(lock) < _NOTED else -errno.ETIMEDOUT
    machine.locks.append(lock)
    return 0


@models("bpf_res_spin_unlock", "bpf_res_spin_unlock_irqrestore")
def res_spin_unlock(machine: Machine, lock: int, *_: int) -> int:
    """Gives it back."""
    if lock in machine.locks:
        machine.locks.remove(lock)
    return 0
