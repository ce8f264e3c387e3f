"""Helpers on local storage: values of sockets, tasks, inodes and cgroups."""

from __future__ import annotations

import errno

from simulator.helpers.registry import models
from simulator.machine import HelperFault, Machine
from simulator.maps.storages import Storage

_CREATE = 1


def _storage(machine: Machine, handle: int) -> Storage:
    found = machine.map_of(handle)
    if not isinstance(found, Storage):
        raise HelperFault(f"local storage is wanted, not {found!r}")
    return found


@models("bpf_get_local_storage")
def get_local_storage(machine: Machine, handle: int, *_: int) -> int:
    """The value of the cgroup that the program is attached to: the current task's."""
    return _storage(machine, handle).make(machine.world.task.cgroup_id, cpu=machine.world.cpu)


@models("bpf_sk_storage_get", "bpf_task_storage_get", "bpf_inode_storage_get", "bpf_cgrp_storage_get")
def storage_get(machine: Machine, handle: int, owner: int, value: int, flags: int, *_: int) -> int:
    """The address of an owner's value; flag 1 makes it, with the given value or zeros. 0 where there is none."""
    storage = _storage(machine, handle)
    if not owner or flags & ~_CREATE:
        return 0
    if storage.find(owner) or not flags:
        return storage.find(owner)
    return storage.make(owner, machine.read(value, storage.definition.value_size) if value else b"")


@models("bpf_sk_storage_delete", "bpf_task_storage_delete", "bpf_inode_storage_delete", "bpf_cgrp_storage_delete")
def storage_delete(machine: Machine, handle: int, owner: int, *_: int) -> int:
    """Takes an owner's value away: ENOENT where it has none, EINVAL where there is no owner."""
    return _storage(machine, handle).drop(owner) if owner else -errno.EINVAL
