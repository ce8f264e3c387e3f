"""Maps: one class a kind behind one protocol, `Map`."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from simulator.maps.base import Map, MapError

if TYPE_CHECKING:
    from simulator.memory import Memory
    from simulator.program import MapDef

__all__ = ["Map", "MapError", "lacks_entries", "make"]

_WITHOUT_ENTRIES = frozenset(
    {"perf_event_array", "sk_storage", "inode_storage", "task_storage", "cgrp_storage", "cgroup_storage",
     "percpu_cgroup_storage"}
)  # fmt: skip
"""Maps made with 0 entries: they grow by themselves, or have one for each CPU."""


def lacks_entries(definition: MapDef) -> bool:
    """Whether a map has still to be given its number of entries before any kernel makes it."""
    return not definition.max_entries and definition.type not in _WITHOUT_ENTRIES


def make(definition: MapDef, memory: Memory, cpus: int) -> Map:
    """A map as the definition asks for it, empty but for its `init`. MapError where the kernel would refuse it.

    Of a kind that is not modelled it can be named by programs, but not used.
    """
    from simulator.maps.registry import KINDS

    if definition.type in KINDS:
        try:
            return KINDS[definition.type](definition, memory, cpus)
        except MapError as error:
            if error.errno == errno.EINVAL and lacks_entries(definition):
                what = f"{definition.type} map {definition.name!r} has no entries: its loader sets how many"
                raise MapError(errno.EINVAL, f"{what}, as load(..., max_entries={{{definition.name!r}: N}})") from None
            raise
    from simulator.maps.unmodelled import Unmodelled

    return Unmodelled(definition, memory, cpus)
