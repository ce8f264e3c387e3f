"""Calls of programs as tests make them: verified once, run in a fresh world, on one engine or on all of them.

Invariant: what a call does besides its arguments hangs on `Settings` alone, and those are set for a stretch of a test
run by `using`; nothing else is remembered but verdicts, which are the same every time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulator.comparing import difference, kernel_cannot
from simulator.contexts import model_for
from simulator.engines.engine import DEFAULT_FUEL, ENGINES, EngineUnavailable
from simulator.results import FaultError, RefusedError, Result
from simulator.run import engine_named, run
from simulator.world import World

if TYPE_CHECKING:
    from simulator.outcome import Outcome
    from simulator.program import Program
    from simulator.verdict import Verdict

ALL = ("python", *(name for name in ENGINES if name != "python"))
"""Every engine, first the one whose world goes on where a call runs on all of them."""

_NO_FIELDS: Mapping[str, Any] = {}


def _ignore(engine: str, why: str) -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class Called:
    """A call of a program, to be made again: what it was given. `world` goes on after the call; `before` may keep a
    copy of it. A fresh world is made of `seed` and `maps`."""

    program: Program
    packet: Any
    engine: str
    context: Mapping[str, Any]
    fuel: int
    seed: int
    maps: Mapping[str, Any] | None
    fresh: bool
    world: World
    before: World | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What calls do where they are not told: on which engines they run, for which kernels they are verified.

    `engines` with several names runs each call on all of them, and any difference is an error; `left_out` is told which
    engine could not take part in a call, and why. `kernel_btf` is what `verify` is given; `seed` that of fresh worlds.
    `watch` is told of each call, before it runs; `once` is entered around what is done once for a program.
    """

    engines: tuple[str, ...] = ("python",)
    kernels: tuple[str, ...] = ("6.18",)
    verify: bool = True
    kernel_btf: Any = None
    seed: int = 0
    left_out: Callable[[str, str], None] = field(default=_ignore, compare=False)
    watch: Callable[[Called], None] | None = field(default=None, compare=False)
    once: Callable[[], AbstractContextManager[object]] = field(default=nullcontext, compare=False)


_SETTINGS: ContextVar[Settings] = ContextVar("settings", default=Settings())  # noqa: B039  it is frozen


def settings_now() -> Settings:
    """The settings in force here."""
    return _SETTINGS.get()


@contextmanager
def using(settings: Settings) -> Iterator[None]:
    """Puts settings in force for a while."""
    token = _SETTINGS.set(settings)
    try:
        yield
    finally:
        _SETTINGS.reset(token)


class EnginesDifferError(AssertionError):
    """Engines came to different results from equal worlds."""


def call(
    program: Program,
    packet: Any = None,
    *,
    maps: Mapping[str, Any] | None = None,
    world: World | None = None,
    engine: str = "",
    kernel: str = "",
    verify: bool | None = None,
    context: Mapping[str, Any] = _NO_FIELDS,
    fuel: int = DEFAULT_FUEL,
) -> Result:
    """Verifies a program, once for each kernel, and runs it on one input. See `simulator.program.Program.__call__`."""
    settings = settings_now()
    if settings.verify if verify is None else verify:
        for version in (kernel,) if kernel else settings.kernels:
            require_accepted(program, version, settings.kernel_btf)
    fresh = world is None
    if world is None:
        world = fresh_world(program, settings.seed)
    if maps is not None:
        fill(world, maps)
    if hasattr(packet, "build"):
        packet = bytes(packet)
    engines = engines_named(engine) if engine else settings.engines
    if settings.watch is not None:
        settings.watch(Called(program, packet, engines[0], context, fuel, settings.seed, maps, fresh, world))
    if len(engines) == 1:
        return _result(program, _run(program, packet, world, engines[0], context, fuel), engines[0])
    return _on_all(program, packet, world, engines, context, fuel)


def engines_named(name: str) -> tuple[str, ...]:
    """The engines that a name means: itself, or every one for "all"."""
    return ALL if name == "all" else (name,)


def verdict_on(program: Program, kernel: str, kernel_btf: Any = None) -> Verdict:
    """The verdict on a program, asked for once for each kernel."""
    known: dict[tuple[str, int], Verdict] = program.__dict__.setdefault("_verdicts", {})
    key = kernel, id(kernel_btf)
    if key not in known:
        with settings_now().once():
            known[key] = program.verify(kernel, kernel_btf)
            # What a run needs is imported with it.
            engine_named("python")
            model_for(program)
    return known[key]


def require_accepted(program: Program, kernel: str, kernel_btf: Any = None) -> None:
    """Raises RefusedError where that kernel's verifier refuses the program."""
    verdict = verdict_on(program, kernel, kernel_btf)
    if not verdict.accepted:
        raise RefusedError(program, verdict)


def fresh_world(program: Program, seed: int = 0) -> World:
    """A world with the program's maps, and with the programs of its object for its prog arrays."""
    world = World(seed=seed)
    world.add_programs(program.siblings)
    world.bind(program)
    return world


def fill(world: World, maps: Mapping[str, Any]) -> None:
    """Sets entries of maps by name: a mapping of keys to values, or a list of an array's values.

    Raises KeyError for a map that is not there, and what the map raises for a value that does not fit.
    """
    for name, entries in maps.items():
        target = world.maps[name]
        if not isinstance(entries, Mapping | Sequence) or isinstance(entries, str | bytes):
            raise TypeError(f"maps: {name} is given a mapping of keys to values, or an array's values, not {entries!r}")
        pairs = entries.items() if isinstance(entries, Mapping) else enumerate(entries)
        for key, value in pairs:
            target[key] = value


def _result(program: Program, outcome: Outcome, engine: str) -> Result:
    if outcome.fault is not None:
        raise FaultError(program, outcome, engine)
    return Result(program, outcome, engine)


def _on_all(
    program: Program, packet: Any, world: World, engines: tuple[str, ...], context: Mapping[str, Any], fuel: int
) -> Result:
    """Runs the input on every engine that can, from equal worlds; the given world goes on as the first one left it."""
    first: tuple[str, Outcome, World] | None = None
    reasons = []
    before = world.copy()
    for engine in engines:
        own = world if first is None else before.copy()
        try:
            if engine == "kernel" and (why := kernel_cannot(program)):
                raise EngineUnavailable(why)
            outcome = _run(program, packet, own, engine, context, fuel)
        except EngineUnavailable as error:
            reasons.append(f"{engine}: {error}")
            settings_now().left_out(engine, str(error))
            continue
        if first is None:
            first = engine, outcome, own
        elif different := difference(first, (engine, outcome, own)):
            raise EnginesDifferError("\n".join(different))
    if first is None:
        raise EngineUnavailable("; ".join(reasons))
    return _result(program, first[1], first[0])


def _run(program: Program, packet: Any, world: World, engine: str, context: Mapping[str, Any], fuel: int) -> Outcome:
    """Runs on one engine. Raises EngineUnavailable also for one that this version does not have."""
    try:
        engine_named(engine)
    except ValueError:
        if engine not in ENGINES:
            raise
        raise EngineUnavailable(f"this version has no engine {engine!r} yet") from None
    return run(program, packet, world, engine, context=context, fuel=fuel)
