"""What BPF_MAP_CREATE of 6.18 takes: sizes, numbers of entries and flags, by map type, as rows.

`check_create` names the first rule that a map breaks, with the kernel's error number. A test holds the rows against
what the kernel answered to some thousand maps. What hangs on the machine (memory, its number of CPUs for a CPU map's
entries) is not looked at.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from bpflisp.lean import dataclass
from bpflisp.spec import maps

ENOTSUPP: Final = 524
"""The kernel's own error number, which user space has no name for."""

PAGE_SIZE: Final = 4096
_KMALLOC_MAX: Final = 4 << 20
_PERCPU_MAX: Final = 32 << 10
_STACK_DEPTH: Final = 127
_ELEMENT_HEADER: Final = 48  # struct htab_elem without its key


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a map cannot be made: the kernel's error number, and the rule in words."""

    errno: int
    reason: str


@dataclass(frozen=True, slots=True)
class CreateRule:
    """What one map type takes.

    `keys` and `values` are inclusive ranges of bytes, or the sizes themselves in `key_sizes` and `value_sizes`.
    `entries` is "some", "none" or "pages" (a power of two, whole pages). `flags` are those that may be given,
    `needs_flags` those that must be. `needs_btf`: key and value types by BTF; `needs_inner`: the template of its maps.
    """

    keys: tuple[int, int] = (4, 4)
    values: tuple[int, int] = (1, 0x7FFFFFFF)
    key_sizes: tuple[int, ...] = ()
    value_sizes: tuple[int, ...] = ()
    entries: str = "some"
    flags: int = 0
    needs_flags: int = 0
    needs_btf: bool = False
    needs_inner: bool = False


_SIDES = maps.F_RDONLY | maps.F_WRONLY
_PROG_SIDES = maps.F_RDONLY_PROG | maps.F_WRONLY_PROG
_BOTH = _SIDES | _PROG_SIDES
_PLAIN = maps.F_NUMA_NODE | _SIDES
_DATA = maps.F_NUMA_NODE | _BOTH
_HUGE = (1, 0x7FFFFFFF)
_NONE = (0, 0)
_FD = (4, 8)
_STORAGE = CreateRule(entries="none", flags=maps.F_NO_PREALLOC | maps.F_CLONE, needs_flags=maps.F_NO_PREALLOC,
                      needs_btf=True)  # fmt: skip
_LRU = maps.F_NO_COMMON_LRU | maps.F_ZERO_SEED | _BOTH
_CGROUP = CreateRule(key_sizes=(8, 16), values=(1, _PERCPU_MAX), entries="none", flags=_DATA)
_RING = CreateRule(keys=_NONE, values=_NONE, entries="pages", flags=maps.F_NUMA_NODE)
_LIST = CreateRule(keys=_NONE, flags=_DATA)

RULES: Final[Mapping[str, CreateRule]] = MappingProxyType(
    {
        "hash": CreateRule(keys=_HUGE, flags=maps.F_NO_PREALLOC | maps.F_ZERO_SEED | _DATA),
        "percpu_hash": CreateRule(keys=_HUGE, flags=maps.F_NO_PREALLOC | maps.F_ZERO_SEED | _BOTH),
        "lru_hash": CreateRule(keys=_HUGE, flags=_LRU | maps.F_NUMA_NODE),
        "lru_percpu_hash": CreateRule(keys=_HUGE, flags=_LRU),
        "hash_of_maps": CreateRule(keys=_HUGE, value_sizes=(4,), flags=maps.F_NO_PREALLOC | maps.F_ZERO_SEED | _DATA,
                                   needs_inner=True),
        "array": CreateRule(flags=_DATA | maps.F_MMAPABLE | maps.F_INNER_MAP),
        "percpu_array": CreateRule(flags=_BOTH),
        "array_of_maps": CreateRule(value_sizes=(4,), flags=_PLAIN, needs_inner=True),
        "prog_array": CreateRule(value_sizes=(4,), flags=_PLAIN),
        "cgroup_array": CreateRule(value_sizes=(4,), flags=_PLAIN),
        "perf_event_array": CreateRule(value_sizes=(4,), flags=_PLAIN | maps.F_PRESERVE_ELEMS),
        "stack_trace": CreateRule(flags=_PLAIN | maps.F_STACK_BUILD_ID),
        "lpm_trie": CreateRule(keys=(5, 260), flags=maps.F_NO_PREALLOC | _DATA, needs_flags=maps.F_NO_PREALLOC),
        "devmap": CreateRule(value_sizes=_FD, flags=_PLAIN),
        "devmap_hash": CreateRule(value_sizes=_FD, flags=_PLAIN),
        "cpumap": CreateRule(value_sizes=_FD, flags=maps.F_NUMA_NODE),
        "xskmap": CreateRule(value_sizes=(4,), flags=_PLAIN),
        "sockmap": CreateRule(value_sizes=_FD, flags=_PLAIN),
        "sockhash": CreateRule(keys=_HUGE, value_sizes=_FD, flags=_PLAIN),
        "reuseport_sockarray": CreateRule(value_sizes=_FD, flags=_DATA),
        "cgroup_storage": _CGROUP,
        "percpu_cgroup_storage": _CGROUP,
        "queue": _LIST,
        "stack": _LIST,
        "bloom_filter": CreateRule(keys=_NONE, flags=maps.F_ZERO_SEED | _DATA),
        "ringbuf": _RING,
        "user_ringbuf": _RING,
        "sk_storage": _STORAGE,
        "inode_storage": _STORAGE,
        "task_storage": _STORAGE,
        "cgrp_storage": _STORAGE,
        "arena": CreateRule(keys=_NONE, values=_NONE, needs_flags=maps.F_MMAPABLE,
                            flags=maps.F_MMAPABLE | maps.F_SEGV_ON_FAULT | maps.F_NO_USER_CONV),
    }
)  # fmt: skip
"""Map type -> its row. struct_ops and insn_array are not here: what they take is the kernel's BTF, or not of 6.18."""


