"""Live stack slots, worked by hand on programs of a few instructions."""

from __future__ import annotations

from bpflisp.spec.kernels import profile
from simulator.program import Program
from simulator.verifier.layout import Layout, prepare
from simulator.verifier.liveness import Query, StackLiveness
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
