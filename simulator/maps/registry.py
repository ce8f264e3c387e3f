"""Which class models which map type."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from simulator.maps.array import Array, PerCpuArray
from simulator.maps.base import Map

KINDS: Final[Mapping[str, type[Map]]] = MappingProxyType({"array": Array, "percpu_array": PerCpuArray})
"""Map type, by the kernel's name in lower case -> its class."""
