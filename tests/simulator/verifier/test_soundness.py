"""What a run of an accepted program holds lies in a state that the verifier had at that instruction; it never faults.

The programs of fixtures and some generated ones; thousands more by `python -m tests.simulator.verifier.soundness`.
"""

from __future__ import annotations

from collections import Counter

import pytest

from bpflisp.spec.kernels import profile
from simulator.loader import load
from simulator.machine import FUNCTION_BASE, Machine
from simulator.packet import PACKET_TYPES
from simulator.verifier import helper_results
from simulator.verifier import regs as r
from simulator.verifier.layout import prepare
from simulator.verifier.maps import map_info
from simulator.verifier.regs import ZERO, Reg, const_reg, scalar_reg
from simulator.verifier.scalar import UNKNOWN, Domain, alu, const, rules_of
from simulator.verifier.state import ALL_SPILL, MISC, SPILL, ZEROED, Slot
from simulator.world import World
from tests.agreement.fixtures import all_fixtures
from tests.simulator.verifier.explore_cases import NEEDS_KERNEL_TYPES, answers, program_of
from tests.simulator.verifier.soundness import FEW, check, check_seed
from tests.simulator.verifier.soundness_runs import Call, UnsoundError, misfit
from tests.simulator.verifier.soundness_values import Truth, within

CASES = [name for name, one in answers().items() if one["accepted"] and one["topic"] not in NEEDS_KERNEL_TYPES]

NOT_COMPARED = ("the map itself read",)
"""Fields of a map's own structure are the kernel's types: our verifier needs its BTF for them."""


