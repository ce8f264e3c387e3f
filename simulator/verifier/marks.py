"""Which registers and stack slots the paths from a checkpoint read, as kernels note it that have no static analysis.

A read is noted in every checkpoint of the path, back to the one before which the value was written. Where a path ends
in an equal state, what is read from there on is read by this path, too. So the marks of a checkpoint are final once all
of its paths were walked; before, they say less than they will.

Invariant: a value's line of descent goes through the same register or slot of the same frame, but for arguments and
results of functions (`FrameMarks.origins`). Only checkpoints carry read marks, and writes are those since the last one.
Source: mark_reg_read and propagate_liveness of kernel/bpf/verifier.c, up to 6.17.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from simulator.verifier.cfg import CallFacts
from simulator.verifier.live_registers import use_and_def
from simulator.verifier.slots import CALL_OPCODE, EXIT_OPCODE

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine
    from simulator.verifier.state import Frame, State

Origin = tuple["State", int, int]
"""A checkpoint, the number of a frame, a register: where a register's value was before."""

REGISTERS: Final = 0x3FF
"""r0 to r9: r10 is never written, and not noted."""
_KEPT: Final = 0x3C0
"""r6 to r9: all that is read of an outer frame while it waits."""


class FrameMarks:
    """The marks of one frame: bit n of a mask for rn, or for the slot at fp-8*(n+1).

    `linked` says that the frame was there at the last checkpoint; `origins` has the registers that come from elsewhere
    than the same register there, None for those that come from nowhere.
    """

    __slots__ = ("linked", "origins", "read_regs", "read_slots", "written_regs", "written_slots")

    def __init__(self) -> None:
        self.read_regs = self.read_slots = self.written_regs = self.written_slots = 0
        self.linked = False
        self.origins: dict[int, Origin | None] = {}

    def copy(self) -> FrameMarks:
        """An independent copy, as of a state that is left for later or becomes a checkpoint."""
        new = FrameMarks()
        new.written_regs, new.written_slots = self.written_regs, self.written_slots
        new.linked = self.linked
        new.origins = dict(self.origins) if self.origins else {}
        return new


def _marks(frame: Frame) -> FrameMarks:
    marks = frame.marks
    assert marks is not None  # every frame has them where they are asked for
    return marks


def _origin(state: State, frame: int, register: int) -> Origin | None:
    marks = _marks(state.frames[frame])
    if register in marks.origins:
        return marks.origins[register]
    return (state.parent, frame, register) if marks.linked and state.parent is not None else None


def read_register(state: State, frame: int, register: int) -> None:
    """A register is read: every checkpoint that its value came through learns it."""
    while not _marks(state.frames[frame]).written_regs >> register & 1:
        origin = _origin(state, frame, register)
        if origin is None:
            return
        state, frame, register = origin
        marks = _marks(state.frames[frame])
        if marks.read_regs >> register & 1:
            return
        marks.read_regs |= 1 << register


def read_slot(state: State, frame: int, spi: int) -> None:
    """The same for eight bytes of stack."""
    while True:
        marks = _marks(state.frames[frame])
        parent = state.parent
        if marks.written_slots >> spi & 1 or not marks.linked or parent is None:
            return
        before = parent.frames[frame]
        if spi >= len(before.stack) or _marks(before).read_slots >> spi & 1:
            return
        _marks(before).read_slots |= 1 << spi
        state = parent


def propagate(old: State, cur: State) -> None:
    """The path ends in a state equal to `old`: what is read from there, it reads."""
    innermost = len(old.frames) - 1
    for number, frame in enumerate(old.frames):
        marks = _marks(frame)
        wanted = marks.read_regs & (REGISTERS if number == innermost else _KEPT)
        for register in range(10):
            if wanted >> register & 1:
                read_register(cur, number, register)
        for spi in range(min(len(frame.stack), len(cur.frames[number].stack))):
            if marks.read_slots >> spi & 1:
                read_slot(cur, number, spi)