def check_create(
    map_type: str,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int = 0,
    *,
    has_inner: bool = False,
    has_btf: bool = False,
) -> Problem | None:
    """The first rule that such a map breaks, or None where 6.18 makes it. KeyError for a map type without a row."""
    rule = RULES[map_type]
    return (
        _flag_problem(map_type, rule, flags)
        or _size_problem("key_size", key_size, rule.keys, rule.key_sizes)
        or _size_problem("value_size", value_size, rule.values, rule.value_sizes)
        or _entries_problem(rule, max_entries)
        or _limit_problem(map_type, key_size, value_size, flags)
        or _missing_problem(rule, has_inner, has_btf)
    )


def _flag_problem(map_type: str, rule: CreateRule, flags: int) -> Problem | None:
    if map_type.startswith("lru_") and flags & maps.F_NO_PREALLOC:
        return Problem(ENOTSUPP, "an LRU map is always allocated in advance: no F_NO_PREALLOC")
    strange = flags & ~rule.flags
    if strange:
        return Problem(errno.EINVAL, f"map_flags {strange:#x} are not for a map of type {map_type}")
    if rule.needs_flags & ~flags:
        return Problem(errno.EINVAL, f"map_flags have to have {rule.needs_flags:#x} for a map of type {map_type}")
    for pair, whom in ((_SIDES, "user space"), (_PROG_SIDES, "the program")):
        if flags & pair == pair:
            return Problem(errno.EINVAL, f"a map cannot be both read-only and write-only for {whom}")
    return None


def _size_problem(what: str, size: int, bounds: tuple[int, int], sizes: tuple[int, ...]) -> Problem | None:
    low, high = bounds
    if sizes and size not in sizes:
        return Problem(errno.EINVAL, f"{what} is {size}; it has to be {' or '.join(str(each) for each in sizes)}")
    if not sizes and size > 0x7FFFFFFF:
        return Problem(errno.E2BIG, f"{what} is {size}, beyond every limit")
    if not sizes and not low <= size <= high:
        wanted = str(low) if low == high else f"{low} or more" if high == 0x7FFFFFFF else f"{low} to {high}"
        return Problem(errno.EINVAL, f"{what} is {size}; it has to be {wanted}")
    return None


def _entries_problem(rule: CreateRule, entries: int) -> Problem | None:
    if rule.entries == "none":
        return Problem(errno.EINVAL, f"max_entries is {entries}; it has to be 0") if entries else None
    if entries == 0:
        return Problem(errno.EINVAL, "max_entries is 0")
    if rule.entries == "pages" and (entries & (entries - 1) or entries % PAGE_SIZE):
        return Problem(errno.EINVAL, f"max_entries is {entries}; it has to be a power of two and whole pages")
    return None


_HASHES = frozenset({"hash", "percpu_hash", "lru_hash", "lru_percpu_hash", "hash_of_maps"})


def _limit_problem(map_type: str, key_size: int, value_size: int, flags: int) -> Problem | None:
    """Limits that are not of one size alone."""
    if map_type == "sockhash" and key_size > 512:
        return Problem(errno.E2BIG, f"key_size is {key_size}; a socket map's key has 512 bytes at most")
    if map_type == "stack_trace":
        unit = 32 if flags & maps.F_STACK_BUILD_ID else 8
        if value_size % unit or not unit <= value_size <= unit * _STACK_DEPTH:
            return Problem(errno.EINVAL, f"value_size is {value_size}; it has to be a multiple of {unit}, "
                                         f"at most {unit * _STACK_DEPTH}")  # fmt: skip
    if map_type in ("percpu_hash", "lru_percpu_hash", "percpu_array") and value_size > _PERCPU_MAX:
        return Problem(errno.E2BIG, f"value_size is {value_size}; a per-CPU value has {_PERCPU_MAX} bytes at most")
    if map_type in _HASHES and key_size + value_size >= _KMALLOC_MAX - _ELEMENT_HEADER:
        return Problem(errno.E2BIG, f"key and value have {key_size + value_size} bytes; {_KMALLOC_MAX} is too much")
    return None


def _missing_problem(rule: CreateRule, has_inner: bool, has_btf: bool) -> Problem | None:
    if rule.needs_inner and not has_inner:
        return Problem(errno.EINVAL, "a map of maps needs the template of its maps")
    if rule.needs_btf and not has_btf:
        return Problem(errno.EINVAL, "a local storage map needs BTF types of key and value")
    return None
