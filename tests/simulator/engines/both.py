"""Runs a program on the simulating engines and holds them to each other."""

from __future__ import annotations

from typing import Any

from simulator.engines.engine import Options
from simulator.outcome import Outcome
from simulator.packet import as_input
from simulator.program import Program
from simulator.run import engine_named
from simulator.world import World


def compiled_world(world: World, program: Program) -> World:
    """The world, in which the python engine compiles this program at its first run."""
    engine = engine_named("python")
    engine.link(program, world).waits = 0  # type: ignore[attr-defined]
    return world


def both(
    program: Program, given: Any = None, fuel: int = 100_000, world: World | None = None
) -> tuple[Outcome, Outcome]:
    """The outcomes on `reference` and `python`, each in its own copy of the world."""
    options, start = Options(fuel=fuel), world or World()
    first, second = start.copy(), compiled_world(start.copy(), program)
    made = as_input(program, given)
    return (
        engine_named("reference").run(program, made, first, options),
        engine_named("python").run(program, made, second, options),
    )


def agreed(program: Program, given: Any = None, fuel: int = 100_000, world: World | None = None) -> Outcome:
    """The outcome, which has to be the same on both but for the count of instructions."""
    reference, python = both(program, given, fuel, world)
    assert python.fault == reference.fault
    assert (python.r0, python.packet, python.context) == (reference.r0, reference.packet, reference.context)
    assert (python.redirect, python.trace) == (reference.redirect, reference.trace)
    return reference
