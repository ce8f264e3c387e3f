"""Lookups in maps without leaving the code: of arrays the address is computed, of plain hash maps it is remembered.

A table for each hash map has, by a hash of the key, the map's version, the address that was found, and the key. The
version grows whenever an element goes: then nothing in the table is good any more. What is not found there is asked of
the map, which alone knows what it has.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bpflisp.spec.isa import STACK_SIZE
from simulator.engines.native.encode import R15, RAX, RCX, RDX, Code, Mem
from simulator.engines.native.layout import MAX_TABLES, TABLE_BYTES, TABLES, Slot, control
from simulator.engines.source.ranges import Range
from simulator.maps import Map
from simulator.maps.array import Array
from simulator.maps.hash import Hash

_ENTRIES_BITS: Final = 11
_VERSION, _FOUND, _KEY = 0, 8, 16
_MAX_WORDS: Final = (TABLE_BYTES >> _ENTRIES_BITS) // 8 - 2
_MULTIPLIER: Final = 0x9E37_79B9_7F4A_7C15


@dataclass(frozen=True, slots=True)
class Indexed:
    """An array: `count` values, `stride` bytes apart, from `base` on."""

    base: int
    stride: int
    count: int
    key_size: int = 4


@dataclass(frozen=True, slots=True)
class Remembered:
    """A hash map, by the number of its table."""

    table: int
    key_size: int


Way = Indexed | Remembered


class Tables:
    """The tables of one world: which map has which. A map keeps its own for good."""

    def __init__(self, numbers: memoryview) -> None:
        self._control = numbers
        self._numbers: dict[int, int] = {}

    def way(self, found: Map) -> Way | None:
        """How a map is looked up in code, None where it has to be asked."""
        if type(found) is Array:
            return Indexed(found.value_base(), found.stride, found.count)
        size = found.definition.key_size
        if type(found) is not Hash or len(list(_words(size))) > _MAX_WORDS:
            return None
        number = self._numbers.get(found.handle)
        if number is None:
            if len(self._numbers) >= MAX_TABLES:
                return None
            number = self._numbers[found.handle] = len(self._numbers)
            found.on_removal = self._forgets(number)
        return Remembered(number, size)

    def _forgets(self, number: int) -> Callable[[], None]:
        numbers, at = self._control, Slot.VERSIONS + number
        numbers[at] = 1

        def forget() -> None:
            numbers[at] += 1

        return forget


def _words(size: int) -> Iterator[tuple[int, int]]:
    """The (offset, size) of the words that a key is read in."""
    at = 0
    for word in (8, 4, 2, 1):
        while size - at >= word:
            yield at, word
            at += word


def is_in_frame(key: Range, size: int) -> bool:
    """Whether a key is known to be in the function's own frame."""
    return key.frame is not None and 0 <= key.frame <= STACK_SIZE - size


def write(
    out: Code, way: Way, key: int, ask: Callable[[], None], later: Callable[[Callable[[], None]], Hashable]
) -> None:
    """Writes a lookup whose key is at what register `key` has: rax is what is found.

    `ask` writes the way through the map itself; `later` puts code out of the way and gives its label.
    """
    if isinstance(way, Indexed):
        _index(out, way, key)
    else:
        _remember(out, way, key, ask, later)


def _index(out: Code, way: Indexed, key: int) -> None:
    done = object()
    out.op("load4", Mem(R15, 0, key), RCX, wide=False)
    out.move(RAX, 0)
    out.op("cmp_imm32", RCX, imm=way.count)
    out.branch("ae", done)
    out.op("imul_imm32", RCX, RCX, way.stride)
    out.op("lea", Mem(RCX, way.base), RAX)
    out.label(done)


def _remember(
    out: Code, way: Remembered, key: int, ask: Callable[[], None], later: Callable[[Callable[[], None]], Hashable]
) -> None:
    words = list(_words(way.key_size))
    entry = Mem(R15, TABLES + way.table * TABLE_BYTES, RCX)
    version = Mem(R15, control(Slot.VERSIONS + way.table))
    done = object()

    def at(offset: int) -> Mem:
        return entry._replace(disp=entry.disp + offset)

    def load(offset: int, size: int) -> None:
        out.op(f"load{size}", Mem(R15, offset, key), RDX, wide=size == 8)

    def unknown() -> None:
        ask()
        out.op("test", RAX, RAX)
        out.branch("e", done)
        out.op("load8", version, RDX)
        out.op("store8", at(_VERSION), RDX)
        out.op("store8", at(_FOUND), RAX)
        for number, (offset, size) in enumerate(words):
            load(offset, size)
            out.op("store8", at(_KEY + 8 * number), RDX)
        out.jump(done)

    _hash(out, words, load)
    out.op("imul_imm32", RCX, RCX, 8 * (len(words) + 2))
    out.op("load8", at(_VERSION), RAX)
    out.op("xor_load", version, RAX)
    for number, (offset, size) in enumerate(words):
        load(offset, size)
        out.op("xor_load", at(_KEY + 8 * number), RDX)
        out.op("or", RAX, RDX)
    out.op("test", RAX, RAX)
    out.branch("ne", later(unknown))
    out.op("load8", at(_FOUND), RAX)
    out.label(done)


def _hash(out: Code, words: Sequence[tuple[int, int]], load: Callable[[int, int], None]) -> None:
    """The number of the key's entry, in rcx."""
    out.move(RCX, 0)
    for offset, size in words:
        load(offset, size)
        out.op("add", RCX, RDX)
        out.move(RDX, _MULTIPLIER)
        out.op("imul", RDX, RCX)
    out.op("shr_imm8", RCX, imm=64 - _ENTRIES_BITS)
