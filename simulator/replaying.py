"""A call of a program once more, step by step on the reference engine: what its last instructions did, and to what.

Invariant: a replay starts from a copy of the world as it was before the call, so that nothing of the test changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bpflisp.spec.isa import Kind
from simulator.calling import Called, fill, fresh_world
from simulator.engines.engine import Options
from simulator.engines.reference import ReferenceEngine, Stepper
from simulator.engines.source.frame import defines, uses_of
from simulator.machine import Machine, source_of
from simulator.maps.values import shown
from simulator.packet import as_input
from simulator.results import insn_line

if TYPE_CHECKING:
    from simulator.outcome import Outcome
    from simulator.program import Program
    from simulator.world import World

MOST_INSTRUCTIONS = 200_000
"""How many a replay executes at most: it takes about a second."""


@dataclass(frozen=True, slots=True)
class Step:
    """An executed instruction of a program; `values` has the registers that it read, and then the one that it wrote,
    as texts."""

    program: Program
    slot: int
    values: str

    @property
    def text(self) -> str:
        """The instruction as the kernel prints it."""
        return insn_line(self.program, self.slot)

    @property
    def source(self) -> str:
        """ "file:line: text" of the instruction, "" where the object has none."""
        return source_of(self.program, self.slot)


@dataclass(frozen=True, slots=True)
class Replay:
    """What a call came to: its last steps, how many there were, and the worlds before and after."""

    outcome: Outcome
    steps: list[Step] = field(repr=False)
    executed: int
    before: World
    after: World

    @property
    def complete(self) -> bool:
        """Whether it came to an end within `MOST_INSTRUCTIONS`."""
        return self.outcome.fault is None or self.outcome.fault.kind != "fuel"


def replay(called: Called, most: int = 16) -> Replay | None:
    """Makes a call again; None where its world was not kept. `most` is how many steps are told."""
    before = called.before
    if before is None and called.fresh:
        before = fresh_world(called.program, called.seed)
        fill(before, called.maps or {})
    if before is None:
        return None
    engine, after = _Tracing(most), before.copy()
    given = as_input(called.program, called.packet, called.context)
    outcome = engine.run(called.program, given, after, Options(fuel=min(called.fuel, MOST_INSTRUCTIONS)))
    return Replay(outcome, list(engine.steps), outcome.insns_executed, before, after)


def changes(before: World, after: World) -> Iterator[str]:
    """What a call did to the maps, a line for each entry: `-` what was there, `+` what is."""
    for name, there in after.maps.items():
        was, now = _entries(before.maps.get(name)), _entries(there)
        changed = [key for key in [*was, *(key for key in now if key not in was)] if was.get(key) != now.get(key)]
        if not changed:
            continue
        yield f"  {name}"
        for key in changed:
            if key in was:
                yield f"-   {was[key]}"
            if key in now:
                yield f"+   {now[key]}"


def _entries(found: Any) -> Mapping[object, str]:
    """A map's entries as texts, by key; of a ring buffer its records by number. Nothing where it cannot be listed."""
    if found is None or found.definition.type == "prog_array":
        return {}
    try:
        if found.definition.type == "ringbuf":
            return {number: f"record of {len(record)} bytes: {record.hex(' ')}" for number, record in enumerate(found)}
        return {repr(key): f"[{shown(key)}] = {shown(value)}" for key, value in found.items()}
    except OSError:
        return {}


class _Tracing(ReferenceEngine):
    """The reference engine, which keeps its last steps."""

    def __init__(self, most: int) -> None:
        self.steps: deque[Step] = deque(maxlen=most)

    def stepper(self, machine: Machine, program: Program, options: Options) -> Stepper:
        """What makes one run, and keeps its steps."""
        return _TracingStepper(machine, program, options, self.steps)


class _TracingStepper(Stepper):
    def __init__(self, machine: Machine, program: Program, options: Options, steps: deque[Step]) -> None:
        super().__init__(machine, program, options)
        self._steps = steps

    def _step(self, at: int, registers: list[int]) -> int | None:
        program, insn = self.program, self.code[at] if 0 <= at < len(self.code) else None
        if insn is None:
            return super()._step(at, registers)
        used = [f"r{number}={self._shown(registers[number])}" for number in sorted(uses_of(insn))]
        after = None
        try:
            after = super()._step(at, registers)
        finally:
            written = defines(insn)
            if written is not None and insn.row.kind is not Kind.EXIT:
                used.append(f"-> r{written}={self._shown(registers[written])}")
            self._steps.append(Step(program, at, " ".join(used)))
        return after

    def _shown(self, value: int) -> str:
        """A number, or the place in memory that it is the address of."""
        region = self.memory.region_at(value) if value >> 16 and value < 1 << 30 else None
        if region is not None and region in self.machine.frames:
            frame = self.machine.frames.index(region)
            off = value - region.end
            return f"fp{frame or ''}{off:+d}" if off else f"fp{frame}"
        if region is not None:
            return f"{region.name}{value - region.base:+d}"
        if value in self.machine.world.handles:
            return f"map {self.machine.world.handles[value].name}"
        return str(value) if value < 1 << 16 else f"{value:#x}"
