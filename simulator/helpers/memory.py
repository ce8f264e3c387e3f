"""Helpers that read and write memory of the kernel and of user space: what the test has put there, else a fault."""

from __future__ import annotations

import errno

from bpflisp.spec.alu import M32
from simulator.helpers.registry import models
from simulator.machine import Machine
from simulator.mocks import HostMemory


def _copy(machine: Machine, source: HostMemory, to: int, size: int, address: int) -> int:
    """Copies, or fills the destination with zeros and reports EFAULT, as the kernel does."""
    size &= M32
    data = source.read(machine.memory, address, size)
    machine.write(to, bytes(size) if data is None else data)
    return -errno.EFAULT if data is None else 0


def _copy_string(machine: Machine, source: HostMemory, to: int, size: int, address: int) -> int:
    """Copies a string with its closing zero, cut to `size`: its length with the zero; EFAULT where it cannot."""
    size &= M32
    if not size:
        return 0
    found = source.read_string(machine.memory, address, size - 1)
    if found is None:
        machine.write(to, bytes(size))
        return -errno.EFAULT
    machine.write(to, found + b"\0")
    return len(found) + 1


@models("bpf_probe_read_kernel")
def probe_read_kernel(machine: Machine, to: int, size: int, address: int, *_: int) -> int:
    """Copies kernel memory."""
    return _copy(machine, machine.world.kernel_memory, to, size, address)


@models("bpf_probe_read_user", "bpf_copy_from_user")
def probe_read_user(machine: Machine, to: int, size: int, address: int, *_: int) -> int:
    """Copies user memory."""
    return _copy(machine, machine.world.user_memory, to, size, address)


@models("bpf_probe_read")
def probe_read(machine: Machine, to: int, size: int, address: int, *_: int) -> int:
    """Copies memory of either: user memory where that has it."""
    world = machine.world
    user = world.user_memory.read(machine.memory, address, size & M32) is not None
    return _copy(machine, world.user_memory if user else world.kernel_memory, to, size, address)


@models("bpf_probe_read_kernel_str")
def probe_read_kernel_str(machine: Machine, to: int, size: int, address: int, *_: int) -> int:
    """Copies a string of kernel memory."""
    return _copy_string(machine, machine.world.kernel_memory, to, size, address)


@models("bpf_probe_read_user_str")
def probe_read_user_str(machine: Machine, to: int, size: int, address: int, *_: int) -> int:
    """Copies a string of user memory."""
    return _copy_string(machine, machine.world.user_memory, to, size, address)


@models("bpf_probe_read_str")
def probe_read_str(machine: Machine, to: int, size: int, address: int, *_: int) -> int:
    """Copies a string of either: of user memory where that has it."""
    world = machine.world
    user = world.user_memory.read(machine.memory, address, 1) is not None
    return _copy_string(machine, world.user_memory if user else world.kernel_memory, to, size, address)


@models("bpf_probe_write_user")
def probe_write_user(machine: Machine, to: int, source: int, size: int, *_: int) -> int:
    """Writes to user memory: EPERM where the test has put none there."""
    data = machine.read(source, size & M32)
    return 0 if machine.world.user_memory.write(to, data) else -errno.EPERM


@models("bpf_get_current_task", "bpf_get_current_task_btf")
def current_task(machine: Machine, *_: int) -> int:
    """The address of the current task's struct: what the test gives it, usually in the world's kernel memory."""
    return machine.world.task.address
