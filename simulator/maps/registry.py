"""Which class models which map type. A module of maps is imported when a map of its is first made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final

from simulator.maps.base import Map

_PLACES: Final[Mapping[str, tuple[str, str]]] = {
    "hash": ("hash", "Hash"),
    "array": ("array", "Array"),
    "prog_array": ("prog_array", "ProgArray"),
    "perf_event_array": ("perf", "PerfEventArray"),
    "percpu_hash": ("hash", "PerCpuHash"),
    "percpu_array": ("array", "PerCpuArray"),
    "devmap": ("redirect", "DevMap"),
    "devmap_hash": ("redirect", "DevMapHash"),
    "cpumap": ("redirect", "CpuMap"),
    "xskmap": ("redirect", "XskMap"),
    "lru_hash": ("hash", "LruHash"),
    "lru_percpu_hash": ("hash", "LruPerCpuHash"),
    "ringbuf": ("ringbuf", "RingBuffer"),
    "lpm_trie": ("lpm_trie", "LpmTrie"),
    "queue": ("queue", "Queue"),
    "stack": ("queue", "Stack"),
    "bloom_filter": ("queue", "BloomFilter"),
    "array_of_maps": ("nested", "ArrayOfMaps"),
    "hash_of_maps": ("nested", "HashOfMaps"),
    "sockmap": ("sockets", "SocketMap"),
    "sockhash": ("sockets", "SocketHash"),
    "reuseport_sockarray": ("sockets", "ReuseportArray"),
    "stack_trace": ("stack_trace", "StackTraceMap"),
    "cgroup_storage": ("storages", "CgroupStorage"),
    "percpu_cgroup_storage": ("storages", "PerCpuCgroupStorage"),
    "sk_storage": ("storages", "Storage"),
    "task_storage": ("storages", "Storage"),
    "inode_storage": ("storages", "Storage"),
    "cgrp_storage": ("storages", "Storage"),
    "arena": ("arena", "Arena"),
    "user_ringbuf": ("user_ringbuf", "UserRingBuffer"),
}


class _Kinds(Mapping[str, type[Map]]):
    def __getitem__(self, kind: str) -> type[Map]:
        module, name = _PLACES[kind]
        found: type[Map] = getattr(import_module(f"simulator.maps.{module}"), name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)


KINDS: Final[Mapping[str, type[Map]]] = _Kinds()
"""Map type, by the kernel's name in lower case -> its class."""
