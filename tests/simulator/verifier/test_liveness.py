"""Live stack slots, worked by hand on programs of a few instructions."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bpflisp.spec.kernels import profile
from simulator.program import Program
from simulator.verifier.cfg import functions_of, postorder_of
from simulator.verifier.layout import Layout, prepare
from simulator.verifier.liveness import ALL_SLOTS, Query, StackLiveness
from simulator.verifier.slots import Slots
from tests.simulator.verifier.layout_cases import EXIT, MOV0, call, insn

FP8, FP16 = 1, 2

STORE8, STORE16 = insn(0x7A, 10, off=-8), insn(0x7A, 10, off=-16)
LOAD8 = insn(0x79, 0, 10, -8)


def layout_of(code: bytes) -> Layout:
    return prepare(Program(insns=code, type="xdp"), profile())


def step(live: StackLiveness, at: int, read: int = 0, write: int = 0, frame: int = 0) -> None:
    """One instruction of the function that runs."""
    live.begin(at)
    if read:
        live.read(frame, at, read)
    if write:
        live.write(frame, write)
    live.commit()


def alive(query: Query, frame: int, slot: int) -> bool:
    """Whether one slot of a frame, 0 for fp-8, may still be read."""
    return bool(query.alive(frame) >> slot & 1)


def straight() -> StackLiveness:
    """fp-8 is written at 0 and 1, read at 2."""
    live = layout_of(STORE8 + STORE8 + LOAD8 + EXIT).stack_liveness()
    live.enter([], [0])
    for at, (read, write) in enumerate(((0, FP8), (0, FP8), (FP8, 0), (0, 0))):
        step(live, at, read, write)
    live.update([], [0])
    return live


def test_alive_between_write_and_read() -> None:
    live = straight()
    assert [alive(live.query(at, [], [0]), 0, 0) for at in range(4)] == [False, False, True, False]
    assert not any(alive(live.query(at, [], [0]), 0, 1) for at in range(4))


def test_a_write_on_one_path_alone_does_not_end_a_life() -> None:
    """0: branch to 2; 1: writes; 2: reads: at 0 the slot is alive, for the branch goes around the write."""
    live = layout_of(insn(0x15, 1, off=1) + STORE8 + LOAD8 + EXIT).stack_liveness()
    live.enter([], [0])
    for at, (read, write) in enumerate(((0, 0), (0, FP8), (FP8, 0), (0, 0))):
        step(live, at, read, write)
    live.update([], [0])
    assert [alive(live.query(at, [], [0]), 0, 0) for at in range(4)] == [True, False, True, False]


def test_what_an_instruction_does_not_always_write_stays_alive() -> None:
    live = straight()
    live.enter([], [0])
    step(live, 1, write=FP16)
    step(live, 0, write=FP16)
    live.update([], [0])
    assert alive(live.query(0, [], [0]), 0, 0)


def test_marks_that_were_not_propagated_are_not_seen() -> None:
    live = layout_of(LOAD8 + EXIT).stack_liveness()
    live.enter([], [0])
    step(live, 0, read=FP8)
    assert not alive(live.query(0, [], [0]), 0, 0)
    live.update([], [0])
    assert alive(live.query(0, [], [0]), 0, 0)


def test_a_function_reads_and_writes_for_its_caller() -> None:
    """0: call 3; 1: reads fp-8 of frame 0; 2: exit; 3: the function reads fp-16 and writes fp-8, both of frame 0."""
    live = layout_of(call(2) + LOAD8 + EXIT + MOV0 + EXIT).stack_liveness()
    live.enter([], [0])
    live.begin(0)
    live.leave()
    live.commit()
    live.enter([0], [0, 1])
    step(live, 3, read=FP16, write=FP8, frame=0)
    step(live, 4)
    live.update([0], [0, 1])
    live.enter([], [0])
    step(live, 1, read=FP8)
    step(live, 2)
    live.update([], [0])
    before_call = live.query(0, [], [0])
    assert alive(before_call, 0, 1)
    inside = live.query(3, [0], [0, 1])
    assert (alive(inside, 0, 0), alive(inside, 0, 1)) == (True, True)
    assert not alive(live.query(4, [0], [0, 1]), 0, 1)


def test_deep_slots_once_written_count_as_always_written() -> None:
    """As 6.18.44's log shows: 0 writes fp-408 on one path and fp-400 on another, and fp-408 stays dead before it."""
    fp400, fp408 = 1 << 49, 1 << 50
    live = layout_of(insn(0x7A, 6, off=0) + LOAD8 + EXIT).stack_liveness()
    live.enter([], [0])
    step(live, 0, write=fp408)
    step(live, 1, read=fp400 | fp408)
    step(live, 2)
    live.update([], [0])
    live.enter([], [0])
    step(live, 0, write=fp400)
    live.update([], [0])
    before = live.query(0, [], [0])
    assert (alive(before, 0, 49), alive(before, 0, 50)) == (True, False)


