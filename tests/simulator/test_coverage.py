"""Counting: both engines that count come to the same, nothing else changes, and what is counted is what ran."""

from __future__ import annotations

import random
from typing import Any

import pytest

from simulator import Object, Program, World, load
from simulator.coverage import MEASURED, Coverage, measuring
from simulator.outcome import Outcome
from simulator.packet import InputRefused
from simulator.program import LineInfo
from tests.agreement.fixtures import Case, Fixture, cases, check, play
from tests.agreement.plausible import draft
from tests.agreement.worlds import new_world, packet, put, states

# The programs in hex, beside their text.
RETURNS_1 = "b700000001000000 9500000000000000"  # r0 = 1; exit
RETURNS_2 = "b700000002000000 9500000000000000"  # r0 = 2; exit
# r0 = 0; r1 = 0; r1 += 1; if r1 < 5 goto -2; exit
LOOP = "b700000000000000 b701000000000000 0701000001000000 a501feff05000000 9500000000000000"
# r1 = 0; r0 = *(u64 *)(r1 + 0); r0 = 1; exit
FAULT = f"b701000000000000 7910000000000000 {RETURNS_1}"
# r0 = *(u32 *)(r1 + 12); if r0 == 7 goto +0; r0 = 2; exit
NOWHERE = f"61100c0000000000 1500000007000000 {RETURNS_2}"


def _xdp(code: str, name: str = "p", **more: Any) -> Program:
    return Program(bytes.fromhex(code), "xdp", name=name, **more)


def _counted(program: Program, engine: str, inputs: list[bytes], world: World) -> tuple[Coverage, list[Outcome]]:
    with measuring() as coverage:
        coverage.add(program)
        return coverage, [program.run(packet, world, engine, fuel=5_000) for packet in inputs]


@pytest.mark.parametrize(
    ("fixture", "case"), [pytest.param(*found, id=f"{found[0].name}-{found[1].name}") for found in cases()]
)
def test_both_count_the_same_on_the_fixtures(fixture: Fixture, case: Case) -> None:
    obj = load(fixture.twin)
    found = []
    for engine in MEASURED:
        with measuring() as coverage:
            world, outcomes = play(case, obj, dict(fixture.twin_names), engine)
        check(case, world, outcomes)
        found.append(coverage.to_json())
    assert found[0] == found[1]
    assert any(program.instructions().hit for program in coverage.programs)


@pytest.mark.parametrize("start", range(0, 120, 20))
def test_both_count_the_same_on_drawn_programs(start: int) -> None:
    """Unverified programs: some fault in the middle of a block, of a function, of a helper."""
    faults = compared = 0
    for seed in range(start, start + 20):
        program = draft(seed).program()
        rng = random.Random(seed)
        try:
            world, inputs = new_world(program, {}), [packet(rng, number) for number in range(4)] * 2
            put(world, list(states(world, rng, 2, 1))[1])
            counted, plain = world.copy(), world.copy()
            one, outcomes = _counted(program, "python", inputs, counted)
            other, _ = _counted(program, "reference", inputs, world)
            alone = [program.run(packet, plain, "python", fuel=5_000) for packet in inputs]
        except (InputRefused, OSError, ValueError):
            continue
        if any(outcome.fault and outcome.fault.kind == "fuel" for outcome in outcomes):
            continue
        compared += 1
        faults += any(outcome.fault for outcome in outcomes)
        assert [(o.retval, o.packet, o.fault) for o in outcomes] == [(o.retval, o.packet, o.fault) for o in alone], seed
        assert one.to_json() == other.to_json(), seed
    assert compared > 5


def test_a_loop_is_counted_as_often_as_it_turns() -> None:
    program = _xdp(LOOP)
    for engine in MEASURED:
        coverage, _ = _counted(program, engine, [bytes(14)] * 3, World())
        (found,) = coverage.programs
        assert list(found.executed) == [3, 3, 15, 15, 3]
        assert [(branch.taken, branch.fallen) for branch in found.branches()] == [(12, 3)]
        assert (found.instructions().percent, found.outcomes().percent) == (100, 100)


def test_what_follows_a_fault_did_not_run() -> None:
    program = _xdp(FAULT)
    for engine in MEASURED:
        coverage, outcomes = _counted(program, engine, [bytes(14)] * 3, World())
        assert all(outcome.fault for outcome in outcomes)
        assert list(coverage.programs[0].executed) == [3, 3, 0, 0]


def test_a_branch_that_jumps_to_its_next_is_counted_by_its_outcome() -> None:
    program = _xdp(NOWHERE)
    for engine in MEASURED:
        coverage, _ = _counted(program, engine, [bytes(14)] * 3, World())
        assert [(branch.taken, branch.fallen) for branch in coverage.programs[0].branches()] == [(0, 3)]


def test_a_program_that_never_runs_is_there_with_its_object() -> None:
    obj = Object("two.o", {"p": _xdp(RETURNS_1), "other": _xdp(RETURNS_2, "other")}, {})
    with measuring() as coverage:
        obj["p"](bytes(14), verify=False)
    assert [(found.path, found.program.name, found.instructions().hit) for found in coverage.programs] == [
        ("two.o", "other", 0),
        ("two.o", "p", 2),
    ]


def test_merging_adds_up_and_keeps_the_lines() -> None:
    lines = [LineInfo(0, "a.c", "return 2;", 7, 1)]
    program = _xdp(RETURNS_2, line_info=lines)
    total = Coverage()
    for _ in range(2):
        total.merge_json(_counted(program, "python", [bytes(14)] * 4, World())[0].to_json())
    assert total.programs[0].lines() == {("a.c", 7): 8}
    (source,) = total.sources()
    assert (source.file, source.lines, source.texts, source.functions) == (
        "a.c",
        {7: 8},
        {7: "return 2;"},
        {"p": (7, 8)},
    )


def test_a_world_from_before_goes_on_after() -> None:
    """Engines that count keep what they link apart."""
    program = _xdp(RETURNS_2)
    world = World()
    for _ in range(6):
        program.run(bytes(14), world)
    with measuring() as coverage:
        program.run(bytes(14), world)
        program.run(bytes(14), world)
    program.run(bytes(14), world)
    assert list(coverage.programs[0].executed) == [2, 2]


def test_engines_are_put_back() -> None:
    from simulator.run import engine_named

    before = engine_named("python")
    with measuring():
        assert engine_named("python") is not before
    assert engine_named("python") is before
