"""Programs that say what helpers do: run them here, and hold what they return and leave behind to the kernel's answer.

`python -m tests.simulator.behaviour` asks the running kernel again and rewrites fixtures/behaviour/answers.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simulator import load
from simulator.packet import PACKET_TYPES
from simulator.program import Object, Program
from simulator.run import run
from simulator.world import World

FOLDER = Path(__file__).parents[2] / "fixtures" / "behaviour"
FIXTURE = FOLDER / "answers.json"
PACKET = (
    bytes.fromhex("020000000001020000000002" + "0800")
    + bytes.fromhex("4500002e00010000401166bd0a0000010a00010103e80fa0001a0000")
    + bytes(range(18))
)

Answer = dict[str, Any]


def cases() -> Iterator[tuple[str, Object, Program]]:
    """Every program of every object: "object/program"."""
    for path in sorted(FOLDER.glob("*.bpf.o")):
        obj = load(path)
        for program in obj.programs.values():
            yield f"{path.name.removesuffix('.bpf.o')}/{program.name}", obj, program


def answer(obj: Object, program: Program, engine: str) -> Answer:
    """What came of a program: its value, its packet, and the global data of its object."""
    world = World(obj)
    given: Any = PACKET if program.type in PACKET_TYPES else {}
    outcome = run(program, given, world, engine)
    assert outcome.fault is None, (program.name, engine, outcome.fault)
    world_maps = {world_map.name: world_map for world_map in world.maps.values()}
    data = {
        name: [value.hex() for _, value in found.raw_items()]
        for name, found in sorted(world_maps.items())
        if name.endswith(".bss")  # those in a section of their own hold locks and lists, which show as addresses
    }
    return {"retval": outcome.retval, "packet": (outcome.packet or b"").hex(), "data": data}


def recorded() -> dict[str, Answer]:
    """What the kernel answered."""
    answers: dict[str, Answer] = json.loads(FIXTURE.read_text())["answers"]
    return answers


def main() -> int:
    """Asks the kernel, keeps what it answered, says what it refuses."""
    answers, refused = {}, []
    for name, obj, program in cases():
        try:
            answers[name] = answer(obj, program, "kernel")
        except Exception as error:
            refused.append(f"{name}: {error}")
    about = "What kernel 6.18.44 made of the programs of this folder: tests/simulator/behaviour.py."
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in answers.items())
    FIXTURE.write_text(f'{{"_about": {json.dumps(about)},\n"answers": {{\n{lines}\n}}}}\n')
    print(f"{len(answers)} answers", *refused, sep="\n")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
