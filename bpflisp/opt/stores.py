"""Merges stores of numbers to neighbouring bytes of the stack, of map values and of records; zeroing among them.

Contract: within a block, where nothing in between may read or change these bytes, writes of numbers become the fewest
aligned ones of the same bytes, if these are fewer. A store of a value that is known to be short, in front of zeros,
writes these too. Packets are left alone: their bytes are not aligned, and not every machine takes that.
"""

from __future__ import annotations

from collections.abc import Iterator

from bpflisp.ir import ssa
from bpflisp.ir.addresses import Place, Space, escaped_slots, overlap, place_of, space
from bpflisp.ir.ssa import Block, Const, Function, Instr, Slot, Store, Value, Zero, const
from bpflisp.lean import dataclass, field
from bpflisp.opt.facts import greatest
from bpflisp.opt.uses import Uses
from bpflisp.spec.alu import signed


def merge_stores(function: Function) -> bool:
    """Block by block. Says whether there are fewer stores now."""
    changed = False
    escaped = escaped_slots(function)
    uses = Uses(function)
    for block in function.blocks:
        for run in list(_runs(block, escaped)):
            changed |= _merge(block, run, uses)
    return changed


@dataclass(slots=True)
class _Run:
    """Writes to one object with nothing between them that it matters to: of numbers, and of values at other bytes."""

    base: Value
    numbers: dict[int, int] = field(default_factory=dict)
    writes: list[Instr] = field(default_factory=list)
    values: list[tuple[Store, int]] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)


def _runs(block: Block, escaped: frozenset[Slot]) -> Iterator[_Run]:
    """The runs of the block, each when it ends."""
    runs: dict[Value, _Run] = {}
    for instr in block.body:
        place = place_of(instr)
        if place is None:
            if isinstance(instr, ssa.Call | ssa.Asm):
                yield from runs.values()
                runs = {}
            continue
        for base in [base for base in runs if base != place.base and overlap(place, Place(base, None, 1), escaped)]:
            yield runs.pop(base)
        writes = isinstance(instr, Store | Zero) and place.off is not None and _suits(place.base)
        if writes and _add(runs.setdefault(place.base, _Run(place.base)), instr, place):
            continue
        if place.base in runs:
            yield runs.pop(place.base)
        if writes:
            _add(runs.setdefault(place.base, _Run(place.base)), instr, place)
    yield from runs.values()


def _suits(base: Value) -> bool:
    return isinstance(base, Slot) or space(base) is Space.OBJECT


def _add(run: _Run, instr: Instr, place: Place) -> bool:
    """Enter a write. False where a value was written to one of its bytes before: numbers are written before values."""
    assert place.off is not None
    bytes = set(range(place.off, place.off + place.size))
    if bytes & run.taken or (isinstance(instr, Store) and instr.core is not None):
        return False
    value = const(0) if isinstance(instr, Zero) else instr.args[1]
    if isinstance(value, Const):
        for index in range(place.size):
            run.numbers[place.off + index] = value.number >> 8 * index & 0xFF
        run.writes.append(instr)
        return True
    assert isinstance(instr, Store)
    for byte in bytes & run.numbers.keys():
        del run.numbers[byte]
    run.values.append((instr, place.off))
    run.taken |= bytes
    return True


def _merge(block: Block, run: _Run, uses: Uses) -> bool:
    """Write the run's numbers anew, in front of the first of its writes, if that takes fewer stores."""
    if not run.writes:
        return False
    numbers = dict(run.numbers)
    wider = list(_widened(run, numbers, uses))
    stores = list(_fewest(run.base, numbers))
    if len(stores) >= sum(_count(instr) for instr in run.writes):
        return False
    for instr, size in wider:
        instr.size = size
    gone = set(run.writes)
    first = next(index for index, instr in enumerate(block.body) if instr in gone)
    position = block.body[first].position
    made = [Store(args=[run.base, number], size=size, off=off, position=position) for off, size, number in stores]
    block.body = [*block.body[:first], *made, *(instr for instr in block.body[first:] if instr not in gone)]
    return True


def _widened(run: _Run, numbers: dict[int, int], uses: Uses) -> Iterator[tuple[Store, int]]:
    """Stores of short values that can write zeros behind them, and how many bytes then; these leave the numbers."""
    for instr, off in run.values:
        if any(greatest(value) >> 8 * instr.size for value in uses.stands_for(instr.args[1])):
            continue
        for size in (8, 4, 2):
            behind = range(off + instr.size, off + size)
            aligned = off % size == 0 and size <= _alignment(run.base)
            if behind and aligned and all(numbers.get(byte) == 0 for byte in behind):
                for byte in behind:
                    del numbers[byte]
                yield instr, size
                break


def _fewest(base: Value, numbers: dict[int, int]) -> Iterator[tuple[int, int, Const]]:
    """(offset, size, number) of aligned stores that write these bytes, wide ones as far as an immediate holds them."""
    left = sorted(numbers)
    while left:
        off = left[0]
        for size in (8, 4, 2, 1):
            number = sum(numbers.get(off + index, 0) << 8 * index for index in range(size))
            whole = all(off + index in numbers for index in range(size))
            held = size < 8 or -(1 << 31) <= signed(number, 64) < 1 << 31
            if size <= _alignment(base) and off % size == 0 and whole and held:
                yield off, size, const(number)
                left = left[size:]
                break


def _alignment(base: Value) -> int:
    """What the object's address is a multiple of: the frame gives eight bytes and more the alignment of eight."""
    return max(base.align, 1) if isinstance(base, Slot) and base.size < 8 else 8


def _count(instr: Instr) -> int:
    """How many stores the back end makes of it."""
    if not isinstance(instr, Zero):
        return 1
    zeros = dict.fromkeys(range(instr.off, instr.off + instr.size), 0)
    return len(list(_fewest(instr.args[0], zeros)))
