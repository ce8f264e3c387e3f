"""Does what runs hold lie in the verifier's states? `python -m tests.simulator.verifier.soundness --count N --seed S`.

Accepted programs run on the reference engine, on random inputs and at the bounds: packets as long as each range that
the verifier found, and a byte less and more; maps of extreme numbers; random numbers that are extreme. Before each
instruction all registers, and the stack, of all frames are held against the verifier's states there: one of them must
have them all. A fault is a failure, too.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from simulator import verify
from simulator.contexts.windows import WINDOWS
from simulator.engines.engine import Options
from simulator.packet import PACKET_TYPES, Input, InputRefused, as_input
from simulator.program import Program
from simulator.verifier import regs as r
from simulator.verifier.refusal import Refused, Unsupported
from simulator.world import World
from tests.agreement import worlds
from tests.agreement.plausible import OWN, RUNS, VERDICTS, draft
from tests.simulator.verifier.soundness_runs import UnsoundError, Watching
from tests.simulator.verifier.soundness_states import Explored, TooLongError, explore

FUEL = 100_000
RUN_ON_INPUTS = PACKET_TYPES | WINDOWS.keys() | {"syscall"}
AIMS = (VERDICTS, RUNS, RUNS, OWN)

M32 = 0xFFFFFFFF
EXTREMES = (
    0,
    M64 := 0xFFFFFFFFFFFFFFFF,
    1 << 63,
    (1 << 63) - 1,
    0x80000000,
    0x7FFFFFFF,
    0xFFFFFFFF,
    0xFFFFFFFF80000000,
)


@dataclass(frozen=True)
class Size:
    """How much is done for a program: inputs of each kind in each of two worlds, instructions of a run that are
    compared, and the states that it may have whole and pruned."""

    inputs: int
    steps: int
    whole: int
    pruned: int


MANY = Size(4, 3000, 30_000, 100_000)
MIDDLE = Size(4, 500, 3000, 20_000)
FEW = Size(2, 300, 600, 10_000)
"""For large programs, and for tests."""


# ---- programs and inputs ---------------------------------------------------------------------------------------------


def lengths(explored: Explored, rng: random.Random, count: int) -> list[int]:
    """Lengths of packets around the bounds that the verifier found, so many drawn from them."""
    bounds = {14}
    for views in explored.views.values():
        for view in views:
            bounds |= {reg.data for regs, _ in view for reg in regs if r.is_packet(reg.type) and reg.data > 0}
    around = sorted({bound + more for bound in bounds for more in (-1, 0, 1) if 0 < bound + more < 2000})
    return rng.sample(around, min(count, len(around)))


def inputs(program: Program, explored: Explored, rng: random.Random, count: int) -> Iterator[Input]:
    """Random inputs, and where there is a packet or a window on bytes those at the bounds."""
    for given in worlds.inputs(program, rng, count):
        # A socket is the kernel's to give; drawn bytes would be a wild pointer.
        yield Input(given.packet, {name: value for name, value in given.context.items() if name != "sk"})
    window = WINDOWS.get(program.type)
    if program.type not in PACKET_TYPES and window is None:
        return
    for size in lengths(explored, rng, count):
        data = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
        yield Input(None, {window[0]: data}) if window else Input(data, {})


def _extreme_state(world: World, rng: random.Random) -> worlds.State:
    """Maps full of extreme numbers."""
    entries = {}
    for state in worlds.states(world, rng, 2, 1):
        entries = {
            name: [(key, _extreme_bytes(rng, len(value))) for key, value in rows]
            for name, rows in state.entries.items()
        }
    return worlds.State(entries)


def _extreme_bytes(rng: random.Random, size: int) -> bytes:
    word = rng.choice((4, 8))
    parts = [(rng.choice(EXTREMES) & (1 << 8 * word) - 1).to_bytes(word, "little") for _ in range(size // word + 1)]
    return b"".join(parts)[:size]


def check(program: Program, counts: Counter[str], seed: object, size: Size = MANY) -> int:
    """Runs an accepted program; how many instructions were compared. UnsoundError where one held what it must not."""
    before = counts["instructions"] + counts["instructions, pruned"]
    explored = list(_explorations(program, size))
    if not explored:
        counts["programs not explored"] += 1
        return 0
    for one in explored:
        counts["programs explored whole" if one.whole else "programs explored pruned"] += 1
    rng = random.Random(str(seed))
    engine = Watching(explored, counts, size.steps)
    for extreme in (False, True):
        world = worlds.new_world(program, {})
        worlds.put(world, _extreme_state(world, rng) if extreme else list(worlds.states(world, rng, 2, 1))[1])
        if extreme:
            world.helpers.bpf_get_prandom_u32.does(lambda call: rng.choice(EXTREMES) & M32)
        for given in inputs(program, explored[-1], rng, size.inputs):
            _run(engine, program, given, world)
    return counts["instructions"] + counts["instructions, pruned"] - before


def _explorations(program: Program, size: Size) -> Iterator[Explored]:
    for whole in (True, False):
        try:
            yield explore(program, size.whole if whole else size.pruned, whole)
        except (TooLongError, Unsupported):
            continue
        except Refused as refused:
            raise UnsoundError(f"accepted for a path was pruned that is refused: {refused}") from refused


def _run(engine: Watching, program: Program, given: Input, world: World) -> None:
    counts = engine.counts
    try:
        outcome = engine.run(program, as_input(program, given.packet, given.context), world, Options(fuel=FUEL))
    except InputRefused:
        counts["inputs refused"] += 1
        return
    counts["runs"] += 1
    world.clock.advance(s=1)
    if outcome.fault is not None:
        counts[f"runs ended by {outcome.fault.kind}"] += 1
        if outcome.fault.kind not in ("helper", "fuel"):
            raise UnsoundError(f"fault of an accepted program: {outcome.fault}")


def check_seed(seed: int, counts: Counter[str], size: Size = MANY) -> int:
    """The same of the generated program of a seed, where it is accepted."""
    program = draft(seed, AIMS[seed % len(AIMS)]).program()
    if not verify(program, log_level=0).accepted:
        counts["programs refused"] += 1
        return 0
    return check(program, counts, seed, size)


KERNELS_OWN = {
    # 6.18 takes a store behind a tail call for one on every way, and so prunes the way that leaves by the tail call.
    "caller_stack_write_tail_call",
}
"""Programs of the kernel's own tests that 6.18 accepts, as we do, and that are not safe."""


