"""Small programs whose values the kernel's BTF types, and what kernel 6.18.44 answered to them.

The programs are text, in `fixtures/verifier/typed.txt`, in the form of `readable`; `python -m
tests.simulator.verifier.typed_cases` asks the running kernel about each and writes `fixtures/verifier/typed.jsonl`.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from simulator.program import Program
from tests.simulator.verifier import readable
from tests.simulator.verifier.explore_cases import FIXTURES, answer_of

TEXT = FIXTURES / "typed.txt"
ANSWERS = FIXTURES / "typed.jsonl"


@cache
def texts() -> dict[str, str]:
    """The text of each program, by name."""
    parts = re.split(r"^== ", TEXT.read_text(encoding="utf-8"), flags=re.M)[1:]
    return {name.strip(): text for name, _, text in (part.partition("\n") for part in parts)}


@cache
def program_of(name: str) -> Program:
    """The program of a name."""
    return readable.program(texts()[name], name)


def without_ids(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without the ids of types, which no two builds of a kernel have alike."""
    if "log" not in answer:
        return answer
    return answer | {"log": re.sub(r"has btf_id \d+", "has btf_id N", answer["log"])}


def answers() -> dict[str, dict[str, Any]]:
    """The kept answers, by name."""
    rows = [json.loads(line) for line in ANSWERS.read_text(encoding="utf-8").splitlines()]
    return {row["name"]: row for row in rows}


def write() -> None:
    """Asks the running kernel about every program and writes the answers."""
    rows = [{"name": name} | without_ids(answer_of(program_of(name))) for name in texts()]
    ANSWERS.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} programs, {sum(not row['accepted'] for row in rows)} refused")


if __name__ == "__main__":
    write()
