"""Packets in batches: many runs of an XDP program at one start of the emulator.

What Python does for one run, code does here for each packet: it puts packet and context in place, zeroes what the
program may see of its frame, and notes what came of it. Python hears of a packet when something in its run calls it;
then the machine is made what it would be in a run of that packet alone.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from bpflisp.spec.alu import M32
from bpflisp.spec.isa import STACK_SIZE
from simulator.contexts.base import NO_FIELDS
from simulator.contexts.xdp import FRAME_ROOM, HEADROOM, plain_context
from simulator.engines.native.encode import R8, R9, R15, RAX, RBP, RCX, RDI, RDX, RSI, RSP, Code, Mem
from simulator.engines.native.layout import (
    BATCH,
    BATCH_BYTES,
    READ_LIMITS,
    WRITE_LIMITS,
    Slot,
)
from simulator.engines.native.registers import FUEL, X, slot
from simulator.memory import CONTEXT_BASE, PACKET_BASE, PAGE_BITS, STACK_BASE
from simulator.outcome import Fault, Outcome, Outcomes
from simulator.packet import MIN_PACKET

MAX_PACKETS: Final = 256
MAX_SIZE: Final = FRAME_ROOM - HEADROOM
"""Bytes of the longest packet that a batch takes: of the longest that a run takes."""

RECORD: Final = 24
"""Bytes told of each packet: r0, the fuel that is left, the packet's size after the run."""

OUTPUT: Final = BATCH
SIZES: Final = OUTPUT + MAX_PACKETS * RECORD
INPUT: Final = SIZES + MAX_PACKETS * 4
assert INPUT + MAX_PACKETS * (MAX_SIZE + 16) <= BATCH + BATCH_BYTES

_STEP: Final = 16
_PACKET_PAGE: Final = PACKET_BASE >> PAGE_BITS


def write(code: Code, resized: int) -> None:
    """Writes the loops over packets: at "batch" for programs that leave the packet as it is, at "batch writing".

    `resized` is the site of a packet that has another size after its run.
    """
    _loop(code, "batch", None)
    _loop(code, "batch writing", resized)


def _loop(code: Code, name: str, resized: int | None) -> None:
    following, done, stopped = (name, "next"), (name, "done"), (name, "stopped")
    code.label(name)
    code.op("store8", slot(Slot.BATCH_STACK), RSP)
    code.label(following)
    _put_packet(code, padded=resized is not None)
    _put_context(code)
    _begin(code)
    code.label(done)
    code.op("load8", slot(Slot.OUTPUT), RCX)
    code.op("store8", Mem(R15, 0, RCX), RAX)
    code.op("store8", Mem(R15, 8, RCX), FUEL)
    code.op("load4", Mem(R15, READ_LIMITS + 4 * _PACKET_PAGE), RSI, wide=False)
    code.op("store8", Mem(R15, 16, RCX), RSI)
    code.op_imm("add", RCX, RECORD)
    code.op("store8", slot(Slot.OUTPUT), RCX)
    if resized is not None:
        _keep_packet(code, resized)
    code.op("dec", slot(Slot.COUNT))
    code.branch("ne", following)
    code.ret()
    # A run that stopped gets here, wherever it was.
    code.label(stopped)
    code.op("load8", slot(Slot.BATCH_STACK), RSP)
    code.op_imm("cmp", slot(Slot.FAULT), 0)
    code.branch("e", (name, "told"))
    code.op("store8_imm", slot(Slot.FAULT), imm=0)
    code.syscall()  # The site is that of the access: it tells Python.
    code.label((name, "told"))
    code.op("store8_imm", slot(Slot.STOP), imm=0)
    code.move(RAX, 0)
    code.op("load8", slot(Slot.FUEL), FUEL)
    code.jump(done)


def _put_packet(code: Code, padded: bool) -> None:
    """The next packet to its place: rsi is its size."""
    code.op("load8", slot(Slot.INPUT), RCX)
    code.op("load8", slot(Slot.SIZES), RDI)
    code.op("load4", Mem(R15, 0, RDI), RSI, wide=False)
    code.op("lea", Mem(R15, 0, RCX), R8)
    code.op("lea", Mem(R15, PACKET_BASE), R9)
    _copy(code)
    code.op("add", RCX, RAX if padded else RSI)
    code.op("store8", slot(Slot.INPUT), RCX)
    code.op_imm("add", RDI, 4)
    code.op("store8", slot(Slot.SIZES), RDI)
    for table in (READ_LIMITS, WRITE_LIMITS):
        code.op("store4", Mem(R15, table + 4 * _PACKET_PAGE), RSI, wide=False)
    for index, size in enumerate((1, 2, 4, 8)):
        code.op("lea", Mem(RSI, 1 - size), RDX)
        code.op("store8", slot(Slot.PACKET_LIMITS + index), RDX)


