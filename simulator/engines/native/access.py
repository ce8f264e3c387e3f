"""Bounds of accesses, exact to the byte: what is compared before memory is touched.

Three ways, from the cheapest: nothing at all, where the address is known to be in the stack or the context; one
comparison with the packet's length, where it is known to be the packet's if anything's; else the table of bounds by
page, which `simulator.engines.native.arena` keeps equal to the memory's own.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, NamedTuple

from bpflisp.spec.isa import STACK_SIZE
from simulator.engines.native.encode import R15, RCX, RDX, Code, Mem
from simulator.engines.native.layout import PAGES, READ_LIMITS, WRITE_LIMITS, Slot, control
from simulator.engines.source.ranges import Range
from simulator.memory import CONTEXT_BASE, PACKET_BASE, PACKET_ROOM, PAGE_BITS, PAGE_MASK

_OFF_THE_PAGES: Final = ~((PAGES - 1) << PAGE_BITS)
"""Keeps of an address the offset in its page, and the bits that no address has."""

_SIZES: Final = (1, 2, 4, 8)


class Access(NamedTuple):
    """An access of `size` bytes at what register `base` has plus `off`; `known` is what the register may have."""

    base: int
    off: int
    size: int
    write: bool
    known: Range


class Checks:
    """Writes the checks of one function's accesses. `context_size` is 0 where the context's place is not known."""

    def __init__(self, out: Code, context_size: int) -> None:
        self._out, self._context_size = out, context_size

    def needed(self, access: Access) -> bool:
        """Whether the access may be one that is not allowed."""
        known, off, size = access.known, access.off, access.size
        if known.frame is not None:
            return not 0 <= known.frame + off <= STACK_SIZE - size
        low, high = known.low + off, known.high + off + size
        return not CONTEXT_BASE <= low <= high <= CONTEXT_BASE + self._context_size

    def write(self, access: Access, failed: Hashable) -> None:
        """Writes what jumps to `failed` for an access that is not allowed."""
        low, high = access.known.low + access.off, access.known.high + access.off
        if low >= PACKET_BASE and high <= PACKET_BASE + PACKET_ROOM:
            self._in_packet(access, failed)
        else:
            self._by_page(access, failed)

    def _in_packet(self, access: Access, failed: Hashable) -> None:
        out = self._out
        out.op("lea", Mem(access.base, access.off - PACKET_BASE), RCX)
        limit = control(Slot.PACKET_LIMITS + _SIZES.index(access.size))
        out.op("cmp_load", Mem(R15, limit), RCX)
        out.branch("ae", failed)

    def _by_page(self, access: Access, failed: Hashable) -> None:
        """The bits above those of addresses stay in what is compared, so that it is too great where one is set."""
        out = self._out
        table = WRITE_LIMITS if access.write else READ_LIMITS
        if access.off:
            out.op("lea", Mem(access.base, access.off), RCX)
        else:
            out.op("mov", RCX, access.base)
        out.op("mov", RDX, RCX, wide=False)
        out.op("shr_imm8", RDX, imm=PAGE_BITS, wide=False)
        out.op_imm("and", RDX, PAGES - 1, wide=False)
        out.op("load4", Mem(R15, table, RDX, 4), RDX, wide=False)
        out.op_imm("and", RCX, _OFF_THE_PAGES)
        out.op_imm("add", RCX, access.size)
        out.op("cmp", RCX, RDX)
        out.branch("a", failed)


assert PAGE_MASK & _OFF_THE_PAGES == PAGE_MASK
