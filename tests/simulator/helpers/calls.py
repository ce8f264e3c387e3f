"""Calls of helpers as small programs: the arguments in a table, what the kernel answered in a fixture.

`python -m tests.simulator.helpers.calls` asks the running kernel again and rewrites fixtures/runs/helpers.json.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bpflisp.spec import helpers as spec
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Op
from simulator.outcome import Outcome
from simulator.packet import InputRefused
from simulator.program import MapDef, Program
from simulator.run import run
from simulator.world import World
from tests.simulator.assembly import EXIT, big, call, copy, imm, load, map_of, mov, program, reg, store_imm

FIXTURE = Path(__file__).parents[3] / "fixtures" / "runs" / "helpers.json"

ETHERNET = bytes.fromhex("020000000001020000000002")
IPV4 = bytes.fromhex("4500002e00010000401166bd0a0000010a00010103e80fa0001a0000") + bytes(range(18))
IPV6 = bytes.fromhex("6000000000121140") + bytes(range(16)) + bytes(range(16, 32)) + bytes(range(18))
PACKETS = {
    "v4": ETHERNET + b"\x08\x00" + IPV4,
    "v6": ETHERNET + b"\x86\xdd" + IPV6,
    "ecn": ETHERNET + b"\x08\x00" + b"\x45\x02" + IPV4[2:],
    "vlan": ETHERNET + b"\x81\x00\x00\x05\x08\x00" + IPV4,
    "qinq": ETHERNET + b"\x88\xa8\x00\x07\x81\x00\x00\x05\x08\x00" + IPV4,
    "other": ETHERNET + b"\x12\x34" + bytes(range(46)),
}

CONTEXT = "context"


@dataclass(frozen=True, slots=True)
class Memory:
    """An argument that points to these bytes on the stack; `out`: what they are afterwards is part of the answer."""

    data: bytes
    out: bool = False


@dataclass(frozen=True, slots=True)
class MapArgument:
    """An argument that is the program's map."""

    index: int = 0


Argument = int | str | Memory | MapArgument
Step = tuple[str, Sequence[Argument]]


@dataclass(frozen=True, slots=True)
class Case:
    """Calls one after the other in a program of a type. The answer: what they return and write, folded, and the packet.

    `fields` are offsets of u32 fields of the context that are read afterwards.
    """

    name: str
    kind: str
    steps: Sequence[Step]
    packet: str = "v4"
    maps: Sequence[MapDef] = ()
    fields: Sequence[int] = ()

    def program(self) -> Program:
        """The program that makes the calls: r7 is their results, folded."""
        code: list[Insn] = [copy(6, 1), mov(7, 0)]
        for helper, arguments in self.steps:
            code += _call(helper, arguments)
        for offset in self.fields:
            code += [load(4, 0, 6, offset), *_folded()]
        return program([*code, copy(0, 7), EXIT], self.kind, self.maps)


def _folded() -> list[Insn]:
    """r7 = r7 * 31 + r0."""
    return [imm(Op.MUL, 7, 31), reg(Op.ADD, 7, 0)]


def _call(helper: str, arguments: Sequence[Argument]) -> list[Insn]:
    code: list[Insn] = []
    setup: list[Insn] = []
    outputs: list[tuple[int, int]] = []
    top = -16
    for register, argument in enumerate(arguments, 1):
        if isinstance(argument, Memory):
            top -= (len(argument.data) + 7) // 8 * 8
            padded = argument.data.ljust((len(argument.data) + 7) // 8 * 8, b"\0")
            for at in range(0, len(padded), 4):
                code.append(store_imm(4, 10, top + at, struct.unpack_from("<i", padded, at)[0]))
            setup += [copy(register, 10), imm(Op.ADD, register, top)]
            if argument.out:
                outputs += [(top + at, 8) for at in range(0, len(padded), 8)]
        elif isinstance(argument, MapArgument):
            setup.append(map_of(register, argument.index))
        elif argument == CONTEXT:
            setup.append(copy(register, 6))
        else:
            assert isinstance(argument, int)
            small = -(1 << 31) <= argument < 1 << 31
            setup.append(mov(register, argument) if small else big(register, argument & (1 << 64) - 1))
    found = spec.by_name(helper)
    assert found is not None, helper
    code += [*setup, call(found.id), *_folded()]
    for offset, size in outputs:
        code += [load(size, 0, 10, offset), *_folded()]
    return code


@dataclass(frozen=True, slots=True)
class Answer:
    """What a case came to: 32 bits of the folded results, and the packet in hex; or why it was refused."""

    retval: int
    packet: str


def answer(case: Case, engine: str, world: World | None = None) -> Answer:
    """What an engine makes of a case."""
    try:
        outcome: Outcome = run(case.program(), PACKETS[case.packet], world or World(), engine)
    except InputRefused as refused:
        return Answer(-refused.errno, "")
    assert outcome.fault is None, (case.name, outcome.fault)
    return Answer(outcome.retval, (outcome.packet or b"").hex())


def cases() -> Iterator[Case]:
    """The table."""
    from tests.simulator.helpers import table

    return iter(table.CASES)


def recorded() -> dict[str, Answer]:
    """What the kernel answered."""
    return {
        name: Answer(retval, packet) for name, (retval, packet) in json.loads(FIXTURE.read_text())["answers"].items()
    }


def main() -> int:
    """Asks the kernel, keeps what it answered, says what it refuses to load."""
    answers, refused = {}, []
    for case in cases():
        try:
            found = answer(case, "kernel")
        except Exception as error:
            refused.append(f"{case.name}: {error}")
            continue
        assert case.name not in answers, f"two cases are called {case.name!r}"
        answers[case.name] = [found.retval, found.packet]
    FIXTURE.parent.mkdir(exist_ok=True)
    about = "What kernel 6.18.44 answered to the calls of tests/simulator/helpers/table.py: r0 folded, and the packet."
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in answers.items())
    FIXTURE.write_text(f'{{"_about": {json.dumps(about)},\n"answers": {{\n{lines}\n}}}}\n')
    print(f"{len(answers)} answers", *refused, sep="\n")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
