"""Helpers that read and write memory of the kernel and of user space: what the test has put there, else a fault."""

from __future__ import annotations

import errno

from bpflisp.spec.alu import M32
from simulator.helpers.registry import models
from simulator.machine import Machine
from simulator.mocks import HostMemory

_USER_END = (1 << 47) - 4096
"""The first address after user space; what is below, helpers that serve both take for user memory (x86-64)."""
_KERNEL_START = 0xFFFF_8000_0000_0000
_VSYSCALL = 0xFFFF_FFFF_FF60_0000


def _no_memory(machine: Machine, source: HostMemory, address: int) -> int:
    """The error of a read where nothing is: ERANGE of the kernel's where no memory of its can be, else EFAULT."""
    kernel_s = source is machine.world.kernel_memory
    return -errno.ERANGE if kernel_s and not _may_be_kernel_s(address) else -errno.EFAULT


def _may_be_kernel_s(address: int) -> bool:
    return address >= _KERNEL_START and address & -4096 != _VSYSCALL


def _no_bytes(machine: Machine, source: HostMemory, address: int) -> int:
    """What a read of no bytes gives: only the address is looked at."""
    if machine.memory.region_at(address) is not None:
        return 0
    if source is machine.world.kernel_memory:
        return 0 if _may_be_kernel_s(address) else -errno.ERANGE
    return 0 if address <= _USER_END else -errno.EFAULT


def _copy(machine: Machine, source: HostMemory, to: int, size: int, address: int) -> int:
    """Copies, or fills the destination with zeros and reports the error, as the kernel does."""
    size &= M32
    if not size:
        return _no_bytes(machine, source, address)
    data = source.read(machine.memory, address, size)
    machine.write(to, bytes(size) if data is None else data)
    return _no_memory(machine, source, address) if data is None else 0


def _copy_string(machine: Machine, source: HostMemory, to: int, size: int, address: int) -> int:
    """Copies a string with its closing zero, cut to `size`: its length with the zero; an error where it cannot."""
    size &= M32
    if not size:
        return 0
    found = source.read_string(machine.memory, address, size - 1)
    if found is None:
        machine.write(to, bytes(size))
        return _no_memory(machine, source, address)
    machine.write(to, found + b"\0")
    return len(found) + 1


@models("bpf_probe_read_kernel")
def probe_read_kernel(machine: Machine, to: int, size: int, address: int, *_: int) -> int:
    """Copies kernel memory."""
    return _copy(machine, machine.world.kernel_memory, to, size, address)


@models("bpf_probe_read_user")
def probe_read_user(machine: Machine, to: int, size: int, address: int, *_: int) -> int:
    """Copies user memory."""
    return _copy(machine, machine.world.user_memory, to, size, address)


@models("bpf_copy_from_user")
def copy_from_user(machine: Machine, to: int, size: int, address: int, *_: int) -> int:
    """Copies user memory; of no bytes it does not even look at the address."""
    return _copy(machine, machine.world.user_memory, to, size, address) if size & M32 else 0


@models("bpf_probe_read")
def probe_read(machine: Machine, to: int, size: int, address: int, *_: int) -> int:
    """Copies memory of either: of the kernel's where that has it."""
    world = machine.world
    user = address < _USER_END or world.user_memory.read(machine.memory, address, size & M32) is not None
    user = user and world.kernel_memory.read(machine.memory, address, max(size & M32, 1)) is None
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
    """Copies a string of either: of the kernel's where that has it."""
    world = machine.world
    user = address < _USER_END or world.user_memory.read(machine.memory, address, 1) is not None
    user = user and world.kernel_memory.read(machine.memory, address, 1) is None
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


@models("bpf_copy_from_user_task")
def copy_from_user_task(machine: Machine, to: int, size: int, address: int, task: int, flags: int) -> int:
    """Copies user memory of a task: a world has one. EINVAL for flags."""
    if flags:
        return -errno.EINVAL
    return _copy(machine, machine.world.user_memory, to, size, address)
