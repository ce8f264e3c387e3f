"""What every map kind answers to: the program's side by addresses and negative error numbers, the user's by bytes.

Invariants: a value that a program was given the address of stays there until its element is deleted; the user's side
takes and gives what bpf(2) does, so that a per-CPU value is the values of all CPUs, each filled up to eight bytes.
"""

from __future__ import annotations

import errno as errno_numbers
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from simulator.managed import Field
    from simulator.memory import Memory
    from simulator.program import MapDef

# Flags of an update.
ANY, NOEXIST, EXIST, F_LOCK = 0, 1, 2, 4

# Flags of a map's creation.
F_NO_PREALLOC, F_NO_COMMON_LRU, F_NUMA_NODE, F_RDONLY, F_WRONLY = 1, 2, 4, 8, 16
F_STACK_BUILD_ID, F_ZERO_SEED, F_RDONLY_PROG, F_WRONLY_PROG = 32, 64, 128, 256
F_CLONE, F_MMAPABLE, F_PRESERVE_ELEMS, F_INNER_MAP = 512, 1024, 2048, 4096


class MapError(OSError):
    """What bpf(2) would have set errno to, and why."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(number, why)

    def __str__(self) -> str:
        return f"{errno_numbers.errorcode.get(self.errno or 0, self.errno)}: {self.strerror}"


class Map:
    """A map of a world. Each kind overrides what it can do; what it does not override it refuses as the kernel does.

    `handle` is the number that programs hold as the map's address. It names no memory.
    """

    per_cpu = False

    def __init__(self, definition: MapDef, memory: Memory, cpus: int) -> None:
        self.definition = definition
        self.name = definition.name
        self.cpus = cpus
        self.handle = memory.reserve()
        self.managed = _managed(definition)
        """The parts of a value that the kernel manages: who writes a value does not write them."""
        self.on_free: Callable[[int, Sequence[Field]], None] | None = None
        """Told the address of a value that goes, or is written anew, when parts of it are managed."""

    # The program's side: addresses, and 0 or a negative error number.

    def address_of(self, key: bytes, cpu: int) -> int:
        """The address of the value under `key` on this CPU, 0 where there is none."""
        return 0

    def store(self, key: bytes, value: bytes, flags: int, cpu: int) -> int:
        """Sets the value under `key` on this CPU; 0 or a negative error number."""
        return -errno_numbers.EOPNOTSUPP

    def remove(self, key: bytes) -> int:
        """Takes `key` out; 0 or a negative error number."""
        return -errno_numbers.EOPNOTSUPP

    def push(self, value: bytes, flags: int) -> int:
        """Puts a value in; 0 or a negative error number."""
        return -errno_numbers.EOPNOTSUPP

    def pop(self, value: bytes) -> tuple[int, bytes | None]:
        """Takes the next value out: 0 or a negative error number, and what to write to the program's buffer."""
        return -errno_numbers.EOPNOTSUPP, None

    def peek(self, value: bytes) -> tuple[int, bytes | None]:
        """The next value, left in; as `pop`. `value` is what the program's buffer has: a bloom filter looks for it."""
        return -errno_numbers.EOPNOTSUPP, None

    def value_base(self) -> int:
        """The address of the first value, for what refers to a map's value directly. 0: this kind has none."""
        return 0

    def element_at(self, address: int) -> tuple[bytes, int]:
        """The key of the element whose value an address is in, and the value's address. KeyError where none is."""
        for key in list(self.keys()):
            for cpu in range(self.cpus if self.per_cpu else 1):
                start = self.address_of(key, cpu)
                if start <= address < start + self.definition.value_size:
                    return key, start
        raise KeyError(f"{address:#x} is in no element of map {self.name!r}")

    # The user's side: what bpf(2) takes and gives.

    def lookup(self, key: bytes) -> bytes | None:
        """The value under `key`, None where there is none. MapError where the kernel reports another error."""
        raise self._refused("lookup")

    def update(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """Sets the value under `key`. MapError with the kernel's errno where it refuses."""
        raise self._refused("update")

    def delete(self, key: bytes) -> None:
        """Takes `key` out. MapError with the kernel's errno where it refuses."""
        raise self._refused("delete")

    def keys(self) -> Iterator[bytes]:
        """The keys that there are, in the order in which the map gives them."""
        raise self._refused("iteration")

    def next_key(self, key: bytes | None = None) -> bytes | None:
        """The key after `key`, the first one where `key` is None or gone; None after the last."""
        keys = list(self.keys())
        if key is None or key not in keys:
            return keys[0] if keys else None
        following = keys.index(key) + 1
        return keys[following] if following < len(keys) else None

    def raw_items(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values as bytes."""
        for key in list(self.keys()):
            value = self.lookup(key)
            if value is not None:
                yield key, value

    # Typed access: keys and values as int, str, bytes or dict, by the map's BTF where it has one.

    def __getitem__(self, key: Any) -> Any:
        from simulator.maps import typed

        value = self.lookup(typed.to_key(self, key))
        if value is None:
            raise KeyError(key)
        return typed.from_value(self, value)

    def __setitem__(self, key: Any, value: Any) -> None:
        from simulator.maps import typed

        self.update(typed.to_key(self, key), typed.to_value(self, value))

    def __delitem__(self, key: Any) -> None:
        from simulator.maps import typed

        raw = typed.to_key(self, key)
        if self.lookup(raw) is None:
            raise KeyError(key)
        self.delete(raw)

    def __contains__(self, key: object) -> bool:
        from simulator.maps import typed

        return self.lookup(typed.to_key(self, key)) is not None

    def __iter__(self) -> Iterator[Any]:
        from simulator.maps import typed

        return (typed.from_key(self, key) for key in list(self.keys()))

    def __len__(self) -> int:
        return sum(1 for _ in self.keys())

    def __bool__(self) -> bool:
        return True

    def get(self, key: Any, default: Any = None) -> Any:
        """The value under `key`, or `default`."""
        try:
            return self[key]
        except KeyError:
            return default

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Typed keys and values."""
        for key in self:
            yield key, self[key]

    def values(self) -> Iterator[Any]:
        """Typed values."""
        for key in self:
            yield self[key]

    def __repr__(self) -> str:
        made = self.definition
        return (
            f"<{made.type} map {self.name!r}: key {made.key_size}, value {made.value_size}, {made.max_entries} entries>"
        )

    def _without_managed(self, value: bytes) -> bytes:
        """A value with zeros where the kernel manages it: what bpf(2) shows, and what of a value is written."""
        if not self.managed:
            return value
        data = bytearray(value)
        for one in self.managed:
            data[one.offset : one.offset + one.size] = bytes(one.size)
        return bytes(data)

    def _freed(self, address: int) -> None:
        """A value goes, or is written anew: its timers stop, and what it keeps is let go."""
        if self.managed and self.on_free is not None:
            self.on_free(address, self.managed)

    @property
    def _may_lock(self) -> bool:
        return any(one.kind == "bpf_spin_lock" for one in self.managed)

    def _check(self, key: bytes, value: bytes | None = None) -> None:
        """Refuses keys and values of the wrong size: bpf(2) would read past them."""
        if len(key) != self.definition.key_size:
            raise ValueError(f"map {self.name}: a key has {self.definition.key_size} bytes, not {len(key)}")
        if value is not None and len(value) != self.user_value_size:
            raise ValueError(f"map {self.name}: a value has {self.user_value_size} bytes, not {len(value)}")

    @property
    def user_value_size(self) -> int:
        """Bytes of a value as bpf(2) takes and gives it."""
        size = self.definition.value_size
        return round_up(size, 8) * self.cpus if self.per_cpu else size

    def _done(self, result: int, what: str) -> None:
        if result < 0:
            raise MapError(-result, f"{what} of {self.definition.type} map {self.name!r}: {os.strerror(-result)}")

    def _refused(self, what: str) -> MapError:
        return MapError(errno_numbers.EOPNOTSUPP, f"a {self.definition.type} map has no {what}")


def _managed(definition: MapDef) -> Sequence[Field]:
    if definition.btf is None or not definition.btf_value:
        return ()
    from simulator.managed import value_fields

    return value_fields(definition.btf, definition.btf_value)


def round_up(size: int, to: int) -> int:
    """`size` filled up to a multiple of `to`, a power of two."""
    return (size + to - 1) & -to


def fail(number: int, why: str) -> NoReturn:
    """Refuses the creation of a map as BPF_MAP_CREATE does."""
    raise MapError(number, why)
