"""Programs whose whole log is kept as kernel 6.18.44 printed it, at each log level.

They are programs of `fixtures/verifier/explore` and the C twins, which have source lines. `python -m
tests.simulator.verifier.log_cases` asks the running kernel and writes `fixtures/verifier/logs-6.18.jsonl.gz`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from simulator import load
from simulator.program import Program
from tests.agreement.fixtures import all_fixtures
from tests.agreement.logs import comparable
from tests.simulator.verifier.explore_cases import FIXTURES, NEEDS_KERNEL_TYPES, program_of, texts

LOGS = FIXTURES / "logs-6.18.jsonl.gz"

LEVELS = (1, 2, 4, 6)
"""The refused path, everything, statistics alone, everything with statistics."""

LONGEST = 20_000
"""Characters: of a program with a longer log, no log is kept."""


def names() -> Iterator[str]:
    """explore/NAME and twin/FIXTURE/PROGRAM. Programs that need the kernel's types are left out."""
    yield from (f"explore/{name}" for topic, name, _ in texts() if topic not in NEEDS_KERNEL_TYPES)
    for found in all_fixtures():
        yield from (f"twin/{found.name}/{name}" for name in load(found.twin).programs)


@cache
def program(name: str) -> Program:
    """The program of a name."""
    kind, _, rest = name.partition("/")
    if kind == "explore":
        return program_of(rest)
    fixture, _, one = rest.partition("/")
    return load(next(found.twin for found in all_fixtures() if found.name == fixture))[one]


@cache
def logs() -> dict[str, dict[int, list[str]]]:
    """The kept logs: name, level, lines."""
    rows = [json.loads(line) for line in gzip.decompress(LOGS.read_bytes()).decode().splitlines()]
    return {row["name"]: {int(level): lines for level, lines in row["logs"].items()} for row in rows}


def asked(name: str) -> dict[int, list[str]]:
    """The running kernel's logs of a program."""
    from tests import oracle

    answers = {level: oracle.ask(program(name), level).log for level in LEVELS}
    return {level: comparable(program(name), log) for level, log in answers.items()}


def write() -> None:
    """Asks the running kernel about every program and keeps the logs."""
    rows: list[dict[str, Any]] = []
    for name in names():
        found = asked(name)
        if sum(map(len, found[2])) <= LONGEST:
            rows.append({"name": name, "logs": found})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    LOGS.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{len(rows)} programs, {LOGS.stat().st_size} bytes")


if __name__ == "__main__":
    write()
