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
    *folders, last = name.split(b"/")
    at = 0
    for part in [] if flags & _BASE_NAME else [part for folder in folders for part in (folder, b"/")]:
        if not _copy_text(machine, to + at, part, size - at):
            return -errno.E2BIG
        at += len(part)
    return at + len(last) if _copy_text(machine, to + at, last, size - at) else -errno.E2BIG


def _copy_text(machine: Machine, to: int, text: bytes, room: int) -> bool:
    """Writes a text and a zero, as far as there is room; whether there was.

    The kernel copies eight bytes at a time while there is room for them: zeros fill the last eight.
    """
    whole = text + bytes(8 - len(text) % 8)
    if len(whole) > room:
        whole = (text + b"\0")[:room]
        whole = whole[:-1] + b"\0"
    machine.write(to, whole)
    return len(text) < room


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
