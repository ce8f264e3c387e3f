"""Which stack slots may still be read, gathered while paths are explored: the analysis of kernel 6.18.

For every chain of calls and every instruction there are, per frame of the chain, the slots that the instruction may
read and those that it always writes. From these, propagation along the control flow inside one function, and from a
function's start to the call that entered it, gives the slots that may be read from an instruction on. When two states
are compared, slots that are not alive are ignored.

Invariant: a set of slots is a mask, bit n for the eight bytes at fp-8*(n+1). Reads only grow. What an instruction
always writes only shrinks, from its first visit on. Queries are sound once `update` ran for the chain of the state
that asks: the explorer calls it for the state whose path ends (by exit or because it was pruned) before it takes up
another, and for the state in which a function returns, before that frame is left.

Callers of functions and callbacks differ: what is alive in an outer frame is alive *after* a plain call, but *before* a
call that runs callbacks, since the callback may run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from simulator.verifier.slots import Slots

ALL_SLOTS = (1 << 64) - 1

Chain = tuple[int, ...]
"""The slots of the calls that lead to a frame, outermost first, and last the start of the function that runs in it."""


@dataclass(slots=True)
class _Frame:
    """The masks of one frame of a chain, an entry for each instruction of the function at its end."""

    may_read: list[int]
    must_write: list[int]
    written_after: list[int]
    live_before: list[int]

    @staticmethod
    def of(size: int) -> _Frame:
        return _Frame([0] * size, [0] * size, [0] * size, [0] * size)


@dataclass(slots=True)
class Instance:
    """What is known of one function as it runs at the end of one chain of calls."""

    chain: Chain
    starts: Chain
    order: Sequence[int]
    size: int
    frames: list[_Frame | None]
    written_once: list[bool]
    updated: bool = False
    shrunk: bool = False

    @property
    def start(self) -> int:
        """The first slot of the function."""
        return self.starts[-1]

    @property
    def depth(self) -> int:
        """The number of the frame that the function runs in, 0 for the entry function's."""
        return len(self.chain) - 1

    def frame(self, number: int) -> _Frame:
        """The masks of a frame, made when they are first needed."""
        found = self.frames[number]
        if found is None:
            found = self.frames[number] = _Frame.of(self.size)
        return found

    def is_live(self, at: int, frame: int, slot: int) -> bool:
        """Whether the slot of that frame may be read from the instruction on, inside this function."""
        masks = self.frames[frame]
        return masks is not None and bool(masks.live_before[at - self.start] >> slot & 1)


@dataclass(frozen=True, slots=True)
class Query:
    """The instances of a state's frames, looked up once for the many questions of one comparison."""

    at: int
    instances: tuple[Instance, ...]
    calls_callback: Sequence[bool]

    def alive(self, frame: int, slot: int) -> bool:
        """Whether the slot (0 for fp-8) of that frame may still be read by the program from the state on."""
        instances = self.instances
        current = instances[-1]
        if current.is_live(self.at, frame, slot):
            return True
        for outer in range(frame, len(instances) - 1):
            call = current.chain[outer]
            after = call if self.calls_callback[call] else call + 1
            if instances[outer].is_live(after, frame, slot):
                return True
        return False


