"""Does what runs hold lie in the verifier's states? `python -m tests.simulator.verifier.soundness --count N --seed S`.

Accepted programs run on the reference engine, on random inputs and at the bounds: packets as long as each range that
the verifier found, and a byte less and more; maps of extreme numbers; random numbers that are extreme. Before each
instruction all registers, and the stack, of all frames are held against the verifier's states there: one of them must
have them all. A fault is a failure, too.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from simulator import verify
from simulator.contexts.windows import WINDOWS
from simulator.engines.engine import Options
from simulator.engines.reference import ReferenceEngine, Stepper
from simulator.machine import Machine
from simulator.outcome import Fault
from simulator.packet import PACKET_TYPES, Input, InputRefused, as_input
from simulator.program import Program
from simulator.verifier import regs as r
from simulator.verifier.refusal import Unsupported
from simulator.verifier.state import ZEROED
from simulator.world import World
from tests.agreement import worlds
from tests.agreement.plausible import OWN, RUNS, VERDICTS, draft
from tests.simulator.verifier.soundness_states import Explored, Place, TooLongError, View, explore
from tests.simulator.verifier.soundness_values import Truth, count_value

FUEL = 100_000
NOBODYS = bytes([0xA5]) * 512
"""What a frame holds before it is written to: what is taken for zero without being written is seen."""
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
FEW = Size(2, 300, 1000, 10_000)
"""For tests."""


class UnsoundError(AssertionError):
    """A run held what no state of the verifier allows, or faulted."""


@dataclass
class Call:
    """A function under way: its first slot, where it stands, its registers; whether it was verified by itself."""

    start: int
    alone: bool
    pc: int = 0
    registers: list[int] = field(default_factory=list)


class Watching(ReferenceEngine):
    """The reference engine, which holds each step against the states of a program."""

    def __init__(self, explored: Sequence[Explored], counts: Counter[str], steps: int) -> None:
        self.explored, self.counts, self.steps = explored, counts, steps

    def stepper(self, machine: Machine, program: Program, options: Options) -> Stepper:
        machine.blank = NOBODYS
        machine.begin()
        return Watched(self, machine, program, options)


class Watched(Stepper):
    """One run, watched."""

    def __init__(self, owner: Watching, machine: Machine, program: Program, options: Options) -> None:
        super().__init__(machine, program, options)
        self.owner = owner
        self.calls = [Call(0, True)]
        self.away = 0
        self.called_back = False

    def _step(self, at: int, registers: list[int]) -> int | None:
        call = self.calls[-1]
        call.pc, call.registers = at, registers
        if not self.away and self.executed < self.owner.steps:
            self._hold()
        return super()._step(at, registers)

    def _function(self, start: int, arguments: Sequence[int]) -> int:
        functions = self.owner.explored[0].layout.subprograms
        alone = not self.called_back and any(one.start == start and one.is_global for one in functions)
        self.called_back = False
        self.calls.append(Call(start, alone or not self.calls))
        try:
            return super()._function(start, arguments)
        finally:
            self.calls.pop()

    def _call_back(self, address: int, arguments: Sequence[int]) -> int:
        self.called_back = True
        return super()._call_back(address, arguments)

    def execute(self, registers: Sequence[int]) -> tuple[int, Fault | None]:
        try:
            return super().execute(registers)
        finally:
            # What is called from now on, as by a timer, the verifier looked at by itself.
            self.calls.clear()

    def _tail_call(self, registers: list[int]) -> int | None:
        self.away += 1
        try:
            return super()._tail_call(registers)
        finally:
            self.away -= 1

    def _hold(self) -> None:
        """Holds the frames, from the last function inwards that was verified by itself, against each exploration."""
        calls = self.calls
        chain = calls[max(number for number, call in enumerate(calls) if call.alone) :]
        outermost = self.machine.depth - len(chain) + 1
        stacks = [bytes(self.machine.frames[outermost + number].view) for number in range(len(chain))]
        for explored in self.owner.explored:
            functions = explored.layout.subprogram_of
            place = functions[chain[0].start], tuple(call.pc for call in chain[:-1]), chain[-1].pc
            truth = Truth(self.machine, explored.layout, outermost, explored.whole)
            _hold(self.owner.counts, explored, place, truth, chain, stacks)


def _hold(
    counts: Counter[str],
    explored: Explored,
    place: Place,
    truth: Truth,
    chain: Sequence[Call],
    stacks: Sequence[bytes],
) -> None:
    views = explored.views.get(place, [])
    live = explored.live(place) if views else []
    for number, view in enumerate(views):
        if not misfit(truth, view, chain, stacks, live):
            if number:
                # The next run comes this way again, and the next round of a loop.
                views.insert(0, views.pop(number))
            _count(counts, explored, view, live)
            return
    reasons = dict.fromkeys(misfit(truth, view, chain, stacks, live) for view in views)
    registers = " ".join(f"r{number}={value:#x}" for number, value in enumerate(chain[-1].registers))
    how = "whole" if explored.whole else "pruned"
    raise UnsoundError(f"at {place} ({how}, {len(views)} states): {registers}\n  " + "\n  ".join(list(reasons)[:5]))


def misfit(
    truth: Truth, view: View, chain: Sequence[Call], stacks: Sequence[bytes], live: Sequence[tuple[int, int]]
) -> str:
    """What of a run does not lie in a state, "" where all does."""
    for number, ((regs, slots), call, stack, (live_regs, live_slots)) in enumerate(
        zip(view, chain, stacks, live, strict=True)
    ):
        for register, (reg, value) in enumerate(zip(regs, call.registers, strict=True)):
            if live_regs >> register & 1 and not truth.fits(reg, value):
                return f"frame {number}: r{register}={value:#x} is no {_text(reg)}"
        for spi, slot in enumerate(slots):
            end = len(stack) - 8 * spi
            if live_slots >> spi & 1 and not truth.slot_fits(slot, stack[end - 8 : end]):
                found = stack[end - 8 : end].hex(" ")
                return (
                    f"frame {number}: fp{-8 * spi - 8} holds {found}, which is no {_text(slot.reg)} {slot.types.hex()}"
                )
    return ""


def _text(reg: r.Reg) -> str:
    return f"{r.type_name(reg.type)}(off={reg.off}, {reg.num!r}, data={reg.data!r})"


def _count(counts: Counter[str], explored: Explored, view: View, live: Sequence[tuple[int, int]]) -> None:
    counts["instructions"] += explored.whole
    counts["instructions, pruned"] += not explored.whole
    counts[f"instructions in frame {len(view) - 1}"] += 1
    for (regs, slots), (live_regs, live_slots) in zip(view, live, strict=True):
        for register, reg in enumerate(regs):
            if live_regs >> register & 1 and (explored.whole or reg.type != r.SCALAR):
                count_value(counts, reg)
        for spi, slot in enumerate(slots):
            if live_slots >> spi & 1:
                counts["spilled slots"] += slot.is_spill
                counts["zero bytes"] += slot.types.count(ZEROED)


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
        with suppress(TooLongError, Unsupported):
            yield explore(program, size.whole if whole else size.pruned, whole)


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints how many values were compared, by kind; exit code 1 where one lies in no state."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator.verifier.soundness", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="how many programs to generate")
    parser.add_argument("--seed", type=int, default=int(time.strftime("%Y%m%d")) * 1_000_000, help="(from the date)")
    parser.add_argument("--runs", type=int, default=4, metavar="N", help="inputs of each kind, in each of two worlds")
    parser.add_argument("--seconds", type=float, default=float("inf"), metavar="S", help="stop after so long")
    options = parser.parse_args(arguments)
    counts: Counter[str] = Counter()
    start, wrong, done = time.monotonic(), 0, 0
    for seed in range(options.seed, options.seed + options.count):
        try:
            check_seed(seed, counts, replace(MANY, inputs=options.runs))
        except UnsoundError as error:
            wrong += 1
            print(f"seed {seed}: {error}")
        done += 1
        if time.monotonic() - start > options.seconds:
            break
    print(f"seed {options.seed}, {done} programs, {wrong} unsound, {time.process_time():.0f} CPU seconds")
    for name, count in sorted(counts.items()):
        print(f"{count:>12,}  {name}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
