"""Runs on the reference engine, each step held against the verifier's states: one of them must have all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from simulator.engines.engine import Options
from simulator.engines.reference import ReferenceEngine, Stepper
from simulator.machine import Machine
from simulator.outcome import Fault
from simulator.program import Program
from simulator.verifier import regs as r
from simulator.verifier.state import ZEROED
from tests.simulator.verifier.soundness_states import Explored, Place, View
from tests.simulator.verifier.soundness_values import Truth, count_value

NOBODYS = bytes([0xA5]) * 512
"""What a frame holds before it is written to: what is taken for zero without being written is seen."""


class UnsoundError(AssertionError):
    """A run held what no state of the verifier allows, or faulted."""


@dataclass
class Call:
    """A function under way: its first slot, where it stands, its registers; whether it was verified by itself."""

    start: int
    alone: bool
    pc: int = 0
    registers: list[int] = field(default_factory=list)


class Watching(ReferenceEngine):
    """The reference engine, which holds each step against the states of a program."""

    def __init__(self, explored: Sequence[Explored], counts: Counter[str], steps: int) -> None:
        self.explored, self.counts, self.steps = explored, counts, steps

    def stepper(self, machine: Machine, program: Program, options: Options) -> Stepper:
        machine.blank = NOBODYS
        machine.begin()
        return Watched(self, machine, program, options)


class Watched(Stepper):
    """One run, watched."""

    def __init__(self, owner: Watching, machine: Machine, program: Program, options: Options) -> None:
        super().__init__(machine, program, options)
        self.owner = owner
        self.calls = [Call(0, True)]
        self.away = 0
        self.called_back = False

    def _step(self, at: int, registers: list[int]) -> int | None:
        call = self.calls[-1]
        call.pc, call.registers = at, registers
        if not self.away and self.executed < self.owner.steps:
            self._hold()
        return super()._step(at, registers)

    def _function(self, start: int, arguments: Sequence[int]) -> int:
        functions = self.owner.explored[0].layout.subprograms
        alone = not self.called_back and any(one.start == start and one.is_global for one in functions)
        self.called_back = False
        self.calls.append(Call(start, alone or not self.calls))
        try:
            return super()._function(start, arguments)
        finally:
            self.calls.pop()

    def _call_back(self, address: int, arguments: Sequence[int]) -> int:
        self.called_back = True
        return super()._call_back(address, arguments)

    def execute(self, registers: Sequence[int]) -> tuple[int, Fault | None]:
        try:
            return super().execute(registers)
        finally:
            # What is called from now on, as by a timer, the verifier looked at by itself.
            self.calls.clear()

    def _tail_call(self, registers: list[int]) -> int | None:
        self.away += 1
        try:
            return super()._tail_call(registers)
        finally:
            self.away -= 1

    def _hold(self) -> None:
        """Holds the frames, from the last function inwards that was verified by itself, against each exploration."""
        calls = self.calls
        chain = calls[max(number for number, call in enumerate(calls) if call.alone) :]
        outermost = self.machine.depth - len(chain) + 1
        stacks = [bytes(self.machine.frames[outermost + number].view) for number in range(len(chain))]
        for explored in self.owner.explored:
            functions = explored.layout.subprogram_of
            place = functions[chain[0].start], tuple(call.pc for call in chain[:-1]), chain[-1].pc
            truth = Truth(self.machine, explored.layout, outermost, explored.whole)
            _hold(self.owner.counts, explored, place, truth, chain, stacks)


def _hold(
    counts: Counter[str],
    explored: Explored,
    place: Place,
    truth: Truth,
    chain: Sequence[Call],
    stacks: Sequence[bytes],
) -> None:
    views = explored.views.get(place, [])
    live = explored.live(place) if views else []
    for number, view in enumerate(views):
        if not misfit(truth, view, chain, stacks, live):
            if number:
                # The next run comes this way again, and the next round of a loop.
                views.insert(0, views.pop(number))
            _count(counts, explored, view, live)
            return
    reasons = dict.fromkeys(misfit(truth, view, chain, stacks, live) for view in views)
    registers = " ".join(f"r{number}={value:#x}" for number, value in enumerate(chain[-1].registers))
    how = "whole" if explored.whole else "pruned"
    raise UnsoundError(f"at {place} ({how}, {len(views)} states): {registers}\n  " + "\n  ".join(list(reasons)[:5]))


def misfit(
    truth: Truth, view: View, chain: Sequence[Call], stacks: Sequence[bytes], live: Sequence[tuple[int, int]]
) -> str:
    """What of a run does not lie in a state, "" where all does."""
    for number, ((regs, slots), call, stack, (live_regs, live_slots)) in enumerate(
        zip(view, chain, stacks, live, strict=True)
    ):
        for register, (reg, value) in enumerate(zip(regs, call.registers, strict=True)):
            if live_regs >> register & 1 and not truth.fits(reg, value):
                return f"frame {number}: r{register}={value:#x} is no {_text(reg)}"
        for spi, slot in enumerate(slots):
            end = len(stack) - 8 * spi
            if live_slots >> spi & 1 and not truth.slot_fits(slot, stack[end - 8 : end]):
                found = stack[end - 8 : end].hex(" ")
                return (
                    f"frame {number}: fp{-8 * spi - 8} holds {found}, which is no {_text(slot.reg)} {slot.types.hex()}"
                )
    return ""


def _text(reg: r.Reg) -> str:
    return f"{r.type_name(reg.type)}(off={reg.off}, {reg.num!r}, data={reg.data!r})"


def _count(counts: Counter[str], explored: Explored, view: View, live: Sequence[tuple[int, int]]) -> None:
    counts["instructions"] += explored.whole
    counts["instructions, pruned"] += not explored.whole
    counts[f"instructions in frame {len(view) - 1}"] += 1
    for (regs, slots), (live_regs, live_slots) in zip(view, live, strict=True):
        for register, reg in enumerate(regs):
            if live_regs >> register & 1 and (explored.whole or reg.type != r.SCALAR):
                count_value(counts, reg)
        for spi, slot in enumerate(slots):
            if live_slots >> spi & 1:
                counts["spilled slots"] += slot.is_spill
                counts["zero bytes"] += slot.types.count(ZEROED)
