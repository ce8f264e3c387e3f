"""Maps: one class a kind behind one protocol, `Map`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.maps.base import Map, MapError

if TYPE_CHECKING:
    from simulator.memory import Memory
    from simulator.program import MapDef

__all__ = ["Map", "MapError", "make"]


def make(definition: MapDef, memory: Memory, cpus: int) -> Map:
    """A map as the definition asks for it, empty but for its `init`. MapError where the kernel would refuse it.

    Of a kind that is not modelled it can be named by programs, but not used.
    """
    from simulator.maps.registry import KINDS

    if definition.type in KINDS:
        return KINDS[definition.type](definition, memory, cpus)
    from simulator.maps.unmodelled import Unmodelled

    return Unmodelled(definition, memory, cpus)