def check_record(record: Mapping[str, Any], blobs: Mapping[str, bytes], counts: Counter[str], size: Size) -> int:
    """The same of an accepted program of a corpus, where what it runs on is not the kernel's own structures."""
    if record["id"].rpartition("/")[2] in KERNELS_OWN:
        counts["programs set aside: the kernel is wrong of them"] += 1
        return 0
    program = Program.from_record(record, blobs)
    if program.type not in RUN_ON_INPUTS:
        counts["programs set aside: they run on the kernel's own structures"] += 1
        return 0
    if not verify(program, log_level=0).accepted:
        counts["programs refused"] += 1
        return 0
    return check(program, counts, record["id"], size)


def _corpus(path: Path) -> Iterator[tuple[str, Callable[[Counter[str], Size], int]]]:
    with gzip.open(path.with_name("btf.jsonl.gz"), "rt") as lines:
        blobs = {row["name"]: bytes.fromhex(row["hex"]) for row in map(json.loads, lines)}
    with gzip.open(path, "rt") as lines:
        rows = [row for row in map(json.loads, lines) if row["verdict"] == "accept"]
    for row in random.Random(0).sample(rows, len(rows)):
        yield row["id"], partial(check_record, row, blobs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints how many values were compared, by kind; exit code 1 where one lies in no state."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator.verifier.soundness", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="how many programs to generate")
    parser.add_argument("--seed", type=int, default=int(time.strftime("%Y%m%d")) * 1_000_000, help="(from the date)")
    parser.add_argument("--corpus", type=Path, help="records in place of generated ones, as of tests.agreement.engines")
    parser.add_argument("--runs", type=int, default=4, metavar="N", help="inputs of each kind, in each of two worlds")
    parser.add_argument("--seconds", type=float, default=float("inf"), metavar="S", help="stop after so long")
    options = parser.parse_args(arguments)
    seeds = range(options.seed, options.seed + options.count)
    generated = ((f"seed {seed}", partial(check_seed, seed)) for seed in seeds)
    programs = _corpus(options.corpus) if options.corpus else generated
    size = replace(MIDDLE if options.corpus else MANY, inputs=options.runs)
    counts: Counter[str] = Counter()
    start, wrong, done = time.monotonic(), 0, 0
    for name, one in programs:
        try:
            one(counts, size)
        except UnsoundError as error:
            wrong += 1
            print(f"{name}: {error}")
        done += 1
        if time.monotonic() - start > options.seconds:
            break
    of = options.corpus or f"seed {options.seed}"
    print(f"{of}, {done} programs, {wrong} unsound, {time.process_time():.0f} CPU seconds")
    for name, count in sorted(counts.items()):
        print(f"{count:>12,}  {name}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
