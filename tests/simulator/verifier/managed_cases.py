"""Programs that use objects which the kernel manages, and what kernel 6.18.44 answered to them.

They are C, in `fixtures/verifier/managed.bpf.c`, compiled by `build.sh` there; `python -m
tests.simulator.verifier.managed_cases` asks the running kernel about each and writes `fixtures/verifier/managed.jsonl`.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from simulator.loader import load
from simulator.program import Program
from tests.simulator.verifier.explore_cases import FIXTURES, answer_of
from tests.simulator.verifier.typed_cases import without_ids

OBJECT = FIXTURES / "managed.bpf.o"
ANSWERS = FIXTURES / "managed.jsonl"


@cache
def programs() -> dict[str, Program]:
    """The programs of the object, by name."""
    return dict(load(OBJECT.read_bytes()))


def answers() -> dict[str, dict[str, Any]]:
    """The kept answers, by name."""
    rows = [json.loads(line) for line in ANSWERS.read_text(encoding="utf-8").splitlines()]
    return {row["name"]: row for row in rows}


def answer(name: str) -> dict[str, Any]:
    """What the running kernel says of a program."""
    return without_ids(answer_of(programs()[name]))


def write() -> None:
    """Asks the running kernel about every program and writes the answers."""
    rows = [{"name": name} | answer(name) for name in programs()]
    ANSWERS.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} programs, {sum(not row['accepted'] for row in rows)} refused")


if __name__ == "__main__":
    write()