@pytest.mark.parametrize("name", CASES)
def test_runs_lie_in_the_verifiers_states(name: str) -> None:
    program = program_of(name)
    if program.verify().warnings:  # where the kernel is mistaken about a run, the verdict warns
        with pytest.raises(UnsoundError, match="fp"):
            check(program, Counter(), name, FEW)
    else:
        assert (check(program, Counter(), name, FEW) == 0) == (name in NOT_COMPARED)


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_runs_of_generated_programs_lie_in_the_verifiers_states(first: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(first, first + 20):
        check_seed(seed, counts, FEW)
    assert counts["instructions"] > 100
    assert counts["instructions, pruned"] > 100


COMPILED = [(found.name, name) for found in all_fixtures() for name in found.programs]


@pytest.mark.parametrize(("fixture", "name"), COMPILED, ids=[f"{one}-{name}" for one, name in COMPILED])
def test_runs_of_compiled_programs_lie_in_the_verifiers_states(fixture: str, name: str) -> None:
    """Of those that run on a packet, from clang's objects."""
    found = next(one for one in all_fixtures() if one.name == fixture)
    program = load(found.twin)[found.twin_names.get(name, name)]
    if program.type in PACKET_TYPES:
        assert check(program, Counter(), name, FEW) > 0


# ---- what the check would see ----------------------------------------------------------------------------------------


PROGRAM = "a constant key of a per-CPU array is never missing on this CPU"
UP_TO_7 = Domain(rules_of((6, 18))).set_range(umin=0, umax=7)


@pytest.fixture
def truth() -> Truth:
    """A run in frame 1, of which frames from there on were verified together; 4 bytes of metadata, 16 of packet."""
    program = program_of(PROGRAM)
    world = World()
    machine = Machine(world)
    machine.set_packet(bytes(20), 4)
    machine.set_context(bytes(24))
    machine.program, machine.maps = program, world.bind(program)
    return Truth(machine, prepare(program, profile("6.18")), 1, numbers_count=True)


def pointers(truth: Truth) -> dict[str, tuple[Reg, list[int], list[int]]]:
    """A value of the verifier, what it may be at run time and what not."""
    machine = truth.machine
    assert machine.packet is not None
    assert machine.context is not None
    start, end, context = machine.packet.base + 4, machine.packet.end, machine.context.base
    frame, found = machine.frames[2].end, machine.maps[0]
    info = map_info(0, program_of(PROGRAM).maps[0])
    value = found.address_of(bytes(4), 0)
    other = machine.memory.allocate("other", 8).base
    return {
        "a frame": (Reg(r.PTR_STACK, -8, ZERO, data=1), [frame - 8], [frame, frame - 9, machine.frames[1].end - 8, 0]),
        "somewhere in it": (Reg(r.PTR_STACK, -8, UP_TO_7, data=1), [frame - 8, frame - 1], [frame - 9, frame]),
        "the context": (Reg(r.PTR_CTX, 8, ZERO), [context + 8], [context, 0]),
        "the packet": (Reg(r.PTR_PACKET, 2, ZERO, data=0), [start + 2], [start, start - 2, 0]),
        "16 bytes of it": (Reg(r.PTR_PACKET, 0, ZERO, data=16), [start], [start + 1]),
        "more than there are": (Reg(r.PTR_PACKET, 0, ZERO, data=17), [], [start]),
        "from somewhere": (Reg(r.PTR_PACKET, 1, UP_TO_7, data=9), [start + 1, start + 8], [start, start + 9]),
        "past the end": (Reg(r.PTR_PACKET, 0, UNKNOWN, data=r.BEYOND_PKT_END), [end + 1], [end, start]),
        "at the end": (Reg(r.PTR_PACKET, 0, UNKNOWN, data=r.AT_PKT_END), [end, end + 1], [end - 1]),
        "the end": (Reg(r.PTR_PACKET_END, 0, ZERO), [end], [end - 1, start]),
        "metadata": (Reg(r.PTR_PACKET_META, 0, ZERO, data=4), [start - 4], [start]),
        "too much metadata": (Reg(r.PTR_PACKET_META, 0, ZERO, data=5), [], [start - 4]),
        "a value": (Reg(r.PTR_MAP_VALUE, 4, ZERO, data=(info, 0)), [value + 4, value + 12], [value, other + 4, 0]),
        "a value or null": (Reg(r.PTR_MAP_VALUE | r.MAYBE_NULL, 0, ZERO, data=(info, 0)), [value, 0], [value + 1]),
        "a map": (Reg(r.PTR_MAP, 0, ZERO, data=(info, 0)), [found.handle], [value, 0]),
        "8 bytes": (Reg(r.PTR_MEM, 0, ZERO, data=(8, 0)), [other], [other + 1, 0]),
        "a function": (Reg(r.PTR_FUNC, 0, ZERO, data=0), [FUNCTION_BASE], [FUNCTION_BASE + 1, 0]),
    }


def test_pointers_that_are_elsewhere_are_noticed(truth: Truth) -> None:
    for name, (reg, good, bad) in pointers(truth).items():
        assert all(truth.fits(reg, value) for value in good), name
        assert not any(truth.fits(reg, value) for value in bad), name


def test_numbers_outside_of_their_bounds_are_noticed(truth: Truth) -> None:
    reg = scalar_reg(UP_TO_7)
    assert truth.fits(reg, 7)
    assert not truth.fits(reg, 8)
    assert within(const(5), 5)
    assert not within(const(5), 5 | 1 << 40)
    assert Truth(truth.machine, truth.layout, 0, numbers_count=False).fits(reg, 8)


def test_stack_that_is_not_as_said_is_noticed(truth: Truth) -> None:
    spilled = Slot(ALL_SPILL, scalar_reg(UP_TO_7))
    assert truth.slot_fits(spilled, b"\7" + bytes(7))
    assert not truth.slot_fits(spilled, bytes(7) + b"\1")
    low = Slot(bytes([ZEROED] * 4 + [SPILL] * 4), scalar_reg(UP_TO_7))
    assert truth.slot_fits(low, b"\7" + bytes(7))
    assert not truth.slot_fits(low, b"\7\0\0\0\1\0\0\0")
    assert not truth.slot_fits(low, b"\x08" + bytes(7))
    wide = Slot(bytes([MISC] * 7 + [SPILL]), scalar_reg(Domain(rules_of((6, 18))).load_result(2)))
    assert truth.slot_fits(wide, b"\xff" * 8)


def test_one_state_must_have_all(truth: Truth) -> None:
    call = Call(0, True, registers=[3] * 11)
    regs = [scalar_reg(UP_TO_7)] * 11
    live = [(0x7FF, 1)]
    assert not misfit(truth, ((regs, ()),), [call], [bytes(512)], live)
    assert misfit(truth, (([*regs[:10], const_reg(4)], ()),), [call], [bytes(512)], live).startswith("frame 0: r10=0x3")
    assert not misfit(truth, (([*regs[:10], const_reg(4)], ()),), [call], [bytes(512)], [(0x3FF, 1)])
    stack = misfit(truth, ((regs, (Slot(ALL_SPILL, const_reg(1)),)),), [call], [bytes(512)], live)
    assert stack.startswith("frame 0: fp-8 holds 00")


def test_a_verifier_that_takes_null_for_a_value_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "a lookup that is tested"
    check(program_of(name), Counter(), name, FEW)
    never_null = lambda m, made, flags: Reg(r.PTR_MAP_VALUE, 0, ZERO, data=made.map)  # noqa: E731
    monkeypatch.setattr(helper_results, "_map_value_result", never_null)
    with pytest.raises(UnsoundError, match="r0=0x0 is no map_value"):
        check(program_of(name), Counter(), name, FEW)


def test_a_verifier_that_is_wrong_of_numbers_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "multiplication of bounded numbers"
    check(program_of(name), Counter(), name, FEW)
    monkeypatch.setattr(alu, "transfer", lambda rules, op, width, a, b: const(3))
    with pytest.raises(UnsoundError, match="is no scalar"):
        check(program_of(name), Counter(), name, FEW)