def test_slots_near_the_frame_pointer_have_to_be_written_each_time() -> None:
    live = layout_of(insn(0x7A, 6, off=0) + LOAD8 + EXIT).stack_liveness()
    live.enter([], [0])
    step(live, 0, write=FP16)
    step(live, 1, read=FP8 | FP16)
    step(live, 2)
    live.update([], [0])
    live.enter([], [0])
    step(live, 0, write=FP8)
    live.update([], [0])
    before = live.query(0, [], [0])
    assert (alive(before, 0, 0), alive(before, 0, 1)) == (True, True)


class WholePasses:
    """The same analysis of one function in the plainest way: passes over every instruction until none changes."""

    def __init__(self, slots: Slots, order: list[int]) -> None:
        self.slots, self.order = slots, order
        count = len(slots)
        self.reads, self.writes, self.live, self.written = ([0] * count for _ in range(4))
        self.seen = [False] * count
        self.updated = self.shrunk = False

    def step(self, at: int, read: int, write: int) -> None:
        if read & ~self.reads[at]:
            self.updated = self.updated or bool((self.reads[at] | read) & ~self.live[at])
            self.reads[at] |= read
        old = self.writes[at] & 0xFFFFFFFF
        mask = write & old if self.seen[at] else write
        if (mask or self.seen[at]) and old != mask:
            self.writes[at], self.updated = mask, True
            self.shrunk = self.shrunk or bool(old & ~mask)
        self.seen[at] = True

    def update(self) -> None:
        if not self.updated:
            return
        if self.shrunk:
            self.written = [0] * len(self.written)
        changed = True
        while changed:
            changed = False
            for at in self.order:
                following = self.slots.after[at]
                if not following:
                    continue
                after, always = 0, ALL_SLOTS
                for slot in following:
                    after, always = after | self.live[slot], always & self.written[slot]
                new = (after & ~self.writes[at] | self.reads[at], always | self.writes[at])
                changed = changed or new != (self.live[at], self.written[at])
                self.live[at], self.written[at] = new
        self.updated = self.shrunk = False


@settings(deadline=None)
@given(st.data())
def test_runs_give_what_whole_passes_give(data: st.DataObject) -> None:
    """On any graph, with any marks in any order, also with what was not propagated yet."""
    size = data.draw(st.integers(2, 12))
    jumps = data.draw(st.lists(st.one_of(st.none(), st.integers(0, size - 1)), min_size=size - 1, max_size=size - 1))
    rows = [MOV0 if target is None else insn(0x15, 1, off=target - at - 1) for at, target in enumerate(jumps)]
    slots = Slots.of(b"".join(rows) + EXIT)
    functions = functions_of([0], slots)
    (order,) = postorder_of(functions, slots)
    runs = StackLiveness(slots, [0], [order], [0] * size, [False] * size)
    passes = WholePasses(slots, order)
    masks = st.sampled_from([0, 1, 2, 3, 4, 1 << 40, 1 << 40 | 1])
    for _ in range(data.draw(st.integers(1, 12))):
        at = data.draw(st.sampled_from(order))
        read, write = data.draw(masks), data.draw(masks)
        runs.enter([], [0])
        step(runs, at, read, write)
        passes.step(at, read, write)
        if data.draw(st.booleans()):
            runs.update([], [0])
            passes.update()
        assert [runs.query(slot, [], [0]).alive(0) for slot in order] == [passes.live[slot] for slot in order]
