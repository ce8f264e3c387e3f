"""Map types: numbers and names, which helpers take which of them, and what they may be created with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

from bpflisp.lean import dataclass
from bpflisp.spec.tabledata import table

# Bits of map_flags.
F_NO_PREALLOC, F_NO_COMMON_LRU, F_NUMA_NODE, F_RDONLY, F_WRONLY, F_STACK_BUILD_ID = (1 << bit for bit in range(6))
F_ZERO_SEED, F_RDONLY_PROG, F_WRONLY_PROG, F_CLONE, F_MMAPABLE, F_PRESERVE_ELEMS = (1 << bit for bit in range(6, 12))
F_INNER_MAP, F_LINK, F_PATH_FD, F_VTYPE_BTF_OBJ_FD, F_TOKEN_FD, F_SEGV_ON_FAULT, F_NO_USER_CONV = (
    1 << bit for bit in range(12, 19)
)

PERCPU: Final = frozenset({"percpu_hash", "percpu_array", "lru_percpu_hash", "percpu_cgroup_storage"})
"""Map types of which each CPU has values of its own."""

LOCAL_STORAGE: Final = frozenset({"sk_storage", "inode_storage", "task_storage", "cgrp_storage"})
"""Map types whose key is a kernel object; they want BTF key and value types and F_NO_PREALLOC."""


@dataclass(frozen=True, slots=True)
class MapType:
    """One map type. `helpers` are those that alone may take it, None where any helper that takes maps may.

    `flags` are the single flags that creation accepts on 6.18.44; 0 where the type is not created by sizes alone.
    """

    number: int
    name: str
    min_kernel: str
    helpers: frozenset[str] | None
    flags: int


@cache
def _by_name() -> dict[str, MapType]:
    return {
        row["name"]: MapType(
            row["number"], row["name"], row["min"],
            frozenset(row["helpers"]) if "helpers" in row else None, sum(row.get("flags", ())),
        )
        for row in table("maps")["types"]
    }  # fmt: skip


@cache
def _by_number() -> dict[int, MapType]:
    return {kind.number: kind for kind in _by_name().values()}


def all_map_types() -> Iterator[MapType]:
    """Every map type, in the order of numbers."""
    return iter(_by_name().values())


def by_name(name: str) -> MapType | None:
    """The map type of this lower-case name: "percpu_array"; None where there is none."""
    return _by_name().get(name.removesuffix("_deprecated"))


def by_number(number: int) -> MapType | None:
    """The map type of this number; None where there is none."""
    return _by_number().get(number)


@cache
def helper_map_types() -> Mapping[str, frozenset[str]]:
    """Helper name -> the map types that it takes, for the helpers that do not take any."""
    return MappingProxyType({name: frozenset(kinds) for name, kinds in table("maps")["only"].items()})


def compatible(helper: str, map_type: str) -> bool:
    """Whether this helper (with bpf_) takes a map of this type.

    Otherwise the kernel says `cannot pass map_type N into func bpf_x#N`. Both sides may restrict.
    """
    kind = by_name(map_type)
    if kind is not None and kind.helpers is not None and helper not in kind.helpers:
        return False
    wanted = helper_map_types().get(helper)
    return wanted is None or map_type in wanted


# Where no socket can be locked while the program runs, so that changing a socket map is safe.
_MAY_CHANGE_SOCKETS = frozenset(
    {"socket_filter", "sched_cls", "sched_act", "xdp", "sk_reuseport", "flow_dissector", "sk_lookup"}
)


def may_change_sockets(helper: str, prog_type: str, attach_type: str = "") -> bool:
    """Whether a program of this type may call bpf_map_update_elem or bpf_map_delete_elem on a sockmap or sockhash.

    Otherwise the kernel says `cannot update sockmap in this context`, and then `cannot pass map_type ...`. Asked of
    6.18.44 for each program type; 7.3 is stricter.
    """
    if prog_type == "tracing":
        return attach_type == "trace_iter"
    if prog_type == "sock_ops":
        return helper == "bpf_map_delete_elem"
    return prog_type in _MAY_CHANGE_SOCKETS


TAIL_CALL_REFUSAL: Final = "expected prog array map for tail call"
"""What the kernel says to bpf_tail_call on any other map: it looks before it asks what map and helper go together."""
