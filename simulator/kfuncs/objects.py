"""Kernel functions on objects that a program allocates, and on the lists and trees that hold them."""

from __future__ import annotations

from bpflisp.spec.alu import M32
from bpflisp.spec.btf import BtfError
from simulator.kfuncs.registry import models
from simulator.machine import HelperFault, Machine
from simulator.managed import managed_fields

_TRUE = 0xFF
"""The bits of r0 that a callback's answer is in: the kernel calls it as a function that returns a bool."""


def _allocate(machine: Machine, type_id: int, copies: int) -> int:
    btf = machine.program.btf if machine.program else None
    if btf is None:
        raise HelperFault("a program that allocates objects needs its own BTF")
    try:
        size, fields = btf.size_of(type_id & M32), managed_fields(btf, type_id & M32)
    except BtfError as error:
        raise HelperFault(f"an object of type {type_id & M32}: {error}") from None
    return machine.world.objects.allocate(f"object of type {type_id & M32}", size, fields, copies)


@models("bpf_obj_new_impl", "bpf_obj_new")
def obj_new(machine: Machine, type_id: int, *_: int) -> int:
    """The address of a new object of a type of the program's BTF."""
    return _allocate(machine, type_id, 0)


@models("bpf_percpu_obj_new_impl", "bpf_percpu_obj_new")
def percpu_obj_new(machine: Machine, type_id: int, *_: int) -> int:
    """The same with a copy for each CPU."""
    return _allocate(machine, type_id, machine.world.cpus)


@models("bpf_obj_drop_impl", "bpf_obj_drop", "bpf_percpu_obj_drop_impl", "bpf_percpu_obj_drop")
def obj_drop(machine: Machine, address: int, *_: int) -> int:
    """Lets a reference go."""
    machine.world.objects.release(address)
    return 0


@models("bpf_refcount_acquire_impl", "bpf_refcount_acquire")
def refcount_acquire(machine: Machine, address: int, *_: int) -> int:
    """One more reference to an object that counts them."""
    return machine.world.objects.share(address)


# Lists.


@models("bpf_list_push_front_impl", "bpf_list_push_front")
def list_push_front(machine: Machine, head: int, node: int, *_: int) -> int:
    """Puts a node first: EINVAL where it is in a list or tree already."""
    return machine.world.objects.insert(head, node, 0)


@models("bpf_list_push_back_impl", "bpf_list_push_back")
def list_push_back(machine: Machine, head: int, node: int, *_: int) -> int:
    """Puts a node last."""
    return machine.world.objects.insert(head, node, None)


def _end(machine: Machine, head: int, index: int, take: bool) -> int:
    nodes = machine.world.objects.nodes_of(head)
    if not nodes:
        return 0
    return machine.world.objects.take(head, nodes[index]) if take else nodes[index]


@models("bpf_list_pop_front")
def list_pop_front(machine: Machine, head: int, *_: int) -> int:
    """Takes the first node out; 0 where there is none."""
    return _end(machine, head, 0, take=True)


@models("bpf_list_pop_back")
def list_pop_back(machine: Machine, head: int, *_: int) -> int:
    """Takes the last node out."""
    return _end(machine, head, -1, take=True)


@models("bpf_list_front", "bpf_rbtree_first")
def first(machine: Machine, head: int, *_: int) -> int:
    """The first node, left in."""
    return _end(machine, head, 0, take=False)


@models("bpf_list_back")
def list_back(machine: Machine, head: int, *_: int) -> int:
    """The last node, left in."""
    return _end(machine, head, -1, take=False)


# Trees. What a tree looks like inside (bpf_rbtree_root, _left, _right) is not modelled: only the order of its nodes is.


@models("bpf_rbtree_add_impl", "bpf_rbtree_add")
def rbtree_add(machine: Machine, root: int, node: int, less: int, *_: int) -> int:
    """Puts a node where the program's function says: EINVAL where it is in a list or tree already."""

    def before(one: int, other: int) -> bool:
        return bool(machine.call_function(less, (one, other)) & _TRUE)

    return machine.world.objects.insert_sorted(root, node, before)


@models("bpf_rbtree_remove")
def rbtree_remove(machine: Machine, root: int, node: int, *_: int) -> int:
    """Takes a node out; 0 where it is not in this tree."""
    return machine.world.objects.take(root, node)
