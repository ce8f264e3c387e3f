"""Where things are in an arena: the bytes of one world, as translated code sees them from its base register on.

An arena begins with the world's simulated memory, at the addresses that programs have for it; after it come a page of
numbers that Python and translated code exchange, the tables of bounds, stacks for translated code, and packets that
wait. What is used together has different low bits in its page's number: Unicorn's cache of pages is small.
"""

from __future__ import annotations

from typing import Final

from simulator.memory import ADDRESS_LIMIT, PAGE_SIZE

PAGES: Final = ADDRESS_LIMIT // PAGE_SIZE

CONTROL: Final = ADDRESS_LIMIT + 0x6000
CONTROL_SIZE: Final = 0x1000

READ_LIMITS: Final = ADDRESS_LIMIT + 0x19000
WRITE_LIMITS: Final = ADDRESS_LIMIT + 0x2B000
"""Tables of 32-bit numbers by page of simulated memory: bytes from the page's start to the end of what may be read
there, or written; 0 where nothing may."""

STACKS: Final = ADDRESS_LIMIT + 0x4D000
STACK_BYTES: Final = 0x2000
LEVELS: Final = 8
"""Runs inside of runs: a callback runs in a helper's call. Each has a stack for return addresses."""

BATCH: Final = ADDRESS_LIMIT + 0x6E000
BATCH_BYTES: Final = 0x28_0000

TABLES: Final = ADDRESS_LIMIT + 0x40_0000
TABLE_BYTES: Final = 0x4_0000
MAX_TABLES: Final = 16
"""What lookups in maps found before: see `simulator.engines.native.lookup`."""

ARENA_SIZE: Final = TABLES + MAX_TABLES * TABLE_BYTES


class Slot:
    """Numbers of 64 bits in the page that Python and translated code exchange, by index."""

    SITE = 0
    """Which call of Python's this is: an index into the host's sites."""

    # What a run begins with, set at one go.
    ARGS = 1
    """r1 to r5, of a run and of a call of Python's."""
    FRAME = 6
    """r10 of a run that begins."""
    FUEL = 7
    DEPTH = 8
    LOOPS = 9
    """How often may_goto let through."""
    STOP = 10
    """What to do after a call of Python's: one of the numbers below."""
    FAULT = 11
    """1 where a run stopped at an access: SITE says which, ADDRESS where it went."""
    RETURN = 12
    """Where a run goes that has stopped."""
    TARGET = 13
    """Where a run begins."""

    RESULT = 14
    """r0: of a call of Python's, and of a run."""
    ADDRESS = 15
    JUMP = 16
    """Where a tail call goes, or the number of a helper by register."""
    REGISTERS = 17
    """r0 to r10 of a run that is out of fuel."""
    PACKET_LIMITS = 28
    """For accesses of 1, 2, 4 and 8 bytes: the first offset in the packet at which there is no room for one."""

    # Of a batch of packets: see `simulator.engines.native.batch`.
    COUNT = 32
    """Packets that are left, the one that runs among them."""
    INPUT = 33
    SIZES = 34
    OUTPUT = 35
    """Where in the arena the next packet is, its size, and what is told of it."""
    BATCH_FUEL = 36
    BATCH_TARGET = 37
    """Fuel of each packet's run, and where it begins."""
    BATCH_STACK = 38
    """The emulator's stack pointer between packets."""

    VERSIONS = 64
    """Of the tables of lookups: what is in one is good while it has this number."""


# Numbers that STOP has.
GO_ON, STOPPED, TAIL, RETURN_ZERO = range(4)


def control(slot: int) -> int:
    """Where a number of `Slot` is in the arena."""
    return CONTROL + 8 * slot


def stack_top(level: int) -> int:
    """The end of the stack for runs of this level."""
    return STACKS + (level + 1) * STACK_BYTES
