"""Helpers on maps: elements, queues, iteration, tail calls."""

from __future__ import annotations

import errno

from bpflisp.spec.alu import M32
from simulator.helpers.registry import models
from simulator.machine import MAX_TAIL_CALLS, HelperFault, Machine
from simulator.maps.prog_array import ProgArray


@models("bpf_map_lookup_elem")
def lookup(machine: Machine, handle: int, key: int, *_: int) -> int:
    """The address of a value, 0 where there is none."""
    found = machine.map_of(handle)
    return found.address_of(machine.read(key, found.definition.key_size), machine.world.cpu)


@models("bpf_map_lookup_percpu_elem")
def lookup_percpu(machine: Machine, handle: int, key: int, cpu: int, *_: int) -> int:
    """The address of a value of another CPU, 0 where there is none or no such CPU."""
    found, wanted = machine.map_of(handle), cpu & M32
    if wanted >= machine.world.cpus:
        return 0
    return found.address_of(machine.read(key, found.definition.key_size), wanted)


@models("bpf_map_update_elem")
def update(machine: Machine, handle: int, key: int, value: int, flags: int, *_: int) -> int:
    """Sets a value: 0 or a negative error number."""
    found = machine.map_of(handle)
    made = found.definition
    data = machine.read(value, made.value_size)
    return found.store(machine.read(key, made.key_size), data, flags, machine.world.cpu)


@models("bpf_map_delete_elem")
def delete(machine: Machine, handle: int, key: int, *_: int) -> int:
    """Takes an element out: 0 or a negative error number."""
    found = machine.map_of(handle)
    return found.remove(machine.read(key, found.definition.key_size))


@models("bpf_map_push_elem")
def push(machine: Machine, handle: int, value: int, flags: int, *_: int) -> int:
    """Puts a value into a queue, stack or bloom filter."""
    found = machine.map_of(handle)
    return found.push(machine.read(value, found.definition.value_size), flags)


@models("bpf_map_pop_elem")
def pop(machine: Machine, handle: int, value: int, *_: int) -> int:
    """Takes the next value out of a queue or stack; zeros and ENOENT where it is empty."""
    return _taken(machine, handle, value, take=True)


@models("bpf_map_peek_elem")
def peek(machine: Machine, handle: int, value: int, *_: int) -> int:
    """Looks at the next value of a queue or stack; of a bloom filter, whether it may have the value."""
    return _taken(machine, handle, value, take=False)


def _taken(machine: Machine, handle: int, value: int, take: bool) -> int:
    found = machine.map_of(handle)
    size = found.definition.value_size
    result, data = found.pop(machine.read(value, size)) if take else found.peek(machine.read(value, size))
    if data is not None:
        machine.write(value, data)
    return result


@models("bpf_for_each_map_elem")
def for_each(machine: Machine, handle: int, callback: int, context: int, flags: int, *_: int) -> int:
    """Calls a function of the program for every element; the number of elements that it saw."""
    found = machine.map_of(handle)
    if flags:
        return -errno.EINVAL
    cpu, seen = machine.world.cpu, 0
    scratch = machine.memory.allocate("key of bpf_for_each_map_elem", found.definition.key_size)
    try:
        for key in list(found.keys()):
            address = found.address_of(key, cpu)
            if not address:
                continue
            scratch.view[:] = key
            seen += 1
            if machine.call_function(callback, (handle, scratch.base, address, context)):
                break
    finally:
        machine.memory.free(scratch)
    return seen


@models("bpf_tail_call")
def tail_call(machine: Machine, context: int, handle: int, index: int, *_: int) -> int:
    """Only a tail call that fails comes back from here: the engines themselves go on in the other program."""
    raise HelperFault("bpf_tail_call is the engine's affair")


def tail_target(machine: Machine, handle: int, index: int) -> object | None:
    """The program that a tail call goes to; None where it fails: no such entry, or 33 calls already."""
    found = machine.map_of(handle)
    if not isinstance(found, ProgArray):
        raise HelperFault(f"a tail call through {found!r}: only a prog array has programs")
    target = found.program_at(index & M32, machine.world.programs)
    if target is None or machine.tail_calls >= MAX_TAIL_CALLS:
        return None
    machine.tail_calls += 1
    return target
