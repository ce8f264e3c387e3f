"""The classes of refusals that programs meet most, a smallest program each, and what kernel 6.18.44 answered.

`python -m tests.simulator.verifier.common_cases FILE` takes the programs of FILE (`verifier_rejections.json` of the
facts), asks the running kernel about each, and writes `fixtures/verifier/common.jsonl`: where the facts and the kernel
differ, it says so.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

from bpflisp.spec import programs
from simulator.program import MapDef, Program
from tests.simulator.verifier.explore_cases import FIXTURES

ANSWERS = FIXTURES / "common.jsonl"
MAPS = (MapDef("HASH", "hash", 4, 16, 8), MapDef("ARR", "array", 4, 16, 4), MapDef("RB", "ringbuf", 0, 0, 4096))
FIRST_DESCRIPTOR = 3
"""In the programs, maps are named by the descriptors 3, 4 and 5."""


def rows() -> list[dict[str, Any]]:
    """The kept programs with their answers."""
    return [json.loads(line) for line in ANSWERS.read_text(encoding="utf-8").splitlines()]


def program_of(row: dict[str, Any]) -> Program:
    """The program of a row, its maps named by their place."""
    insns = bytearray.fromhex(row["insns"])
    for at in range(0, len(insns), 8):
        opcode, registers, off, imm = struct.unpack_from("<BBhi", insns, at)
        if opcode == 0x18 and registers >> 4 == 1:
            struct.pack_into("<BBhi", insns, at, opcode, registers & 15 | 5 << 4, off, imm - FIRST_DESCRIPTOR)
    kind = programs.by_number(row["type"])
    assert kind is not None
    return Program(bytes(insns), kind.name, MAPS, row["license"], name=row["name"][:15], flags=row["flags"])


def write(facts: Path) -> None:
    """Asks the running kernel about every program and writes the answers."""
    from tests import oracle

    kept = []
    for case in json.loads(facts.read_text(encoding="utf-8"))["cases"]:
        row = {"name": case["id"], "type": case["prog_type"], "license": case["license"], "flags": case["flags"]}
        row["insns"] = case["insns_hex"]
        answer = oracle.ask(program_of(row))
        row |= {"accepted": answer.accepted, "errno": answer.errno_name, "message": answer.message}
        row["insns_processed"] = answer.insns_processed
        if (answer.accepted, answer.message) != (case["accepted_6_18"], case["message_6_18"] or ""):
            print(f"{case['id']}: the facts have {case['message_6_18']!r}, the kernel {answer.message!r}")
        kept.append(row)
    ANSWERS.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    print(f"{len(kept)} programs, {sum(not row['accepted'] for row in kept)} refused")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
