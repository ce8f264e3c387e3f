"""A state of the verifier: the frames of one path at one instruction, and what the path holds.

Invariant: `Reg` and `Slot` are immutable; a state is copied by copying lists of references.
Source: struct bpf_verifier_state, bpf_func_state and bpf_stack_state of include/linux/bpf_verifier.h.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from bpflisp.lean import dataclass
from simulator.verifier.regs import MAYBE_NULL, NOTHING, SCALAR, Reg

if TYPE_CHECKING:
    from simulator.verifier.marks import FrameMarks

# What is known of one byte of the stack.
INVALID, SPILL, MISC, ZEROED, DYNPTR_BYTE, ITER_BYTE, IRQ_BYTE = range(7)
SLOT_BYTES: Final = 8


class Slot:
    """Eight bytes of stack: what each holds, and the value that was spilled there, if any.

    `types[7]` is the byte at the lowest address, as in the kernel.
    """

    __slots__ = ("reg", "types")

    def __init__(self, types: bytes, reg: Reg = NOTHING) -> None:
        self.types = types
        self.reg = reg

    @property
    def is_spill(self) -> bool:
        """Whether a register was spilled here, wholly or in part."""
        return self.types[7] == SPILL

    @property
    def is_special(self) -> bool:
        """Whether an object of the kernel lives here, or a spilled register."""
        return self.types[7] in (SPILL, DYNPTR_BYTE, ITER_BYTE, IRQ_BYTE)


_PLAIN: dict[bytes, Slot] = {}


def plain_slot(types: bytes) -> Slot:
    """A slot without a spilled value; one object for each combination of bytes."""
    slot = _PLAIN.get(types)
    if slot is None:
        slot = _PLAIN[types] = Slot(types)
    return slot


EMPTY: Final = plain_slot(bytes(8))
ALL_SPILL: Final = bytes([SPILL] * 8)
ALL_MISC: Final = bytes([MISC] * 8)


class Ref(NamedTuple):
    """Something that the path has to give back: its kind ("ptr", "lock", "irq", ...), id, and the slot that took it."""

    kind: str
    id: int
    insn: int
    ptr: object = None


LOCK_KINDS: Final = frozenset({"lock", "res_lock", "res_lock_irq"})
"""The kinds of references that are locks."""


class Step(NamedTuple):
    """One remembered instruction of a path: where it is, where the path came from, and what it touched.

    `stack` is (frame, slot) of the stack slot that it read or wrote, `linked` the registers and slots that a branch
    narrowed together, each (frame, is register, number).
    """

    idx: int
    prev: int
    stack: tuple[int, int] | None = None
    src_is_stack: bool = False
    dst_is_stack: bool = False
    linked: tuple[tuple[int, bool, int], ...] = ()


MAIN_CALLSITE: Final = -1


class Frame:
    """One function's registers and stack. `precise_*` are bit masks of what a checkpoint needs to know precisely.

    `kept` lists the slots of a final checkpoint that its paths read, each with its number; None before that is known.
    """

    __slots__ = (
        "async_entry", "callback_depth", "callback_range", "callsite", "in_async_callback", "in_callback",
        "in_exception_callback", "kept", "marks", "number", "precise_regs", "precise_slots", "regs", "stack", "subprog",
    )  # fmt: skip

    def __init__(self, number: int, callsite: int, subprog: int) -> None:
        self.number = number
        self.callsite = callsite
        self.subprog = subprog
        self.regs: list[Reg] = [NOTHING] * 11
        self.stack: list[Slot] = []
        self.callback_depth = 0
        self.callback_range = (0, 1)
        self.in_callback = False
        self.in_async_callback = False
        self.in_exception_callback = False
        self.async_entry = 0
        self.precise_regs = 0
        self.precise_slots = 0
        self.marks: FrameMarks | None = None
        self.kept: list[tuple[int, Slot]] | None = None

    def copy(self) -> Frame:
        """An independent copy; the values are shared."""
        new = Frame.__new__(Frame)
        new.number = self.number
        new.callsite = self.callsite
        new.subprog = self.subprog
        new.regs = self.regs[:]
        new.stack = self.stack[:]
        new.callback_depth = self.callback_depth
        new.callback_range = self.callback_range
        new.in_callback = self.in_callback
        new.in_async_callback = self.in_async_callback
        new.in_exception_callback = self.in_exception_callback
        new.async_entry = self.async_entry
        new.precise_regs = self.precise_regs
        new.precise_slots = self.precise_slots
        new.marks = None if self.marks is None else self.marks.copy()
        new.kept = None
        return new

    def grow(self, slots: int) -> None:
        """Makes room for at least so many slots of eight bytes."""
        missing = slots - len(self.stack)
        if missing > 0:
            self.stack.extend([EMPTY] * missing)


def frame_names(frames: Sequence[Frame]) -> tuple[list[int], list[int]]:
    """The calls that led to the innermost frame, and the function of each frame."""
    if len(frames) == 1:
        return [], [frames[0].subprog]
    return [frame.callsite for frame in frames[1:]], [frame.subprog for frame in frames]


@dataclass(slots=True)
class Holds:
    """What a path holds and has to give back before it may end; replaced as a whole when it changes."""

    refs: tuple[Ref, ...] = ()
    locks: int = 0
    preempt: int = 0
    rcu: int = 0
    irq_id: int = 0
    lock_id: int = 0
    lock_ptr: object = None


NO_HOLDS: Final = Holds()


class State:
    """A path at one instruction. A checkpoint is a state that others are compared with, kept under its instruction."""

    __slots__ = (
        "branches", "callback_unroll", "chain", "cleaned", "depth", "equal", "first", "frames", "freed", "hint",
        "history", "hits", "holds", "idx", "last", "loop_entry", "may_goto_depth", "misses", "parent", "second_hint",
        "sleepable",
    )  # fmt: skip

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.holds = NO_HOLDS
        self.branches = 1
        self.parent: State | None = None
        self.idx = 0
        self.first = 0
        self.last = -1
        self.depth = 0
        self.history: list[Step] = []
        self.callback_unroll = 0
        self.may_goto_depth = 0
        self.sleepable = False
        self.cleaned = False
        self.hits = 0
        self.misses = 0
        self.freed = False
        self.equal: State | None = None
        self.loop_entry: State | None = None
        self.hint: tuple[int, int] | None = None
        self.second_hint: tuple[int, int] | None = None
        self.chain: tuple[int, ...] | None = ()

    def copy(self) -> State:
        """An independent copy, as the kernel's copy_verifier_state makes it."""
        new = State.__new__(State)
        new.frames = [frame.copy() for frame in self.frames]
        new.holds = self.holds
        new.branches = self.branches
        new.parent = self.parent
        new.idx = self.idx
        new.first = self.first
        new.last = self.last
        new.depth = self.depth
        new.history = self.history[:]
        new.callback_unroll = self.callback_unroll
        new.may_goto_depth = self.may_goto_depth
        new.sleepable = self.sleepable
        new.cleaned = False
        new.hits = 0
        new.misses = 0
        new.freed = False
        new.equal = None
        new.loop_entry = self.loop_entry
        new.hint = None
        new.second_hint = None
        new.chain = ()
        return new

    def closed_by(self, old: State, idx: int) -> State:
        """What is kept of a path that ended at `idx` in a state equal to `old`: how it came there.

        What its registers and stack held is not asked again, and a loop may end many thousand paths: the frames are
        those of `old`.
        """
        new = State()
        new.frames = old.frames
        new.holds = self.holds
        new.parent = self.parent
        new.idx = idx
        new.first = self.first
        new.last = self.last
        new.depth = self.depth
        new.history = self.history
        new.equal = old
        return new

    @property
    def frame(self) -> Frame:
        """The innermost function."""
        return self.frames[-1]

    def insn_of(self, number: int) -> int:
        """The slot that frame `number` stands at: its callee's call, or for the innermost the state's own."""
        return self.idx if number == len(self.frames) - 1 else self.frames[number + 1].callsite

    def replace_pointers(self, change: Callable[[Reg], Reg]) -> None:
        """`replace_regs` for a change that leaves numbers alone, which most values are."""
        for frame in self.frames:
            regs = frame.regs
            for number, reg in enumerate(regs):
                if reg.type > SCALAR:
                    new = change(reg)
                    if new is not reg:
                        regs[number] = new
            for spi, slot in enumerate(frame.stack):
                if slot.reg.type > SCALAR and slot.types[7] == SPILL:
                    new = change(slot.reg)
                    if new is not slot.reg:
                        frame.stack[spi] = Slot(slot.types, new)

    def replace_regs(self, change: Callable[[Reg], Reg]) -> None:
        """Applies `change` to each register and each spilled value of all frames, outermost first."""
        for frame in self.frames:
            regs = frame.regs
            for number, reg in enumerate(regs):
                new = change(reg)
                if new is not reg:
                    regs[number] = new
            for spi, slot in enumerate(frame.stack):
                if slot.types[7] == SPILL:
                    new = change(slot.reg)
                    if new is not slot.reg:
                        frame.stack[spi] = Slot(slot.types, new)


def is_spilled_scalar(slot: Slot) -> bool:
    """Whether a number was spilled here."""
    return slot.types[7] == SPILL and slot.reg.type == SCALAR


def may_be_null(reg: Reg) -> bool:
    """Whether it has to be compared with null before use."""
    return bool(reg.type & MAYBE_NULL)
