"""Runs what the corpus recorded: `python -m tests.agreement.runs [ENGINE...] [--list]`.

Every record of verdicts.jsonl.gz with test runs is run on its own data; the value is compared with the kernel's. What
differs, and what faults, is counted by reason. `--list` prints each.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from simulator.packet import InputRefused
from simulator.program import Program
from simulator.run import run
from simulator.world import World
from tests.engines import HERE

CORPUS = Path(os.environ.get("BPF_CORPUS", "../shared/corpus"))
FUEL = 300_000


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded run: the program, its data, and what the kernel returned."""

    record: str
    number: int
    program: Program
    data: bytes
    retval: int
    helpers: frozenset[int]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine made of a recorded run: `said` is a value in hex, or a fault's message."""

    same: bool
    said: str


@cache
def btf_blobs() -> Mapping[str, bytes]:
    """The BTF of the corpus by name."""
    with gzip.open(CORPUS / "btf.jsonl.gz", "rt") as file:
        return {record["name"]: bytes.fromhex(record["hex"]) for record in map(json.loads, file)}


def recorded() -> Iterator[Recorded]:
    """The recorded runs of the corpus."""
    with gzip.open(CORPUS / "verdicts.jsonl.gz", "rt") as file:
        for line in file:
            record: dict[str, Any] = json.loads(line)
            if not record.get("runs"):
                continue
            program = Program.from_record(record, btf=btf_blobs())
            helpers = frozenset(i.imm for i in program.code if i is not None and i.opcode == 0x85 and i.src == 0)
            for number, one in enumerate(record["runs"]):
                yield Recorded(record["id"], number, program, bytes.fromhex(one["data"]), one["retval"], helpers)


def answer(one: Recorded, engine: str, world: World | None = None) -> Answer:
    """What an engine makes of a recorded run, the second time: its first may be the reference engine's."""
    data: Any = one.data
    if one.program.type == "syscall":
        data = {"raw": one.data} if one.data else {}
    try:
        outcome = run(one.program, data, world or World(), engine, fuel=FUEL)
    except InputRefused as refused:
        return Answer(False, f"refused: {refused}")
    if outcome.fault:
        return Answer(False, f"{outcome.fault.kind}: {outcome.fault.message}")
    wanted = one.retval & 0xFFFFFFFF
    return Answer(outcome.retval == wanted, f"{outcome.retval:#x}, wanted {wanted:#x}")


def main(arguments: Sequence[str]) -> int:
    """Prints counts by engine, and by reason what differs. Exit code 2: no corpus, or no such engine."""
    unknown = [name for name in arguments if not name.startswith("-") and name not in HERE]
    if unknown:
        print(f"no engine {', '.join(unknown)} here: there are {', '.join(HERE)}", file=sys.stderr)
        return 2
    if not CORPUS.is_dir():
        print(f"no corpus at {CORPUS}: set BPF_CORPUS", file=sys.stderr)
        return 2
    engines = [name for name in arguments if not name.startswith("-")] or list(HERE)
    everything = list(recorded())
    for engine in engines:
        reasons, same = Counter[str](), 0
        for one in everything:
            got = answer(one, engine)
            same += got.same
            if not got.same:
                reasons["another value" if "wanted" in got.said else got.said] += 1
                if "--list" in arguments:
                    print(f"{engine}: {one.record}#{one.number} ({one.program.type}): {got.said}")
        print(f"{engine}: {same} of {len(everything)} give the kernel's value")
        for reason, count in reasons.most_common():
            print(f"  {count:4} {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
