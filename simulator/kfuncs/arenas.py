"""Kernel functions on arenas: pages allocated, freed, reserved."""

from __future__ import annotations

import errno

from bpflisp.spec.alu import M32, signed
from simulator.kfuncs.registry import models
from simulator.machine import Machine
from simulator.maps.arena import Arena


@models("bpf_arena_alloc_pages")
def alloc_pages(machine: Machine, handle: int, address: int, count: int, node: int, flags: int) -> int:
    """The address of so many new pages, at `address` or anywhere; 0 where there are none, or for flags."""
    arena = machine.map_of(handle)
    if not isinstance(arena, Arena) or flags or not count & M32 or signed(node, 32) not in (-1, 0):
        return 0
    return arena.allocate(address, count & M32)


@models("bpf_arena_free_pages")
def free_pages(machine: Machine, handle: int, address: int, count: int, *_: int) -> int:
    """Gives pages back."""
    arena = machine.map_of(handle)
    if isinstance(arena, Arena) and count & M32 and address:
        arena.free(address, count & M32)
    return 0


@models("bpf_arena_reserve_pages")
def reserve_pages(machine: Machine, handle: int, address: int, count: int, *_: int) -> int:
    """Keeps pages from being allocated."""
    arena = machine.map_of(handle)
    if not isinstance(arena, Arena):
        return -errno.EINVAL
    return arena.reserve(address, count & M32) if count & M32 else 0