def checkpoint(cur: State) -> None:
    """`cur` goes on from a checkpoint that was just made of it, and that is its parent: nothing was written since."""
    parent = cur.parent
    assert parent is not None
    innermost = len(cur.frames) - 1
    for number, frame in enumerate(cur.frames):
        new = frame.marks = FrameMarks()
        new.linked = True
        if number != innermost:
            # what waits in r0 to r5 of a caller is not linked anew: it keeps the line that it had
            new.origins = {register: _origin(parent, number, register) for register in range(6)}


def enter(state: State, caller: Frame, callee: Frame) -> None:
    """A function's frame is made: arguments that it has of its caller keep their line of descent."""
    marks = callee.marks = FrameMarks()
    given = _marks(caller)
    for register in range(1, 6):
        source = _source(caller, callee, register)
        marks.origins[register] = None
        if source:
            marks.origins[register] = _origin(state, caller.number, source)
            marks.written_regs |= (given.written_regs >> source & 1) << register


def _source(caller: Frame, callee: Frame, register: int) -> int:
    """The caller's register that an argument is; 0 for none."""
    value = callee.regs[register]
    for source in (register, 1, 2, 3, 4, 5):
        if caller.regs[source] is value and value.type:
            return source
    return 0


def leave(state: State, caller: Frame, callee: Frame) -> None:
    """A function returns: its r0 becomes its caller's, with its line of descent. Before the frame goes."""
    marks, result = _marks(caller), _marks(callee)
    marks.written_regs = marks.written_regs & ~1 | result.written_regs & 1
    marks.origins[0] = _origin(state, callee.number, 0)


class ReadMarks:
    """In place of `liveness.StackLiveness`: reads and writes of the stack, noted when they happen."""

    def __init__(self, m: Machine) -> None:
        self._m = m

    def write(self, frame: int, mask: int) -> None:
        """The instruction writes all of these slots of a frame."""
        _marks(self._m.state.frames[frame]).written_slots |= mask

    def wrote(self, frame: int, at: int, mask: int) -> None:
        """The instruction at `at` ran and wrote these slots of a frame, and no others."""
        self.write(frame, mask)

    def read(self, frame: int, at: int, mask: int) -> None:
        """The instruction at `at` may read these slots of a frame."""
        spi = 0
        while mask >> spi:
            if mask >> spi & 1:
                read_slot(self._m.state, frame, spi)
            spi += 1

    def enter(self, calls: Sequence[int], functions: Sequence[int]) -> None:
        """Nothing to do: frames carry their own marks."""

    def update(self, calls: Sequence[int], functions: Sequence[int]) -> None:
        """Nothing to do: reads are noted at once."""

    def leave(self) -> None:
        """Nothing to do."""

    def begin(self, at: int) -> None:
        """Nothing to do."""

    def commit(self) -> None:
        """Nothing to do."""


def noting(m: Machine, idx: int, step: Callable[[], int]) -> Callable[[], int]:
    """The step of an instruction that notes the registers which it reads and writes, too."""
    slots = m.layout.slots
    reads, writes = use_and_def(slots, idx, _calls_at(m))
    insn = m.code[idx]
    assert insn is not None
    if slots.is_packet_load(idx):
        reads, writes = 1 << 6 | (1 << insn.src if insn.row.reg else 0), 0
    elif slots.opcode[idx] == EXIT_OPCODE:
        return _noting_exit(m, step)
    elif slots.opcode[idx] == CALL_OPCODE:
        # a function of the program takes its arguments as they are; a call's writes are noted where it forgets them
        reads, writes = 0 if slots.is_subprogram_call(idx) else reads, 0
    registers = [register for register in range(10) if reads >> register & 1]
    writes &= REGISTERS

    def noted() -> int:
        state = m.state
        frame = len(state.frames) - 1
        for register in registers:
            read_register(state, frame, register)
        _marks(state.frames[frame]).written_regs |= writes
        return step()

    return noted


def _noting_exit(m: Machine, step: Callable[[], int]) -> Callable[[], int]:
    def noted() -> int:
        state = m.state
        inner = len(state.frames) - 1
        if state.frames[-1].in_callback or (not inner and not (m.returns_void and not m.subprog)):
            read_register(state, inner, 0)
        return step()

    return noted


def _calls_at(m: Machine) -> Callable[[int], CallFacts | None]:
    return m.layout.calls.get
