"""Kernel functions on dynptrs."""

from __future__ import annotations

import errno

from bpflisp.spec.alu import M32
from simulator import dynptrs
from simulator.dynptrs import SKB, SKB_META, XDP, Dynptr
from simulator.helpers.packet import data_of
from simulator.kfuncs.registry import models
from simulator.machine import Machine


def _over_packet(machine: Machine, kind: int, flags: int, to: int) -> int:
    if flags:
        dynptrs.write(machine, to, None)
        return -errno.EINVAL
    assert machine.program is not None
    read_only = kind == SKB and machine.program.type in ("socket_filter", "cgroup_skb", "lwt_in", "lwt_out")
    dynptrs.write(machine, to, Dynptr(1, kind, len(data_of(machine)), 0, read_only))
    return 0


@models("bpf_dynptr_from_skb")
def dynptr_from_skb(machine: Machine, context: int, flags: int, to: int, *_: int) -> int:
    """A dynptr over a socket buffer."""
    return _over_packet(machine, SKB, flags, to)


@models("bpf_dynptr_from_xdp")
def dynptr_from_xdp(machine: Machine, context: int, flags: int, to: int, *_: int) -> int:
    """A dynptr over an XDP frame."""
    return _over_packet(machine, XDP, flags, to)


@models("bpf_dynptr_from_skb_meta")
def dynptr_from_skb_meta(machine: Machine, context: int, flags: int, to: int, *_: int) -> int:
    """A dynptr over the metadata that an XDP program left in front of the packet."""
    dynptrs.write(machine, to, None if flags else Dynptr(1, SKB_META, machine.meta))
    return -errno.EINVAL if flags else 0


@models("bpf_dynptr_slice", "bpf_dynptr_slice_rdwr")
def dynptr_slice(machine: Machine, at: int, offset: int, buffer: int, size: int, *_: int) -> int:
    """The address of bytes of a dynptr, 0 where they are not all in it."""
    found, offset, size = dynptrs.read(machine, at), offset & M32, size & M32
    if found is None or found.misfit(offset, size):
        return 0
    return found.address(machine, offset)


@models("bpf_dynptr_size")
def dynptr_size(machine: Machine, at: int, *_: int) -> int:
    """Its bytes; EINVAL for a null one."""
    found = dynptrs.read(machine, at)
    return -errno.EINVAL if found is None else found.size


@models("bpf_dynptr_is_null")
def dynptr_is_null(machine: Machine, at: int, *_: int) -> int:
    """Whether it is a null one."""
    return int(dynptrs.read(machine, at) is None)


@models("bpf_dynptr_is_rdonly")
def dynptr_is_rdonly(machine: Machine, at: int, *_: int) -> int:
    """Whether it is read-only; not for a null one."""
    found = dynptrs.read(machine, at)
    return int(found is not None and found.read_only)


@models("bpf_dynptr_adjust")
def dynptr_adjust(machine: Machine, at: int, start: int, end: int, *_: int) -> int:
    """Narrows it to the bytes from start to end: EINVAL or ERANGE where that is not inside."""
    found, start, end = dynptrs.read(machine, at), start & M32, end & M32
    if found is None or start > end:
        return -errno.EINVAL
    if start > found.size or end > found.size:
        return -errno.ERANGE
    found.offset, found.size = found.offset + start, end - start
    dynptrs.write(machine, at, found)
    return 0


@models("bpf_dynptr_clone")
def dynptr_clone(machine: Machine, at: int, to: int, *_: int) -> int:
    """A second one over the same bytes; a null one with EINVAL of a null one."""
    found = dynptrs.read(machine, at)
    dynptrs.write(machine, to, found)
    return -errno.EINVAL if found is None else 0


@models("bpf_dynptr_copy")
def dynptr_copy(machine: Machine, to: int, to_offset: int, source: int, offset: int, size: int) -> int:
    """Copies from one to another."""
    target, found, size = dynptrs.read(machine, to), dynptrs.read(machine, source), size & M32
    if target is None or found is None or target.read_only:
        return -errno.EINVAL
    wrong = target.misfit(to_offset & M32, size) or found.misfit(offset & M32, size)
    if not wrong:
        data = machine.read(found.address(machine, offset & M32), size)
        machine.write(target.address(machine, to_offset & M32), data)
    return wrong


@models("bpf_dynptr_memset")
def dynptr_memset(machine: Machine, at: int, offset: int, size: int, value: int, *_: int) -> int:
    """Fills bytes of it with one value."""
    found, offset, size = dynptrs.read(machine, at), offset & M32, size & M32
    if found is None or found.read_only:
        return -errno.EINVAL
    wrong = found.misfit(offset, size)
    if not wrong:
        machine.write(found.address(machine, offset), bytes([value & 0xFF]) * size)
    return wrong