@dataclass(slots=True)
class StackLiveness:
    """The analysis of one program. `starts` and `orders` (postorder) by function, as the layout has them.

    `truncates` repeats an accident of 6.18: the old set of written slots is read in 32 bits, so a slot below fp-256
    that was written on an instruction's first visit counts as always written until something changes above fp-256.
    """

    slots: Slots
    starts: Sequence[int]
    orders: Sequence[Sequence[int]]
    function_of: Sequence[int]
    calls_callback: Sequence[bool]
    truncates: bool = True
    _instances: dict[Chain, Instance] = field(default_factory=dict)
    _current: Instance | None = None
    _written: list[int] = field(default_factory=list)
    _written_at: int = 0

    # What the explorer tells.

    def enter(self, calls: Sequence[int], functions: Sequence[int]) -> None:
        """The state that runs now: the slots of its calls, outermost first, and the number of each frame's function.

        To be called when a function is entered or left and when another state is taken up.
        """
        self._current = self.instance(calls, functions, len(functions) - 1)

    def leave(self) -> None:
        """The function that ran was left, or another entered: what the instruction wrote is not its own.

        To be called by a call of a function of the program, before `commit`, which then does nothing.
        """
        self._current = None

    def begin(self, at: int) -> None:
        """The instruction at `at` is about to run: no write of its is known yet."""
        current = self._running()
        self._written = [0] * len(current.chain)
        self._written_at = at

    def write(self, frame: int, mask: int) -> None:
        """The instruction writes all of these slots of a frame."""
        self._written[frame] |= mask

    def read(self, frame: int, at: int, mask: int) -> None:
        """The instruction at `at` may read these slots of a frame."""
        _mark_read(self._running(), frame, at, mask)

    def commit(self) -> None:
        """The instruction ran: what it wrote this time limits what it always writes."""
        if self._current is not None:
            self._commit(self._current, self._written, self._written_at)

    # What the explorer asks.

    def update(self, calls: Sequence[int], functions: Sequence[int]) -> None:
        """Propagates what was marked in the frames of a state, innermost first."""
        self._current = None
        for frame in range(len(functions) - 1, -1, -1):
            instance = self.instance(calls, functions, frame)
            if instance.updated:
                self._propagate(instance)
                instance.updated = instance.shrunk = False

    def query(self, at: int, calls: Sequence[int], functions: Sequence[int]) -> Query:
        """A question's frame of reference: the state at slot `at` in the last of its frames."""
        instances = tuple(self.instance(calls, functions, frame) for frame in range(len(functions)))
        return Query(at, instances, self.calls_callback)

    def instance(self, calls: Sequence[int], functions: Sequence[int], frame: int) -> Instance:
        """What is known of the function in a frame of a state, new where nothing is."""
        starts = tuple(self.starts[number] for number in functions[: frame + 1])
        chain = (*calls[:frame], starts[-1])
        found = self._instances.get(chain)
        return found if found is not None else self._add(chain, starts)

    # How it works.

    def _running(self) -> Instance:
        if self._current is None:
            raise RuntimeError("no state was entered: the explorer has to name it first")
        return self._current

    def _add(self, chain: Chain, starts: Chain) -> Instance:
        number = self.function_of[starts[-1]]
        end = self.starts[number + 1] if number + 1 < len(self.starts) else len(self.slots)
        size = end - starts[-1]
        made = Instance(chain, starts, self.orders[number], size, [None] * len(chain), [False] * size)
        self._instances[chain] = made
        return made

    def _commit(self, instance: Instance, written: Sequence[int], at: int) -> None:
        index = at - instance.start
        seen = instance.written_once[index]
        for number in range(len(instance.chain)):
            mask = written[number]
            if not mask and not seen:
                continue
            masks = instance.frame(number)
            old = masks.must_write[index]
            if self.truncates:
                old &= 0xFFFFFFFF
            if seen:
                mask &= old
            if old != mask:
                masks.must_write[index] = mask
                instance.updated = True
            if old & ~mask:
                instance.shrunk = True
        instance.written_once[index] = True

    def _propagate(self, instance: Instance) -> None:
        if instance.shrunk:
            for masks in instance.frames:
                if masks is not None:
                    masks.written_after = [0] * instance.size
        changed = True
        while changed:
            changed = False
            for masks in instance.frames:
                if masks is not None:
                    changed |= self._pass(instance, masks)
        if instance.depth:
            self._tell_caller(instance)

    def _pass(self, instance: Instance, masks: _Frame) -> bool:
        """One pass over the function in postorder; True where something changed."""
        start, successors_of = instance.start, self.slots.successors
        live, written = masks.live_before, masks.written_after
        changed = False
        for at in instance.order:
            successors = successors_of(at)
            if not successors:
                # Nothing follows: as in the kernel, what an exit reads or writes is not propagated.
                continue
            index = at - start
            after, always = 0, ALL_SLOTS
            for slot in successors:
                after |= live[slot - start]
                always &= written[slot - start]
            always |= masks.must_write[index]
            before = after & ~masks.must_write[index] | masks.may_read[index]
            if before != live[index] or always != written[index]:
                live[index], written[index] = before, always
                changed = True
        return changed

    def _tell_caller(self, instance: Instance) -> None:
        """What the function reads and always writes of outer frames, its call does."""
        call = instance.chain[-2]
        starts = instance.starts[:-1]
        chain = (*instance.chain[:-2], starts[-1])
        outer = self._instances.get(chain) or self._add(chain, starts)
        written = [0] * len(chain)
        for number in range(instance.depth):
            masks = instance.frames[number]
            if masks is not None:
                written[number] = masks.written_after[0]
                _mark_read(outer, number, call, masks.live_before[0])
        self._commit(outer, written, call)


def _mark_read(instance: Instance, frame: int, at: int, mask: int) -> None:
    masks = instance.frame(frame)
    index = at - instance.start
    grown = masks.may_read[index] | mask
    if grown != masks.may_read[index]:
        if grown | masks.live_before[index] != masks.live_before[index]:
            instance.updated = True
        masks.may_read[index] = grown
