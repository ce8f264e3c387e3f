"""Which class models which map type."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from simulator.maps.array import Array, PerCpuArray
from simulator.maps.base import Map
from simulator.maps.hash import Hash, LruHash, LruPerCpuHash, PerCpuHash
from simulator.maps.perf import PerfEventArray
from simulator.maps.prog_array import ProgArray
from simulator.maps.redirect import CpuMap, DevMap, DevMapHash, XskMap
from simulator.maps.ringbuf import RingBuffer

KINDS: Final[Mapping[str, type[Map]]] = MappingProxyType(
    {
        "hash": Hash,
        "array": Array,
        "prog_array": ProgArray,
        "perf_event_array": PerfEventArray,
        "percpu_hash": PerCpuHash,
        "percpu_array": PerCpuArray,
        "devmap": DevMap,
        "devmap_hash": DevMapHash,
        "cpumap": CpuMap,
        "xskmap": XskMap,
        "lru_hash": LruHash,
        "lru_percpu_hash": LruPerCpuHash,
        "ringbuf": RingBuffer,
    }
)
"""Map type, by the kernel's name in lower case -> its class."""
