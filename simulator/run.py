"""Runs a program: the input checked, the engine found by its name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from simulator.engines.engine import DEFAULT_FUEL, ENGINES, Engine, Options
from simulator.outcome import Outcome, Outcomes
from simulator.packet import as_input
from simulator.program import Program
from simulator.world import World

if TYPE_CHECKING:
    from simulator.engines.python import PythonEngine

_ENGINES: dict[str, Engine] = {}
_DEFAULT = Options()
_STANDING_IN: list[Mapping[str, Engine]] = []
"""What stands in for engines now: then no run that a world has ready may be taken."""
_NO_FIELDS: Mapping[str, Any] = {}


def run(
    program: Program,
    packet: Any = None,
    world: World | None = None,
    engine: str = "python",
    *,
    context: Mapping[str, Any] = _NO_FIELDS,
    fuel: int = DEFAULT_FUEL,
    trace: bool = False,
    repeat: int = 1,
) -> Outcome:
    """Runs a program once, unverified, in `world` (a fresh one if none is given), and says what came of it.

    `packet` is bytes, a scapy packet, or a mapping of context fields; `context` has fields besides a packet. `fuel` is
    how many instructions the run may take, `trace` asks for each of them (on every engine but `kernel` the
    reference engine makes such a run), `repeat` runs that often on the same memory.

    Raises InputRefused for what the kernel's test run refuses, ValueError for an unknown engine, EngineUnavailable
    where it cannot work here. What the program does wrong is the outcome's fault.
    """
    # What is left as it is by default is the very same object, which is quicker to see than an equal one.
    if type(packet) is bytes and engine == "python" and fuel is DEFAULT_FUEL and repeat == 1 and not (trace or context):
        if world is not None and (ready := world.ready) is not None and ready[0] is program and not _STANDING_IN:
            outcome: Outcome = ready[1](packet)
            return outcome
        return _python().run_packet(program, packet, world)
    found = _ENGINES.get(engine) or engine_named(engine)
    given = as_input(program, packet, context)
    options = _DEFAULT if fuel == DEFAULT_FUEL and not trace and repeat == 1 else Options(fuel, trace, repeat)
    return found.run(program, given, world if world is not None else World(), options)


def run_many(
    program: Program,
    packets: Iterable[Any],
    world: World | None = None,
    engine: str = "python",
    *,
    fuel: int = DEFAULT_FUEL,
) -> Outcomes:
    """Runs a program on each of these inputs, one after the other in one world: the same as `run` as often.

    The engine `native` takes XDP packets in batches. Inputs, and what is raised, are as for `run`.
    """
    found, options = engine_named(engine), _DEFAULT if fuel == DEFAULT_FUEL else Options(fuel)
    inputs, world = list(packets), world if world is not None else World()
    in_batches = getattr(found, "run_many", None)
    if in_batches is not None:
        outcomes: Outcomes = in_batches(program, inputs, world, options)
        return outcomes
    return Outcomes([run(program, packet, world, engine, fuel=fuel) for packet in inputs])


def _python() -> PythonEngine:
    found: Any = _ENGINES.get("python") or engine_named("python")
    return found  # type: ignore[no-any-return]


def engine_named(name: str) -> Engine:
    """The engine of this name, made when it is first asked for."""
    if name not in _ENGINES:
        _ENGINES[name] = _make(name)
    return _ENGINES[name]


@contextmanager
def standing_in(engines: Mapping[str, Engine]) -> Iterator[None]:
    """Lets these engines run in the place of those of their names, while it lasts."""
    before = {name: _ENGINES.pop(name, None) for name in engines}
    _ENGINES.update(engines)
    _STANDING_IN.append(engines)
    try:
        yield
    finally:
        _STANDING_IN.pop()
        for name, engine in before.items():
            del _ENGINES[name]
            if engine is not None:
                _ENGINES[name] = engine


def _make(name: str) -> Engine:
    if name == "reference":
        from simulator.engines.reference import ReferenceEngine

        return ReferenceEngine()
    if name == "python":
        from simulator.engines.python import PythonEngine

        return PythonEngine()
    if name == "native":
        from simulator.engines.native.engine import NativeEngine

        return NativeEngine()
    if name == "kernel":
        from simulator.engines.kernel import KernelEngine

        return KernelEngine()
    raise ValueError(f"no engine {name!r}: there are {', '.join(ENGINES)}")
