"""What an engine is: something that runs one program on one input in one world, and says what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from simulator.outcome import Outcome
    from simulator.packet import Input
    from simulator.program import Program
    from simulator.world import World

ENGINES = ("reference", "python", "native", "kernel")
"""The names of the engines; `simulator.run.engine_named` makes them."""

DEFAULT_FUEL = 4_000_000
"""Instructions that a run may take: four times what the kernel's verifier is willing to follow."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run. `fuel` is in instructions; `trace` asks for each instruction and register in the outcome's trace;
    `repeat` runs the program that often on the same memory, as the kernel's test run does, and reports the last run.
    """

    fuel: int = DEFAULT_FUEL
    trace: bool = False
    repeat: int = 1


class Engine(Protocol):
    """One way to run programs. Engines of equal worlds give equal outcomes.

    `run` raises `simulator.packet.InputRefused` for an input that the kernel's test run refuses, and
    `EngineUnavailable` where the engine cannot work here at all; whatever the program does is an Outcome.
    """

    name: str

    def run(self, program: Program, given: Input, world: World, options: Options) -> Outcome:
        """Runs the program once (or `options.repeat` times), unverified, changing the world as it does."""
        ...


class EngineUnavailable(RuntimeError):  # noqa: N818
    """This engine cannot run here: a package is missing, or the host refuses bpf(2). The message says what to do."""
