"""Runs a function in the intermediate form and as machine code, in equal surroundings, and gives what can be seen."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from bpflisp.back import Code
from bpflisp.ir import interp
from bpflisp.ir.interp import Memory
from bpflisp.ir.ssa import Function, MapRef

from .generate import PACKET_SIZE
from .machine_run import Machine

CONTEXT, PACKET, VALUES, MAP = 0x1000_0000, 0x2000_0000, 0x3000_0000, 0x4000_0000


@dataclass(slots=True)
class Surroundings:
    """Memory, and a helper whose answers depend on what it is given alone; `seen` is what it was given."""

    seed: int
    memory: Memory = field(default_factory=Memory)
    seen: list[tuple[int | str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        r = random.Random(self.seed)
        fields = [PACKET, PACKET + PACKET_SIZE, r.getrandbits(32), r.getrandbits(32), r.choice((0, 1, 7))]
        self.memory.add(CONTEXT, b"".join(number.to_bytes(4, "little") for number in fields))
        self.memory.add(PACKET, r.randbytes(PACKET_SIZE))
        self.memory.add(VALUES, r.randbytes(64))

    def helper(self, number: int | str, args: Sequence[int], memory: Memory) -> int:
        if number == 7:
            self.seen.append((7, 0))
            return (len(self.seen) * 0x9E3779B97F4A7C15 + self.seed) & 0xFFFFFFFF
        assert number == 1
        assert args[0] == MAP
        key = memory.read(args[1], 4)
        self.seen.append((1, key))
        return VALUES + key * 8 if key < 8 else 0

    def state(self) -> tuple[object, ...]:
        return tuple(bytes(self.memory.regions[base]) for base in (CONTEXT, PACKET, VALUES)), tuple(self.seen)


def run_function(function: Function, seed: int) -> tuple[object, ...]:
    around = Surroundings(seed)
    result = interp.run(function, [CONTEXT], around.memory, around.helper, {MapRef("m"): MAP}, {})
    return result, *around.state()


def run_code(code: Code, seed: int) -> tuple[object, ...]:
    around = Surroundings(seed)
    result = Machine(code, around.memory, around.helper, {("map", "m"): MAP}).run([CONTEXT])
    return result, *around.state()
