"""Format strings drawn at random, through bpf_snprintf: what stands in the buffer, and the length that it returns.

`python -m tests.agreement.formats --count N --seed S` holds them against the running kernel; `--keep` rewrites
fixtures/runs/formats.json with what it answered to the first KEPT of them, "" where it refuses the program.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from pathlib import Path

from bpflisp.spec.isa import Op
from simulator.engines.kernel import KernelRefusedError
from simulator.program import MapDef, Program
from simulator.run import run
from simulator.world import World
from tests.simulator.assembly import EXIT, big, call, copy, imm, mov, program, store, value_of

FIXTURE = Path(__file__).parents[2] / "fixtures" / "runs" / "formats.json"
KEPT = 800
_SNPRINTF = 165
_RESULT = MapDef("result", "array", 4, 256, 1)
_TEXT = 64
_FLAGS, _WIDTHS = (b"", b"", b"0", b"-", b"+", b" ", b"#", b"-0"), (b"", b"", b"1", b"5", b"12")
_KINDS = (
    b"d", b"u", b"i", b"x", b"X", b"ld", b"lu", b"lx", b"lX", b"lld", b"llu", b"llx", b"c", b"px", b"s", b"s", b"pi4",
    b"pI4", b"pi6", b"pI6", b"pks", b"pus", b"pB", b"ps", b"pS", b"lc", b"hd", b"o", b"z", b"%",
)  # fmt: skip
"""Not %p and %pK: what they print is the kernel's secret."""
_NUMBERS = (0, 5, -1, 65, 0x1234_5678, 0xFFFF_FFFF, 1 << 40, -(1 << 63), 0x8000_0000, 300)
_STRINGS = (
    b"hello world\0", bytes(range(1, 9)) + bytes(7) + b"\1", b"\x7f\0\0\1abcd", bytes(16), b"\xff\xfeA\0zz",
)  # fmt: skip


def case(seed: int) -> Program:
    """The program of a seed: the text and its strings are in a map that it may not write."""
    rng = random.Random(seed)
    text, arguments = b"", list[int | str]()
    for _ in range(rng.randrange(1, 4)):
        kind = rng.choice(_KINDS)
        text += rng.choice((b"", b"a", b" x=", b"%%")) + b"%" + rng.choice(_FLAGS) + rng.choice(_WIDTHS) + kind
        text += rng.choice((b"", b"", b" ", b"z"))
        if kind in (b"s", b"pks", b"pus") or kind[:-1] in (b"pi", b"pI"):
            arguments.append(rng.choice(("first", "second")))
        elif kind != b"%":
            arguments.append(rng.choice(_NUMBERS))
    # Where a text that stands for an address does not fit, the kernel takes what is left of it for the next argument.
    rooms = (200,) if b"%p" in text or re.search(rb"%[-+ 0]*\d*p", text) else (0, 1, 2, 5, 10, 40, 100)
    return _program(text, arguments, rng.choice(_STRINGS), rng.choice(rooms))


def _program(text: bytes, arguments: list[int | str], strings: bytes, room: int) -> Program:
    data = text.ljust(_TEXT, b"\0") + strings.ljust(_TEXT, b"\0")
    constants = MapDef("constants", "array", 4, len(data), 1, flags=0x80, init=data, frozen=True)
    code, size = [value_of(7, 0)], 8 * len(arguments)
    for number, argument in enumerate(arguments):
        if isinstance(argument, int):
            code.append(big(1, argument & (1 << 64) - 1))
        else:
            code.append(value_of(1, 1, _TEXT + (4 if argument == "second" else 0)))
        code.append(store(8, 10, 8 * number - size, 1))
    code += [copy(1, 7), imm(Op.ADD, 1, 8), mov(2, room), value_of(3, 1), mov(5, size)]
    code += [copy(4, 10), imm(Op.ADD, 4, -size)] if size else [mov(4, 0)]
    return program([*code, call(_SNPRINTF), store(8, 7, 0, 0), mov(0, 0), EXIT], "sched_cls", (_RESULT, constants))


def answer(made: Program, engine: str) -> str:
    """The returned number and the buffer, in hex; "" where the kernel refuses the program."""
    world = World()
    try:
        outcome = run(made, bytes(64), world, engine)
    except KernelRefusedError:
        return ""
    assert outcome.fault is None, outcome.fault
    ((_, value),) = world.bind(made)[0].raw_items()
    return value.hex().rstrip("0")


def recorded() -> dict[int, str]:
    """What the kernel answered, by seed."""
    return {int(seed): found for seed, found in json.loads(FIXTURE.read_text())["answers"].items()}


def main() -> int:
    """Compares an engine with the kernel, case by case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="reference")
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    if given.keep:
        about = "What kernel 6.18.44 answered to tests/agreement/formats.py, by seed."
        answers = {seed: answer(case(seed), "kernel") for seed in range(KEPT)}
        FIXTURE.write_text(json.dumps({"_about": about, "answers": answers}, indent=0) + "\n")
    different = 0
    for seed in range(given.seed, given.seed + given.count):
        made = case(seed)
        kernel = answer(made, "kernel")
        if kernel and (ours := answer(made, given.engine)) != kernel:
            different += 1
            print(f"seed {seed}: {made.maps[1].init!r}\n  {kernel}\n  {ours}")
    print(f"{given.count} formats, {different} different")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
