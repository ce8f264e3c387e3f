"""Maps: one class a kind behind one protocol, `Map`."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from simulator.maps.base import Map, MapError

if TYPE_CHECKING:
    from simulator.memory import Memory
    from simulator.program import MapDef

__all__ = ["Map", "MapError", "make"]


def make(definition: MapDef, memory: Memory, cpus: int) -> Map:
    """A map as the definition asks for it, empty but for its `init`. MapError where the kernel would refuse it."""
    from simulator.maps.registry import KINDS

    kind = KINDS.get(definition.type)
    if kind is None:
        raise MapError(errno.EOPNOTSUPP, f"maps of type {definition.type!r} are not modelled ({definition.name})")
    return kind(definition, memory, cpus)
