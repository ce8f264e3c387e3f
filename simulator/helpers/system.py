"""Helpers that ask the world: time, randomness, CPU, the current task."""

from __future__ import annotations

import errno
import struct

from bpflisp.spec.alu import signed
from simulator.helpers.registry import models
from simulator.machine import Machine

_JIFFY = 4_000_000
"""Nanoseconds of a tick at CONFIG_HZ=250."""

_INITIAL_JIFFIES = (1 << 32) - 300 * 250
"""Where the kernel starts to count, so that 32 bits wrap five minutes after boot."""


@models("bpf_ktime_get_ns", "bpf_ktime_get_boot_ns")
def ktime(machine: Machine, *_: int) -> int:
    """Nanoseconds since boot."""
    return machine.world.clock.read()


@models("bpf_ktime_get_coarse_ns")
def ktime_coarse(machine: Machine, *_: int) -> int:
    """Nanoseconds since boot, as of the last tick."""
    return machine.world.clock.read() // _JIFFY * _JIFFY


@models("bpf_ktime_get_tai_ns")
def ktime_tai(machine: Machine, *_: int) -> int:
    """Nanoseconds of international atomic time: the wall clock, the kernel's offset being 0 until it is set."""
    clock = machine.world.clock
    wall = clock.wall
    clock.read()
    return wall


@models("bpf_jiffies64")
def jiffies(machine: Machine, *_: int) -> int:
    """Ticks, counted from five minutes before a 32-bit overflow."""
    return ticks(machine)


def ticks(machine: Machine) -> int:
    """The number of the current tick."""
    return machine.world.clock.read() // _JIFFY + _INITIAL_JIFFIES


@models("bpf_get_prandom_u32")
def prandom(machine: Machine, *_: int) -> int:
    """32 random bits, from the world's seed."""
    return machine.world.random.getrandbits(32)


@models("bpf_get_smp_processor_id")
def processor(machine: Machine, *_: int) -> int:
    """The CPU that the program runs on."""
    return machine.world.cpu


@models("bpf_get_numa_node_id")
def numa_node(machine: Machine, *_: int) -> int:
    """The memory node of that CPU: a world has one."""
    return 0


@models("bpf_get_current_pid_tgid")
def pid_tgid(machine: Machine, *_: int) -> int:
    """The task's process id in the upper half, its thread id in the lower."""
    task = machine.world.task
    return task.tgid << 32 | task.pid


@models("bpf_get_current_uid_gid")
def uid_gid(machine: Machine, *_: int) -> int:
    """The task's group id in the upper half, its user id in the lower."""
    task = machine.world.task
    return task.gid << 32 | task.uid


@models("bpf_get_current_comm")
def comm(machine: Machine, buffer: int, size: int, *_: int) -> int:
    """Writes the task's name, cut and filled up with zeros to the buffer's size."""
    size &= 0xFFFFFFFF
    if not size:
        return -errno.EINVAL
    name = machine.world.task.comm.encode()[: min(15, size - 1)]
    machine.write(buffer, name.ljust(size, b"\0"))
    return 0


@models("bpf_get_current_cgroup_id")
def cgroup_id(machine: Machine, *_: int) -> int:
    """The id of the task's cgroup."""
    return machine.world.task.cgroup_id


@models("bpf_get_current_ancestor_cgroup_id")
def current_ancestor_cgroup_id(machine: Machine, level: int, *_: int) -> int:
    """The id of the cgroup at a level above the task's, counted from the root; 0 for no such level."""
    task, level = machine.world.task, signed(level, 32)
    path = (*task.cgroup_ancestors, task.cgroup_id)
    return path[level] if 0 <= level < len(path) else 0


@models("bpf_skb_ancestor_cgroup_id", "bpf_sk_ancestor_cgroup_id")
def socket_ancestor_cgroup_id(machine: Machine, context: int, level: int, *_: int) -> int:
    """The same of a socket's cgroup: the task's."""
    return current_ancestor_cgroup_id(machine, level, 0, 0, 0, 0)


@models("bpf_get_ns_current_pid_tgid")
def ns_pid_tgid(machine: Machine, device: int, inode: int, to: int, size: int, *_: int) -> int:
    """Writes the task's process and thread id; EINVAL for another namespace than the world's, and another size."""
    task, size = machine.world.task, size & 0xFFFFFFFF
    if size != 8 or (device, inode) != task.pid_namespace:
        machine.write(to, bytes(size))
        return -errno.EINVAL
    machine.write(to, struct.pack("<II", task.pid, task.tgid))
    return 0
