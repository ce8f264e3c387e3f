"""Kernel functions on tasks, cgroups and sockets: a world counts no references to them, so that these only hand on."""

from __future__ import annotations

import errno

from bpflisp.spec.alu import M32
from simulator.helpers.sockets import socket_at
from simulator.kfuncs.registry import models
from simulator.machine import Machine


@models("bpf_task_acquire", "bpf_cgroup_acquire", "bpf_rdonly_cast")
def itself(machine: Machine, address: int, *_: int) -> int:
    """The object itself."""
    return address


@models("bpf_task_release", "bpf_cgroup_release", "bpf_ct_release")
def let_go(machine: Machine, *_: int) -> int:
    """Nothing: what the test has put there stays."""
    return 0


@models("bpf_task_from_pid", "bpf_task_from_vpid")
def task_from_pid(machine: Machine, pid: int, *_: int) -> int:
    """The address of the current task if it has this number; 0 of any other: a world has one task."""
    task = machine.world.task
    return task.address if task.pid == pid & M32 else 0


@models("bpf_cast_to_kern_ctx")
def cast_to_kern_ctx(machine: Machine, context: int, *_: int) -> int:
    """What the kernel has where the program has a context: given by the test as the symbol "kernel context"."""
    return machine.world.symbols.get("kernel context", context)


@models("bpf_cgroup_from_id")
def cgroup_from_id(machine: Machine, number: int, *_: int) -> int:
    """The address of the task's cgroup if it has this id; 0 of any other."""
    task = machine.world.task
    return task.cgroup_address if task.cgroup_id == number else 0


@models("bpf_sock_destroy")
def sock_destroy(machine: Machine, address: int, *_: int) -> int:
    """Closes a socket of the world: no lookup finds it any more. EOPNOTSUPP for what is none of the world's."""
    found = socket_at(machine, address)
    if found is None:
        return -errno.EOPNOTSUPP
    machine.world.sockets.remove(found)
    return 0
