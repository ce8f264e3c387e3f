"""Which class models which map type."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from simulator.maps.array import Array, PerCpuArray
from simulator.maps.base import Map
from simulator.maps.hash import Hash, LruHash, LruPerCpuHash, PerCpuHash
from simulator.maps.lpm_trie import LpmTrie
from simulator.maps.nested import ArrayOfMaps, HashOfMaps
from simulator.maps.perf import PerfEventArray
from simulator.maps.prog_array import ProgArray
from simulator.maps.queue import BloomFilter, Queue, Stack
from simulator.maps.redirect import CpuMap, DevMap, DevMapHash, XskMap
from simulator.maps.ringbuf import RingBuffer
from simulator.maps.sockets import SocketHash, SocketMap
from simulator.maps.stack_trace import StackTraceMap

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
        "lpm_trie": LpmTrie,
        "queue": Queue,
        "stack": Stack,
        "bloom_filter": BloomFilter,
        "array_of_maps": ArrayOfMaps,
        "hash_of_maps": HashOfMaps,
        "sockmap": SocketMap,
        "sockhash": SocketHash,
        "reuseport_sockarray": SocketMap,
        "stack_trace": StackTraceMap,
    }
)
"""Map type, by the kernel's name in lower case -> its class."""
