"""Which stack slots may still be read, gathered while paths are explored: the analysis of kernel 6.18.

For every chain of calls and every instruction there are, per frame of the chain, the slots that the instruction may
read and those that it always writes. From these, propagation along the control flow inside one function, and from a
function's start to the call that entered it, gives the slots that may be read from an instruction on. When two states
are compared, slots that are not alive are ignored.

Invariant: a set of slots is a mask, bit n for the eight bytes at fp-8*(n+1). Reads only grow. What an instruction
always writes only shrinks, from its first visit on. Queries are sound once `update` ran for the chain of the state
that asks: the explorer calls it for the state whose path ends (by exit or because it was pruned) before it takes up
another, and for the state in which a function returns, before that frame is left.

Propagation goes by straight runs of instructions, and only where something changed, in the kernel's order: round after
round in postorder. A run that no change reached would come out as it is, so the masks are those of whole rounds.

Callers of functions and callbacks differ: what is alive in an outer frame is alive *after* a plain call, but *before* a
call that runs callbacks, since the callback may run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush

from bpflisp.lean import dataclass, field
from simulator.verifier.slots import Slots

ALL_SLOTS = (1 << 64) - 1

Chain = tuple[int, ...]
"""The slots of the calls that lead to a frame, outermost first, and last the start of the function that runs in it."""


@dataclass(frozen=True, slots=True)
class Runs:
    """A function as straight runs of instructions, numbered in postorder; indices count from the function's start.

    `members` the indices of each run, last first; `successors` and `predecessors` the runs that follow and precede it;
    `run_of` the run of each index, -1 where nothing leads there; `leads` that an index is the first of its run;
    `ends` that nothing follows an index.
    """

    members: tuple[tuple[int, ...], ...]
    successors: tuple[tuple[int, ...], ...]
    predecessors: tuple[tuple[int, ...], ...]
    run_of: Sequence[int]
    leads: Sequence[bool]
    ends: Sequence[bool]

    @staticmethod
    def of(slots: Slots, order: Sequence[int], start: int, size: int) -> Runs:
        """The runs of a function whose slots stand in `order`."""
        after = {at - start: tuple([slot - start for slot in slots.after[at]]) for at in order}
        before = [0] * (size + 1)
        for following in after.values():
            for index in following:
                before[index] += 1
        run_of = [-1] * size
        members: list[list[int]] = []
        for at in order:
            index = at - start
            following = after[index]
            joins = len(following) == 1 and before[following[0]] == 1 and following[0] and run_of[following[0]] >= 0
            if joins:
                run_of[index] = run_of[following[0]]
                members[run_of[index]].append(index)
            else:
                run_of[index] = len(members)
                members.append([index])
        leads, ends = [False] * size, [False] * size
        for run in members:
            leads[run[-1]] = True
        for index, following in after.items():
            ends[index] = not following
        successors = [tuple(dict.fromkeys(run_of[index] for index in after[run[0]])) for run in members]
        predecessors: list[list[int]] = [[] for _ in members]
        for number, following in enumerate(successors):
            for run_after in following:
                predecessors[run_after].append(number)
        return Runs(tuple(map(tuple, members)), tuple(successors), tuple(map(tuple, predecessors)), run_of, leads, ends)


class _Frame:
    """The masks of one frame of a chain.

    By index: `may_read` and `must_write` as marked, `reads` and `writes` as far as propagated, `dirty` the indices
    where the two differ. By run: `gen` and `kill` what it reads before it writes and what it writes; `live` what may
    be read from its start on, `written` what is always written from there on.
    """

    __slots__ = ("dirty", "gen", "kill", "live", "may_read", "must_write", "reads", "runs", "writes", "written")

    def __init__(self, size: int, runs: Runs) -> None:
        count = len(runs.members)
        self.runs = runs
        self.may_read = [0] * size
        self.must_write = [0] * size
        self.reads = [0] * size
        self.writes = [0] * size
        self.dirty: set[int] = set()
        self.gen = [0] * count
        self.kill = [0] * count
        self.live = [0] * count
        self.written = [0] * count

    def live_before(self, index: int) -> int:
        """The slots that may be read from an index on, as far as was propagated."""
        runs = self.runs
        number = runs.run_of[index]
        if runs.leads[index]:
            return self.live[number]
        mask = 0
        for following in runs.successors[number]:
            mask |= self.live[following]
        for member in runs.members[number]:
            mask = mask & ~self.writes[member] | self.reads[member]
            if member == index:
                return mask
        return 0

    def propagate(self, shrunk: bool) -> None:
        """Brings `live` and `written` up to date with what was marked."""
        changed = self._take_marks()
        if shrunk:
            self.written = [0] * len(self.written)
            changed = set(range(len(self.written)))
        while changed:
            changed = self._round(changed)

    def _take_marks(self) -> set[int]:
        """The runs whose own masks changed."""
        runs, changed = self.runs, set()
        for index in self.dirty:
            # Nothing follows: as in the kernel, what an exit reads or writes is not propagated.
            if runs.run_of[index] >= 0 and not runs.ends[index]:
                self.reads[index] = self.may_read[index]
                self.writes[index] = self.must_write[index]
                changed.add(runs.run_of[index])
        self.dirty.clear()
        for number in changed:
            gen = kill = 0
            for member in runs.members[number]:
                wrote = self.writes[member]
                gen = gen & ~wrote | self.reads[member]
                kill |= wrote
            self.gen[number], self.kill[number] = gen, kill
        return changed

    def _round(self, changed: set[int]) -> set[int]:
        """One round in postorder over what may change; the runs that a jump back leaves for the next."""
        runs, live, written = self.runs, self.live, self.written
        waiting, later = list(changed), set()
        heapify(waiting)
        queued = changed
        while waiting:
            number = heappop(waiting)
            following = runs.successors[number]
            after, always = 0, ALL_SLOTS if following else 0
            for run in following:
                after |= live[run]
                always &= written[run]
            before = after & ~self.kill[number] | self.gen[number]
            always |= self.kill[number]
            if before == live[number] and always == written[number]:
                continue
            live[number], written[number] = before, always
            for run in runs.predecessors[number]:
                if run <= number:
                    later.add(run)
                elif run not in queued:
                    queued.add(run)
                    heappush(waiting, run)
        return later


@dataclass(slots=True)
class Instance:
    """What is known of one function as it runs at the end of one chain of calls.

    `settled` by index: the mask of the function's own frame that the instruction writes again without a change; -1
    where it is not known to be so.
    """

    chain: Chain
    starts: Chain
    runs: Runs
    size: int
    frames: list[_Frame | None]
    written_once: list[bool]
    settled: list[int]
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
            found = self.frames[number] = _Frame(self.size, self.runs)
        return found

    def live_before(self, at: int, frame: int) -> int:
        """The slots of that frame that may be read from the instruction on, inside this function."""
        masks = self.frames[frame]
        return masks.live_before(at - self.starts[-1]) if masks is not None else 0


@dataclass(slots=True)
class Query:
    """The instances of a state's frames, looked up once for the many questions of one comparison."""

    at: int
    instances: tuple[Instance, ...]
    calls_callback: Sequence[bool]

    def alive(self, frame: int) -> int:
        """The slots (bit 0 for fp-8) of that frame that may still be read by the program from the state on."""
        instances = self.instances
        current = instances[-1]
        mask = current.live_before(self.at, frame)
        for outer in range(frame, len(instances) - 1):
            call = current.chain[outer]
            after = call if self.calls_callback[call] else call + 1
            mask |= instances[outer].live_before(after, frame)
        return mask