def _copy(code: Code) -> None:
    """rsi bytes, and what fills them up to _STEP, from r8 to r9: rax is how many."""
    copying = object()
    code.move(RAX, 0)
    code.label(copying)
    for offset in range(0, _STEP, 8):
        code.op("load8", Mem(R8, offset, RAX), RDX)
        code.op("store8", Mem(R9, offset, RAX), RDX)
    code.op_imm("add", RAX, _STEP)
    code.op("cmp", RAX, RSI)
    code.branch("b", copying)


def _keep_packet(code: Code, resized: int) -> None:
    """The packet back to where it came from. rsi is its size; if that is another one, Python keeps it."""
    ask, done = object(), object()
    code.op("load8", slot(Slot.SIZES), RCX)
    code.op("load4", Mem(R15, -4, RCX), RDX, wide=False)
    code.op("cmp", RSI, RDX, wide=False)
    code.branch("ne", ask)
    code.op("lea", Mem(R15, PACKET_BASE), R8)
    code.op("lea", Mem(RSI, _STEP - 1), RDX)
    code.op_imm("and", RDX, -_STEP)
    code.op("load8", slot(Slot.INPUT), R9)
    code.op("sub", R9, RDX)
    code.op("add", R9, R15)
    _copy(code)
    code.jump(done)
    code.label(ask)
    code.op("store8_imm", slot(Slot.SITE), imm=resized)
    code.syscall()
    code.label(done)


def _put_context(code: Code) -> None:
    """What `simulator.contexts.xdp.plain_context` is for rsi bytes."""
    context = plain_context(MIN_PACKET)
    for offset in range(0, len(context), 4):
        value = int.from_bytes(context[offset : offset + 4], "little")
        if value != PACKET_BASE + MIN_PACKET:
            code.op("store4_imm", Mem(R15, CONTEXT_BASE + offset), imm=value, wide=False)
    code.op("lea", Mem(RSI, PACKET_BASE), RDX)
    code.op("store4", Mem(R15, CONTEXT_BASE + 4), RDX, wide=False)


def _begin(code: Code) -> None:
    """Runs the program."""
    code.op("load8", slot(Slot.BATCH_FUEL), FUEL)
    code.op("store8_imm", slot(Slot.DEPTH), imm=0)
    code.op("store8_imm", slot(Slot.LOOPS), imm=0)
    for register in (0, *range(2, 10)):
        code.move(X[register], 0)
    code.move(X[1], CONTEXT_BASE)
    code.move(RBP, STACK_BASE + STACK_SIZE)
    code.op("call_to", slot(Slot.BATCH_TARGET), wide=False)


class Batch:
    """Packets that run at one start, and what was told of them.

    `faults` and `kept` are by the packet's number: how it ended, where not by itself, and its bytes, where they have
    another size than before; so are `told`, the lines that it printed and where it was redirected to.
    """

    def __init__(self, packets: Sequence[bytes], fuel: int) -> None:
        self.packets, self.fuel = packets, fuel
        self.sizes = array("I", map(len, packets))
        self.faults: dict[int, tuple[int, Fault | None]] = {}
        self.kept: dict[int, bytes] = {}
        self.told: dict[int, tuple[tuple[str, ...], int | tuple[str, object] | None]] = {}
        self.records: Sequence[int] = ()
        self.after: bytes | None = None
        """All packets after their runs, each filled up, where the program may write to them."""
        self._starts: Sequence[int] = ()

    def data(self, padded: bool) -> bytes:
        """The packets one after the other."""
        if padded:
            return b"".join([packet.ljust(_padded(len(packet)), b"\0") for packet in self.packets])
        return b"".join(self.packets)

    def packet(self, number: int) -> bytes:
        """A packet after its run."""
        if self.after is None or number in self.kept:
            return self.kept.get(number, self.packets[number])
        if not self._starts:
            self._starts = list(accumulate(map(_padded, self.sizes), initial=0))
        start = self._starts[number]
        return self.after[start : start + self.sizes[number]]

    def outcome(self, number: int) -> Outcome:
        """What came of a packet."""
        r0, left = self.records[3 * number : 3 * number + 2]
        ended, fault = self.faults.get(number, (r0, None))
        trace, redirect = self.told.get(number, ((), None))
        return Outcome(ended & M32, self.packet(number), fault, trace, NO_FIELDS, redirect, self.fuel - left, ended)

    def retvals(self) -> list[int]:
        """The return values."""
        values = [r0 & M32 for r0 in self.records[::3]]
        for number, (r0, _) in self.faults.items():
            values[number] = r0 & M32
        return values


def _padded(size: int) -> int:
    return -(-size // _STEP) * _STEP


class BatchOutcomes(Outcomes):
    """The outcomes of batches, each made when it is looked at."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches
        self._ends = list(accumulate(len(batch.packets) for batch in batches))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def one(self, number: int) -> Outcome:
        """The outcome of one packet."""
        at = bisect_right(self._ends, number)
        batch = self._batches[at]
        return batch.outcome(number - self._ends[at] + len(batch.packets))

    @property
    def retvals(self) -> list[int]:
        """The return values, without making outcomes."""
        return [value for batch in self._batches for value in batch.retvals()]
