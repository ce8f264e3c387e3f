"""How long a packet takes in the kernel: the test run's own mean over many repetitions, compilers taking turns.

The packets are those of the fixtures' cases, in the world that the case begins with. What a program writes stays for
the next repetition, in the packet and in the maps: the second time, an answered request is no request any more. So
where a packet is rewritten, what is measured is mostly the way of a packet that was rewritten before, for every
compiler alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from simulator.engines import bpf_syscall
from simulator.engines.engine import EngineUnavailable
from simulator.engines.kernel_context import context_given
from simulator.packet import as_input
from simulator.program import Program
from simulator.run import run
from simulator.world import World
from tests.agreement.fixtures import Case, Step, world_before
from tests.bench.variants import Row, Variant

ROUNDS = 9
REPEAT = 20_000
RECORDS = 100
"""Repetitions of what fills a ring buffer, which is emptied between rounds: so many records fit into the smallest."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One packet for one program as one variant made it, in a world of its own."""

    row: Row
    variant: Variant
    step: Step
    program: Program
    world: World

    def once(self) -> float:
        """Nanoseconds a repetition, now. The run before it loads the program and empties ring buffers."""
        run(self.program, self.step.packet, self.world, "kernel", context=self.step.context or {})
        handle = self.world.engine_state["kernel"].loaded[id(self.program)][1]
        given = as_input(self.program, self.step.packet, self.step.context or {})
        repeat = RECORDS if any(each.type == "ringbuf" for each in self.program.maps) else REPEAT
        ran = bpf_syscall.prog_test_run(handle.fd, given.packet, context_given(self.program, given), repeat=repeat)
        return ran.duration


def nanoseconds(found: Sequence[Row]) -> dict[tuple[str, Variant], float]:
    """Nanoseconds a packet by program and variant: of each packet the least of the rounds, of a program the mean."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        return {key: time for row in found for key, time in _of_program(row)}
    finally:
        os.sched_setaffinity(0, before)


def _of_program(row: Row) -> Iterator[tuple[tuple[str, Variant], float]]:
    runs = [each for case in row.fixture.cases if _measurable(case, row) for each in _runs(row, case)]
    least: dict[int, float] = {}
    for _ in range(ROUNDS):
        for at, each in enumerate(runs):
            try:
                least[at] = min(least.get(at, float("inf")), each.once())
            except EngineUnavailable:
                return
    for variant in row.made if runs else ():
        times = [least[at] for at, each in enumerate(runs) if each.variant == variant]
        yield (row.name, variant), sum(times) / len(times)


def _measurable(case: Case, row: Row) -> bool:
    return case.program == row.program and "kernel" in case.engines and case.cpu == 0


def _runs(row: Row, case: Case) -> Iterator[_Run]:
    for step in case.steps:
        if step.packet is None:
            continue
        for variant, program in row.made.items():
            names: Mapping[str, str] = row.names(variant)
            yield _Run(row, variant, step, program, world_before(case, row.objects[variant], names))