@dataclass(slots=True)
class StackLiveness:
    """The analysis of one program. `starts` and `orders` (postorder) by function, as the layout has them.

    `truncates` repeats an accident of 6.18: the old set of written slots is read in 32 bits, so a slot below fp-256
    that was written on an instruction's first visit counts as always written until something changes above fp-256.
    `told` is called before what was marked in an instance is propagated.
    """

    slots: Slots
    starts: Sequence[int]
    orders: Sequence[Sequence[int]]
    function_of: Sequence[int]
    calls_callback: Sequence[bool]
    truncates: bool = True
    told: Callable[[Instance], None] | None = None
    _instances: dict[Chain, Instance] = field(default_factory=dict)
    _entries: dict[int, Instance] = field(default_factory=dict)
    _runs: dict[int, Runs] = field(default_factory=dict)
    _current: Instance | None = None
    _own: int = 0
    _outer: dict[int, int] = field(default_factory=dict)
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
        self._own = 0
        if self._outer:
            self._outer.clear()
        self._written_at = at

    def write(self, frame: int, mask: int) -> None:
        """The instruction writes all of these slots of a frame."""
        current = self._current
        if current is not None and frame == len(current.chain) - 1:
            self._own |= mask
        else:
            self._outer[frame] = self._outer.get(frame, 0) | mask

    def wrote(self, frame: int, at: int, mask: int) -> None:
        """The instruction at `at` ran and wrote these slots of a frame, and no others: `begin`, `write`, `commit`."""
        current = self._current
        if current is not None and current.settled[at - current.starts[-1]] == mask and frame == current.depth:
            return
        self.begin(at)
        if mask:
            self.write(frame, mask)
        self.commit()

    def read(self, frame: int, at: int, mask: int) -> None:
        """The instruction at `at` may read these slots of a frame."""
        _mark_read(self._running(), frame, at, mask)

    def commit(self) -> None:
        """The instruction ran: what it wrote this time limits what it always writes."""
        current = self._current
        if current is None:
            return
        if current.settled[self._written_at - current.starts[-1]] == self._own and not self._outer:
            return
        written = [self._outer.get(number, 0) for number in range(len(current.chain))]
        written[-1] |= self._own
        self._commit(current, written, self._written_at)

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
        instances = tuple([self.instance(calls, functions, frame) for frame in range(len(functions))])
        return Query(at, instances, self.calls_callback)

    def instance(self, calls: Sequence[int], functions: Sequence[int], frame: int) -> Instance:
        """What is known of the function in a frame of a state, new where nothing is."""
        if not frame:
            entry = self._entries.get(functions[0])
            if entry is not None:
                return entry
        starts = tuple([self.starts[number] for number in functions[: frame + 1]])
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
        runs = self._runs.get(number)
        if runs is None:
            runs = self._runs[number] = Runs.of(self.slots, self.orders[number], starts[-1], size)
        made = Instance(chain, starts, runs, size, [None] * len(chain), [False] * size, [-1] * size)
        self._instances[chain] = made
        if len(chain) == 1:
            self._entries[number] = made
        return made

    def _commit(self, instance: Instance, written: Sequence[int], at: int) -> None:
        index = at - instance.start
        seen = instance.written_once[index]
        settled = True
        for number, wrote in enumerate(written):
            mask = wrote
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
                masks.dirty.add(index)
                instance.updated = True
            if old & ~mask:
                instance.shrunk = True
            settled = settled and mask == wrote and mask <= 0xFFFFFFFF and (not mask or number == instance.depth)
        instance.written_once[index] = True
        instance.settled[index] = written[-1] if settled else -1

    def _propagate(self, instance: Instance) -> None:
        if self.told is not None:
            self.told(instance)
        for masks in instance.frames:
            if masks is not None:
                masks.propagate(instance.shrunk)
        if instance.depth:
            self._tell_caller(instance)

    def _tell_caller(self, instance: Instance) -> None:
        """What the function reads and always writes of outer frames, its call does."""
        call = instance.chain[-2]
        starts = instance.starts[:-1]
        chain = (*instance.chain[:-2], starts[-1])
        outer = self._instances.get(chain) or self._add(chain, starts)
        written = [0] * len(chain)
        first = instance.runs.run_of[0]
        for number in range(instance.depth):
            masks = instance.frames[number]
            if masks is not None:
                written[number] = masks.written[first]
                _mark_read(outer, number, call, masks.live[first])
        self._commit(outer, written, call)


def _mark_read(instance: Instance, frame: int, at: int, mask: int) -> None:
    masks = instance.frames[frame] or instance.frame(frame)
    index = at - instance.starts[-1]
    known = masks.may_read[index]
    if mask & ~known:
        if not instance.updated and mask & ~masks.live_before(index):
            instance.updated = True
        masks.may_read[index] = known | mask
        masks.dirty.add(index)
