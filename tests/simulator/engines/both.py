"""Runs a program on the simulating engines and holds them to each other."""

from __future__ import annotations

from typing import Any

from simulator.engines.engine import Options
from simulator.outcome import Outcome
from simulator.packet import as_input
from simulator.program import Program
from simulator.run import engine_named
from simulator.world import World
from tests.engines import HERE


def compiled_world(world: World, program: Program) -> World:
    """The world, in which the python engine compiles this program at its first run."""
    engine = engine_named("python")
    engine.link(program, world).waits = 0  # type: ignore[attr-defined]
    return world


def both(program: Program, given: Any = None, fuel: int = 100_000, world: World | None = None) -> tuple[Outcome, ...]:
    """The outcomes on `reference`, `python` and, where it works, `native`, each in its own copy of the world."""
    options, start = Options(fuel=fuel), world or World()
    worlds = {name: start.copy() for name in HERE}
    compiled_world(worlds["python"], program)
    made = as_input(program, given)
    return tuple(engine_named(name).run(program, made, own, options) for name, own in worlds.items())


def agreed(program: Program, given: Any = None, fuel: int = 100_000, world: World | None = None) -> Outcome:
    """The outcome, which has to be the same on all; the count of instructions on those that keep it."""
    reference, *others = both(program, given, fuel, world)
    for outcome in others:
        assert outcome.fault == reference.fault
        assert (outcome.r0, outcome.packet, outcome.context) == (reference.r0, reference.packet, reference.context)
        assert (outcome.redirect, outcome.trace) == (reference.redirect, reference.trace)
        assert outcome.insns_executed in (0, reference.insns_executed)
    return reference
