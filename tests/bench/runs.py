"""How long a packet takes on each engine, and a run of each program of programs.json, beside the yardstick."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simulator.engines.engine import ENGINES, EngineUnavailable
from simulator.program import MapDef, Object, Program
from simulator.run import run
from simulator.world import World
from tests.agreement.fixtures import fixture
from tests.bench import yardstick
from tests.bench.goals import BATCH, packets_at_once
from tests.bench.timing import microseconds, table

PLAIN = ("ten", "xorshift1k", "cksum")
"""Programs of programs.json that run on memory; what they are to take is in `tests.bench.goals`."""


def report(objects: dict[str, Object]) -> str:
    """Both tables; `objects` has the programs that packets are run through."""
    own = yardstick_times()
    lines = ["Microseconds a packet (a run from Python, maps in a world), and the ratio to the yardstick's xdp:"]
    lines.append(table(("program", *ENGINES), list(_packet_rows(objects, own["xdp"]))))
    lines.append("Microseconds a run of programs.json, and the ratio to the yardstick:")
    lines.append(table(("program", "yardstick", *ENGINES), list(_program_rows(own))))
    return "\n".join(lines)


def yardstick_times() -> dict[str, float]:
    """Microseconds a run of the yardstick, by program."""
    return {name: microseconds(yardstick.prepare(name)) for name in ("ten", "xorshift1k", "cksum", "xdp")}


def _cell(time: float | str, yard: float) -> str:
    return time if isinstance(time, str) else f"{time:.2f} ({time / yard:.4f})"


def _measure(once: Callable[[int], object]) -> float | str:
    """The time, or "-" where the engine cannot do this."""
    try:
        once(0)
    except (EngineUnavailable, ValueError, ModuleNotFoundError):
        return "-"
    return microseconds(once)


def _packet_rows(objects: dict[str, Object], yard: float) -> Iterator[tuple[str, ...]]:
    for name, obj in objects.items():
        case = fixture(name).cases[0]
        packets = [step.packet for step in case.steps if step.packet is not None]
        cells = []
        for engine in ENGINES:
            world = World(obj)
            for map_name, entries in case.before.items():
                for key, value in entries.items():
                    world.maps[map_name][int(key)] = value
            cells.append(_cell(_measure(_packets(obj[name], packets, world, engine)), yard))
        yield (name, *cells)


def _packets(program: Program, packets: list[bytes], world: World, engine: str) -> Callable[[int], object]:
    return lambda number: run(program, packets[number % len(packets)], world, engine)


def _program_rows(own: dict[str, float]) -> Iterator[tuple[str, ...]]:
    memory = bytes.fromhex(yardstick.DATA["data1500"])
    for name in PLAIN:
        program = Program(bytes.fromhex(yardstick.DATA["programs"][name]), "conformance", name=name)
        cells = [_cell(_measure(_memory(program, memory, engine)), own[name]) for engine in ENGINES]
        yield (name, f"{own[name]:.2f}", *cells)
    flows = MapDef("flows", "hash", key_size=16, value_size=16, max_entries=4096)
    program = Program(bytes.fromhex(yardstick.DATA["programs"]["xdp"]), "xdp", [flows], name="xdp")
    cells = [_cell(_measure(_packets(program, yardstick.PACKETS, World(), engine)), own["xdp"]) for engine in ENGINES]
    yield ("xdp", f"{own['xdp']:.2f}", *cells)
    times = [_measure(packets_at_once(program, engine)) for engine in ENGINES]
    cells = [_cell(time if isinstance(time, str) else time / BATCH, own["xdp"]) for time in times]
    yield ("xdp, run_many", f"{own['xdp']:.2f}", *cells)


def _memory(program: Program, memory: bytes, engine: str) -> Callable[[int], object]:
    world = World()
    return lambda number: run(program, {"memory": memory}, world, engine)
