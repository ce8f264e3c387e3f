"""Runs instruction-set tests on every engine: `python -m tests.agreement.conformance FILE`.

A test gives instructions, memory (r1 is its address, r2 its length, both 0 without) and the r0 that must come out, or
an error that must. Counts are printed by engine and suite.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.engines.engine import Options
from simulator.outcome import Fault
from simulator.packet import Input
from simulator.program import Program
from simulator.run import engine_named
from simulator.world import World
from tests.engines import HERE

ENGINES = HERE
FUEL = 1_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """One test: `result` the 64 bits of r0, None where it is to be refused or to fault."""

    suite: str
    name: str
    insns: bytes
    memory: bytes
    result: int | None


def cases(path: Path) -> Iterator[Case]:
    """The tests of a file that have instructions and an expectation."""
    for line in path.read_text().splitlines():
        record: Mapping[str, Any] = json.loads(line)
        if not record.get("insns") or (record.get("result") is None and not record.get("error")):
            continue
        result = record.get("result")
        memory = bytes.fromhex(record.get("mem") or "")
        expected = None if result is None or record.get("error") else int(result, 0) & (1 << 64) - 1
        yield Case(record["suite"], record["name"], bytes.fromhex(record["insns"]), memory, expected)


def run(case: Case, engine: str) -> tuple[int, Fault | None]:
    """r0 and the fault of one test on one engine: of its second run, since the python engine's first may be the
    reference engine's."""
    context = {"memory": case.memory} if case.memory else {"memory": b""}
    program = Program(case.insns, type="conformance", name=case.name)
    world, options = World(), Options(fuel=FUEL)
    engine_named(engine).run(program, Input(None, context), world, options)
    outcome = engine_named(engine).run(program, Input(None, context), world, options)
    return outcome.r0, outcome.fault


def passes(case: Case, engine: str) -> bool:
    """Whether the engine gives what the test wants."""
    r0, fault = run(case, engine)
    return fault is not None if case.result is None else fault is None and r0 == case.result


def main(arguments: Sequence[str]) -> int:
    """Prints counts and what failed; 0 where all of the first suite pass."""
    if len(arguments) != 1:
        print("usage: python -m tests.agreement.conformance FILE", file=sys.stderr)
        return 2
    found = list(cases(Path(arguments[0])))
    complete = True
    for engine in ENGINES:
        total, passed = Counter[str](), Counter[str]()
        for case in found:
            total[case.suite] += 1
            if passes(case, engine):
                passed[case.suite] += 1
            else:
                complete = complete and case.suite != "bpf_conformance"
                print(f"{engine}: {case.suite}/{case.name}: wanted {case.result}, got {run(case, engine)}")
        counts = ", ".join(f"{suite} {passed[suite]}/{total[suite]}" for suite in total)
        print(f"{engine}: {counts}")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
