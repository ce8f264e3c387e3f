"""Helpers of tracing programs: stacks, signals, cookies, return values."""

from __future__ import annotations

import errno
import struct

from bpflisp.spec.alu import M32, signed
from simulator.helpers.registry import models
from simulator.machine import HelperFault, Machine
from simulator.maps.stack_trace import StackTraceMap

_SKIP, _USER_STACK, _KNOWN_STACKID = 0xFF, 1 << 8, 0x7FF
_KNOWN_STACK = 0xFF | 1 << 8 | 1 << 11
_NO_SIGNAL = 0


@models("bpf_get_stackid")
def get_stackid(machine: Machine, context: int, handle: int, flags: int, *_: int) -> int:
    """Keeps the current stack in a map: its id there. EINVAL for unknown flags, EFAULT for an empty stack."""
    found = machine.map_of(handle)
    if not isinstance(found, StackTraceMap):
        raise HelperFault(f"stacks are kept in a stack_trace map, not in {found!r}")
    if flags & ~_KNOWN_STACKID:
        return -errno.EINVAL
    return found.add(_stack(machine, flags), flags)


@models("bpf_get_stack")
def get_stack(machine: Machine, context: int, to: int, size: int, flags: int, *_: int) -> int:
    """Writes the addresses of the current stack, zeros behind them: how many bytes they are."""
    size &= M32
    if flags & ~_KNOWN_STACK or size % 8:
        machine.write(to, bytes(size))
        return -errno.EINVAL
    addresses = _stack(machine, flags)[: size // 8]
    machine.write(to, struct.pack(f"<{len(addresses)}Q", *addresses).ljust(size, b"\0"))
    return len(addresses) * 8


@models("bpf_get_task_stack")
def get_task_stack(machine: Machine, task: int, to: int, size: int, flags: int, *_: int) -> int:
    """The same of a task: a world has one."""
    return get_stack(machine, 0, to, size, flags, 0)


@models("bpf_find_vma")
def find_vma(machine: Machine, task: int, address: int, callback: int, context: int, flags: int) -> int:
    """Shows the area of the task's memory that an address is in to a function of the program: ENOENT for none."""
    if flags or not task:
        return -errno.EINVAL
    for start, end, area in machine.world.task.areas:
        if start <= address < end:
            machine.call_function(callback, (task, area, context))
            return 0
    return -errno.ENOENT


def _stack(machine: Machine, flags: int) -> tuple[int, ...]:
    task = machine.world.task
    whole = task.user_stack if flags & _USER_STACK else task.kernel_stack
    return tuple(whole)[flags & _SKIP :]


@models("bpf_send_signal", "bpf_send_signal_thread")
def send_signal(machine: Machine, number: int, *_: int) -> int:
    """Sends the current task a signal: it is then in `task.signals`."""
    number = signed(number, 32)
    if not 0 <= number <= 64:
        return -errno.EINVAL
    if number != _NO_SIGNAL:
        machine.world.task.signals.append(number)
    return 0


@models("bpf_get_attach_cookie")
def get_attach_cookie(machine: Machine, *_: int) -> int:
    """The number that the program was attached with."""
    return machine.world.attach_cookie


@models("bpf_get_func_ip")
def get_func_ip(machine: Machine, *_: int) -> int:
    """The address of the traced function."""
    return machine.world.function_address


@models("bpf_get_retval")
def get_retval(machine: Machine, *_: int) -> int:
    """What the programs before this one made of the call: their error."""
    return machine.retval


@models("bpf_set_retval")
def set_retval(machine: Machine, value: int, *_: int) -> int:
    """Sets the error that the call gives."""
    machine.retval = signed(value, 32)
    return 0


@models("bpf_override_return")
def override_return(machine: Machine, context: int, value: int, *_: int) -> int:
    """Lets the traced function return at once: what, is then the outcome's `redirect`."""
    machine.redirect = ("return", value)
    return 0


@models("bpf_per_cpu_ptr")
def per_cpu_ptr(machine: Machine, address: int, cpu: int, *_: int) -> int:
    """An object's copy of another CPU; a kernel variable's, where the test's one stands for all. 0: no such CPU."""
    return _copy_of(machine, address, cpu & M32) if cpu & M32 < machine.world.cpus else 0


@models("bpf_this_cpu_ptr")
def this_cpu_ptr(machine: Machine, address: int, *_: int) -> int:
    """The same of this CPU."""
    return _copy_of(machine, address, machine.world.cpu)


def _copy_of(machine: Machine, address: int, cpu: int) -> int:
    found = machine.world.objects.allocated.get(address)
    return address + cpu * found.per_cpu if found is not None else address


@models("bpf_kptr_xchg")
def kptr_xchg(machine: Machine, place: int, pointer: int, *_: int) -> int:
    """Puts a pointer into a field of a value or object: what was there before."""
    before = machine.read(place, 8)
    machine.write(place, pointer.to_bytes(8, "little"))
    return int.from_bytes(before, "little")
