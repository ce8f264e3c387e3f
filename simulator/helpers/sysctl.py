"""Helpers of cgroup_sysctl programs: the name and the values of the system control that is read or written."""

from __future__ import annotations

import errno

from bpflisp.spec.alu import M32
from simulator.helpers.registry import models
from simulator.machine import Machine

_BASE_NAME = 1
_MAX_VALUE = 4095


@models("bpf_sysctl_get_name")
def get_name(machine: Machine, context: int, to: int, size: int, flags: int, *_: int) -> int:
    """Writes the name, as "net/ipv4/tcp_mem", or (flag 1) its last part: its length; E2BIG where it was cut."""
    name, size = machine.sysctl["name"], size & M32
    if not to or not size:
        return -errno.EINVAL
    if flags & _BASE_NAME:
        name = name.rpartition(b"/")[2]
    machine.write(to, name[: size - 1].ljust(size, b"\0"))
    return len(name) if len(name) < size else -errno.E2BIG


def _value(machine: Machine, value: bytes, to: int, size: int) -> int:
    """The length of a value, written with a zero behind it; E2BIG where it was cut, EINVAL where there is none."""
    size &= M32
    if not to:
        return -errno.EINVAL
    if not size:
        return -errno.E2BIG
    if not value:
        machine.write(to, bytes(size))
        return -errno.EINVAL
    if size > len(value):
        machine.write(to, value.ljust(size, b"\0"))
        return len(value)
    machine.write(to, value[: size - 1] + b"\0")
    return -errno.E2BIG


@models("bpf_sysctl_get_current_value")
def get_current_value(machine: Machine, context: int, to: int, size: int, *_: int) -> int:
    """What it is now."""
    return _value(machine, machine.sysctl["current_value"], to, size)


@models("bpf_sysctl_get_new_value")
def get_new_value(machine: Machine, context: int, to: int, size: int, *_: int) -> int:
    """What it is to be: EINVAL where it is only read."""
    return _value(machine, machine.sysctl["new_value"], to, size)


@models("bpf_sysctl_set_new_value")
def set_new_value(machine: Machine, context: int, source: int, size: int, *_: int) -> int:
    """Sets what it is to be: EINVAL where it is only read, E2BIG for more than a page."""
    size &= M32
    if not machine.sysctl["new_value"] or not source or not size:
        return -errno.EINVAL
    if size > _MAX_VALUE:
        return -errno.E2BIG
    machine.sysctl["new_value"] = machine.read(source, size)
    return 0
