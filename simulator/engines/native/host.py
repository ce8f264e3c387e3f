"""The emulator: translated code, the arenas, and one Unicorn instance for each level of runs inside of runs.

Invariants: code is only ever added, never changed, so that what Unicorn has made of it stays good. A run never has its
registers read or set from here: a piece of code for each arena sets what differs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Final

from bpflisp.spec.isa import STACK_SIZE
from simulator.engines.engine import EngineUnavailable
from simulator.engines.native import batch
from simulator.engines.native.arena import Arena, address_of, block, reusable
from simulator.engines.native.encode import R15, RAX, RBP, RCX, RSP, Code, Mem
from simulator.engines.native.layout import ARENA_SIZE, LEVELS, Slot, stack_top
from simulator.engines.native.registers import FUEL, X, slot
from simulator.engines.native.sites import Site, Why
from simulator.memory import Memory

_CODE_BASE: Final = 0x1000_0000_0000
_CODE_SIZE: Final = 1 << 28
_PAGE: Final = 4096
_CODE_PAGE: Final = 0x91 << 12
"""Code begins here, at a page whose low bits no arena's busy page has."""

_NOWHERE: Final = 0
"""Where runs are said to end. They end at a hlt: to stop at an address takes Unicorn three times as long."""

_ARENAS_BASE: Final = 0x2000_0000_0000
_ARENA_DISTANCE: Final = 1 << 31
_MAX_ARENAS: Final = 1 << 14


class Host:
    """Holds everything that all worlds share. `call` is what a call of Python's out of translated code runs."""

    def __init__(self) -> None:
        self._unicorn = require_unicorn()
        self._code = block(_CODE_SIZE)
        self._next = _CODE_PAGE
        self.is_filling = False
        """Whether half of the room for code is taken."""
        self.sites: list[Site] = []
        self.call: Callable[[], None] = _nothing
        self.level = 0
        self._emulators: list[Any] = []
        self._arenas: list[Arena] = []
        self._free: list[Arena] = []
        self.labels: dict[Hashable, int] = {}
        self._write_common()

    # Code.

    def add(self, write: Callable[[Code], None]) -> Code:
        """Adds code: `write` is given where to write it. MemoryError where there is no room.

        Code that fits in a page is in one: jumps out of a page cost Unicorn a search.
        """
        code = Code(self.labels)
        write(code)
        size = len(code.data)
        at = -(-self._next // 16) * 16
        if at % _PAGE + size > _PAGE:
            at = -(-at // _PAGE) * _PAGE
        if at + size > _CODE_SIZE:
            raise MemoryError(f"no room for {size} bytes of code on the native engine")
        self._code[at : at + size] = code.finish(_CODE_BASE + at)
        self._next = at + size
        self.is_filling = self._next > _CODE_SIZE // 2
        return code

    def site(self, site: Site) -> int:
        """Keeps a site and gives its index."""
        self.sites.append(site)
        return len(self.sites) - 1

    def _write_common(self) -> None:
        """What all programs use."""

        resized = self.site(Site(Why.RESIZED, 0))

        def write(code: Code) -> None:
            code.label("end")
            code.data += b"\xf4" * 16
            code.label("run")
            for register in range(1, 6):
                code.op("load8", slot(Slot.ARGS + register - 1), X[register])
            code.op("load8", slot(Slot.FRAME), RBP)
            code.op("load8", slot(Slot.FUEL), FUEL)
            for register in (0, *range(6, 10)):
                code.move(X[register], 0)
            code.op("call_to", slot(Slot.TARGET), wide=False)
            code.op("store8", slot(Slot.RESULT), RAX)
            code.op("store8", slot(Slot.FUEL), FUEL)
            code.jump("end")
            code.label("fault")
            code.op("store8", slot(Slot.FUEL), FUEL)
            code.op("store8_imm", slot(Slot.FAULT), imm=1)
            code.label("stop")
            code.op("jmp_to", slot(Slot.RETURN), wide=False)
            code.label("out of fuel")
            for register, place in enumerate(X):
                code.op("store8", slot(Slot.REGISTERS + register), place)
            code.label("call and stop")
            code.op("store8", slot(Slot.FUEL), FUEL)
            code.syscall()
            code.jump("stop")
            code.label("zero frame")
            code.move(RCX, 0)
            for offset in range(8, STACK_SIZE + 8, 8):
                code.op("store8", Mem(R15, -offset, RBP), RCX)
            code.ret()

            batch.write(code, resized)

        common = self.add(write)
        self.labels = common.addresses()

    # Arenas.

    def arena_for(self, memory: Memory) -> Arena:
        """An arena with this memory in it, for as long as the memory lives."""
        arena = self._free.pop() if self._free else self._new_arena()
        arena.adopt(memory)
        weakref.finalize(memory, self._give_back, arena).atexit = False
        return arena

    def _give_back(self, arena: Arena) -> None:
        if reusable():
            arena.clear()
            self._free.append(arena)

    def _new_arena(self) -> Arena:
        if len(self._arenas) >= _MAX_ARENAS:
            raise MemoryError(f"{_MAX_ARENAS} worlds are in use on the native engine at once")
        arena = Arena(_ARENAS_BASE + len(self._arenas) * _ARENA_DISTANCE)
        self._arenas.append(arena)
        for level in range(LEVELS):

            def write(code: Code, top: int = stack_top(level)) -> None:
                code.label("entry")
                code.move(R15, arena.base)
                code.op("lea", Mem(R15, top), RSP)
                code.jump("run")

            arena.entries.append(self.add(write).address("entry"))
        return arena

    # Runs.

    def map(self, arena: Arena, level: int) -> None:
        """Makes an arena known to the emulator of a level."""
        if level >= LEVELS:
            raise RecursionError(f"more than {LEVELS} runs inside of runs on the native engine")
        if level >= len(self._emulators):
            self._emulators.append(self._new_emulator())
        emulator, unicorn = self._emulators[level], self._unicorn
        emulator.mem_map_ptr(arena.base, ARENA_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE, arena.host_address)
        arena.runs[level] = partial(emulator.emu_start, arena.entries[level], _NOWHERE)

    def _new_emulator(self) -> Any:
        unicorn = self._unicorn
        emulator = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        emulator.mem_map_ptr(
            _CODE_BASE, _CODE_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC, address_of(self._code)
        )
        # A hook that is added after code was translated does not fire in it.
        emulator.hook_add(
            unicorn.UC_HOOK_INSN, lambda *_: self.call(), None, 1, 0, unicorn.x86_const.UC_X86_INS_SYSCALL
        )
        return emulator


def require_unicorn() -> Any:
    """The package. EngineUnavailable where it is not installed."""
    try:
        import unicorn
        import unicorn.x86_const
    except ImportError:
        raise EngineUnavailable("the native engine needs the package unicorn: pip install 'bpflisp[native]'") from None
    return unicorn


def _nothing() -> None:
    """No run is going on."""
