"""Whether what a run has in a register or a slot of stack is what a state of the verifier says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from simulator.machine import FUNCTION_BASE, Machine
from simulator.maps import Map
from simulator.maps.array import Array
from simulator.memory import MemoryFault
from simulator.verifier import regs as r
from simulator.verifier.layout import Layout
from simulator.verifier.maps import MapInfo
from simulator.verifier.regs import Reg
from simulator.verifier.scalar import Scalar
from simulator.verifier.state import SPILL, ZEROED, Slot

M32, M64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


def signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 else value


def low_within(num: Scalar, low: int) -> bool:
    """Whether the low half of a number may be this."""
    return (
        low & ~num.mask & M32 == num.value & M32
        and num.umin32 <= low <= num.umax32
        and num.smin32 <= signed(low, 32) <= num.smax32
    )


def within(num: Scalar, value: int) -> bool:
    """Whether a number, unsigned, lies in the bits and in all eight bounds."""
    return (
        value & ~num.mask & M64 == num.value
        and num.umin <= value <= num.umax
        and num.smin <= signed(value, 64) <= num.smax
        and low_within(num, value & M32)
    )


class Truth:
    """Where a run has its regions, for one set of frames: the outermost one is frame `base` of the machine."""

    def __init__(self, machine: Machine, layout: Layout, base: int, numbers_count: bool) -> None:
        self.machine, self.layout, self.base = machine, layout, base
        self.numbers_count = numbers_count

    def fits(self, reg: Reg, value: int) -> bool:
        """Whether a register may hold a value of 64 bits."""
        kind = reg.type
        if kind == r.NOT_INIT:
            return True
        if kind == r.SCALAR:
            return not self.numbers_count or within(reg.num, value)
        if not value:
            return bool(kind & (r.MAYBE_NULL | r.UNTRUSTED)) or self._may_be_anything(reg)
        check = _POINTERS.get(kind & r.BASE_MASK)
        return check is None or check(self, reg, value)

    @staticmethod
    def _may_be_anything(reg: Reg) -> bool:
        """Typed pointers that are followed with care, and an arena's, may be null without a mark."""
        return reg.type & r.BASE_MASK == r.PTR_ARENA or (
            reg.type & r.BASE_MASK == r.PTR_BTF_ID and not reg.type & (r.TRUST | r.MEM_RCU)
        )

    def _from(self, start: int, reg: Reg, value: int) -> bool:
        """Whether the value is `start`, the fixed offset and one of the variable ones."""
        return within(reg.num, value - start - reg.off & M64)

    def stack(self, reg: Reg, value: int) -> bool:
        """The frame, and the offset in it."""
        return self._from(self.machine.frames[self.base + reg.data].end, reg, value)

    def context(self, reg: Reg, value: int) -> bool:
        """The offset in the context."""
        region = self.machine.context
        return region is not None and self._from(region.base, reg, value)

    def packet(self, reg: Reg, value: int) -> bool:
        """The offset from the packet's start, and that what is said to exist of it does."""
        region, machine = self.machine.packet, self.machine
        if region is None:
            return True
        start, end = region.base + machine.meta, region.end
        if reg.type == r.PTR_PACKET_META:
            start, end = region.base, start
        if not self._from(start, reg, value):
            return False
        if reg.data == r.AT_PKT_END:
            return value >= end
        if reg.data == r.BEYOND_PKT_END:
            return value > end
        return not reg.data or (value - reg.off & M64) + reg.data <= end

    def packet_end(self, reg: Reg, value: int) -> bool:
        """The end of the packet."""
        region = self.machine.packet
        return region is None or self._from(region.end, reg, value)

    def map_handle(self, reg: Reg, value: int) -> bool:
        """The map itself."""
        return any(found.handle == value for found in self._maps(reg.data[0]))

    def map_value(self, reg: Reg, value: int) -> bool:
        """The offset from the start of a value of this map."""
        info = reg.data[0]
        maps = list(self._maps(info))
        if info.inner is not None:
            # What a map of maps holds is a map; it is called one once it is known not to be null.
            return any(found.handle == value for found in self._maps(info.inner))
        return not maps or any(self._in_a_value(found, reg, value) for found in maps)

    def _in_a_value(self, found: Map, reg: Reg, value: int) -> bool:
        if isinstance(found, Array):
            starts = [
                block.base + index * found.stride
                for block in found.blocks
                for index in _near(value - reg.off - block.base, reg.num, found.stride, found.count)
            ]
            return any(self._from(start, reg, value) for start in starts)
        region = self.machine.memory.region_at(value)
        if region is None or region.base > value:
            return False
        # Elements that were deleted stay where they are for who has their address: their memory is the map's.
        return any(within(reg.num, value - start - reg.off & M64) for start in range(region.base, region.end, 8))

    def _maps(self, info: MapInfo) -> Iterator[Map]:
        """The run's maps that may be the verifier's."""
        for known, found in zip(
            self.machine.program.maps if self.machine.program else (), self.machine.maps, strict=False
        ):
            if known is info.definition:
                yield found
        for found in self.machine.world.handles.values():
            if found.definition == info.definition:
                yield found

    def memory(self, reg: Reg, value: int) -> bool:
        """So many bytes that can be read, where it is known from where."""
        if reg.type & (r.MEM_PERCPU | r.UNTRUSTED | r.MEM_USER) or reg.num.mask:
            return True
        try:
            self.machine.memory.read(value - reg.off - reg.num.value & M64, reg.data[0])
        except MemoryFault:
            return False
        return True

    def function(self, reg: Reg, value: int) -> bool:
        """The function itself."""
        return value == FUNCTION_BASE + self.layout.subprograms[reg.data].start

    def slot_fits(self, slot: Slot, data: bytes) -> bool:
        """Whether eight bytes of stack, lowest first, may be these."""
        types = slot.types
        if any(types[7 - at] == ZEROED and byte for at, byte in enumerate(data)):
            return False
        if types[7] != SPILL:
            return True
        size = types.count(SPILL)
        value = int.from_bytes(data[:size], "little")
        if size == 8:
            return self.fits(slot.reg, value)
        return slot.reg.type != r.SCALAR or not self.numbers_count or _part_fits(slot.reg.num, size, value)


def _part_fits(num: Scalar, size: int, value: int) -> bool:
    """Whether the low `size` bytes of a number that was spilled in part may be these."""
    full = (1 << size * 8) - 1
    if num.umax <= full:
        return within(num, value)
    if size == 4:
        return low_within(num, value)
    return value & ~num.mask & full == num.value & full


def _near(distance: int, num: Scalar, stride: int, count: int) -> range:
    """The elements of an array that a pointer may have started from, so far from the array's start."""
    lowest, highest = distance - num.smax, distance - num.smin
    return range(max(0, lowest // stride), min(count, highest // stride + 1))


_POINTERS = {
    r.PTR_STACK: Truth.stack,
    r.PTR_CTX: Truth.context,
    r.PTR_PACKET: Truth.packet,
    r.PTR_PACKET_META: Truth.packet,
    r.PTR_PACKET_END: Truth.packet_end,
    r.PTR_MAP: Truth.map_handle,
    r.PTR_MAP_VALUE: Truth.map_value,
    r.PTR_MEM: Truth.memory,
    r.PTR_FUNC: Truth.function,
}


def count_value(counts: Counter[str], reg: Reg) -> None:
    """Adds one value that was compared to the counts."""
    if reg.type != r.NOT_INIT:
        counts[r.type_name(reg.type & (r.BASE_MASK | r.MAYBE_NULL)).rstrip("_")] += 1
