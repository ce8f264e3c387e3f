"""Engines that count what programs execute; in all else they are the python and the reference engine.

Invariant: counting is another engine, not a flag: an engine that does not count asks nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bpflisp.spec.alu import M64, compare
from bpflisp.spec.isa import Kind
from simulator.engines.engine import Options
from simulator.engines.python import Linked, Parameters, PythonEngine
from simulator.engines.reference import ReferenceEngine, Stepper
from simulator.engines.source.compiler import Compiled
from simulator.engines.source.counting import compile_counting
from simulator.engines.source.text import Surroundings
from simulator.machine import Machine, machine_of
from simulator.outcome import Fault, Outcome
from simulator.packet import Input
from simulator.program import Program
from simulator.world import World


class Counts:
    """What was executed of one program. `executed` counts by slot; `outcomes` has for each branch, at 2 * slot, how
    often it fell through, and after that how often it was taken."""

    def __init__(self, slots: int) -> None:
        self._executed = [0] * slots
        self.outcomes = [0] * (2 * slots)
        self._passes: dict[str, tuple[list[int], Sequence[Sequence[int]]]] = {}

    @property
    def executed(self) -> list[int]:
        """How often each slot was executed."""
        total = list(self._executed)
        for passes, points in self._passes.values():
            for count, slots in zip(passes, points, strict=True):
                if count:
                    for slot in slots:
                        total[slot] += count
        return total

    def add(self, executed: Sequence[int], outcomes: Sequence[int]) -> None:
        """Counts of the same program from elsewhere."""
        self._executed = [a + b for a, b in zip(self._executed, executed, strict=True)]
        self.outcomes[:] = [a + b for a, b in zip(self.outcomes, outcomes, strict=True)]

    def note(self, slot: int, by: int = 1) -> None:
        """One slot executed."""
        self._executed[slot] += by

    def passes(self, compiled: Compiled) -> list[int]:
        """The passes of each point of compiled source, to count on."""
        if compiled.file not in self._passes:
            self._passes[compiled.file] = [0] * len(compiled.points), compiled.points
        return self._passes[compiled.file][0]

    def undo_after(self, compiled: Compiled, slot: int) -> None:
        """A run stopped at this slot: what its point counted after it did not run."""
        for point in compiled.points:
            if slot in point:
                for later in point[point.index(slot) + 1 :]:
                    self._executed[later] -= 1
                return


CountsOf = Callable[[Program], Counts]
"""Where counts of a program are kept."""


class CountingReference(ReferenceEngine):
    """The reference engine, counting."""

    def __init__(self, counts_of: CountsOf) -> None:
        self._counts_of = counts_of

    def stepper(self, machine: Machine, program: Program, options: Options) -> Stepper:
        """What makes one run, and counts."""
        return _CountingStepper(machine, program, options, self._counts_of)


class _CountingStepper(Stepper):
    def __init__(self, machine: Machine, program: Program, options: Options, counts_of: CountsOf) -> None:
        super().__init__(machine, program, options)
        self._counts_of = counts_of

    def _step(self, at: int, registers: list[int]) -> int | None:
        insn = self.code[at] if 0 <= at < len(self.code) else None
        if insn is None or self.executed >= self.options.fuel:
            return super()._step(at, registers)
        counts = self._counts_of(self.program)
        counts.note(at)
        if insn.row.kind is Kind.BRANCH:
            operand = registers[insn.src] if insn.row.reg else insn.imm
            counts.outcomes[2 * at + compare(insn.row.op, insn.row.width, registers[insn.dst], operand & M64)] += 1
        return super()._step(at, registers)


class CountingPython(PythonEngine):
    """The python engine, counting: with source of its own, and with what it links in worlds kept apart."""

    def __init__(self, counts_of: CountsOf) -> None:
        super().__init__()
        self._counts_of = counts_of
        self._reference = CountingReference(counts_of)

    def run(self, program: Program, given: Input, world: World, options: Options) -> Outcome:
        """See `simulator.engines.engine.Engine`."""
        plain = self._put_aside(world)
        try:
            return super().run(program, given, world, options)
        finally:
            world.engine_state = plain

    def run_packet(self, program: Program, packet: bytes, world: World | None) -> Outcome:
        """See `PythonEngine.run_packet`."""
        if world is None:
            return super().run_packet(program, packet, None)
        plain = self._put_aside(world)
        try:
            return super().run_packet(program, packet, world)
        finally:
            world.engine_state = plain

    def _put_aside(self, world: World) -> dict[Any, Any]:
        """Makes what counting engines keep of a world its state; returns what the others do."""
        plain = world.engine_state
        if id(self) in plain:
            world.engine_state = plain[id(self)]
        elif plain.get("counts") is not self:
            world.engine_state = plain[id(self)] = {"machine": machine_of(world), "counts": self}
        return plain

    def translate(self, around: Surroundings) -> Compiled:
        """The source of a program, compiled so that it counts."""
        return compile_counting(around)

    def parameters(self, linked: Linked, compiled: Compiled) -> Mapping[str, Any]:
        """What the parameters of a program's source stand for where it is linked."""
        return _CountingParameters(linked, compiled, self._counts_of(linked.program))

    def _fault(self, error: Exception, linked: Linked) -> Fault:
        place = self.place(error)
        fault = super()._fault(error, linked)
        if place is not None and fault.kind != "fuel":
            program = linked.machine.program or linked.program
            self._counts_of(program).undo_after(place[2], fault.insn)
        return fault


class _CountingParameters(Parameters):
    def __init__(self, linked: Linked, compiled: Compiled, counts: Counts) -> None:
        super().__init__(linked)
        outcomes = counts.outcomes

        def taken(slot: int, outcome: Any) -> Any:
            outcomes[2 * slot + (1 if outcome else 0)] += 1
            return outcome

        def fallen(slot: int, outcome: Any) -> Any:
            outcomes[2 * slot + (0 if outcome else 1)] += 1
            return outcome

        self._own = {"n": counts.passes(compiled), "o": outcomes, "t": taken, "f": fallen}

    def __getitem__(self, name: str) -> Any:
        return self._own[name] if name in self._own else super().__getitem__(name)
