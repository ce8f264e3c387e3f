"""Small programs, each for one rule, and what kernel 6.18.44 answered to them.

The programs are text, in `fixtures/verifier/explore/`; `python -m tests.simulator.verifier.explore_cases` asks the
running kernel about each and writes the answers to `fixtures/verifier/explore.jsonl`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from simulator.program import Program
from tests.simulator.verifier import readable

FIXTURES = Path(__file__).parents[3] / "fixtures" / "verifier"
TEXTS = FIXTURES / "explore"
ANSWERS = FIXTURES / "explore.jsonl"
HOST_BTF = Path("/sys/kernel/btf/vmlinux")

NEEDS_KERNEL_TYPES = ("kernel", "dynptrs")
"""The topics whose programs call kernel functions or use its types: our verifier needs the kernel's BTF for them."""

KEPT_LINES = 60
"""How much of a log's end is kept: one that gives up after a million instructions has as many lines."""

_ADDRESS = re.compile(r"(?<=\(18\) r\d = )0x\w+")
_BTF_ID = re.compile(r"(?<=\w)#(\d{4,}|0\b)")


def texts() -> Iterator[tuple[str, str, str]]:
    """(topic, name, text) of each program."""
    for file in sorted(TEXTS.glob("*.txt")):
        for part in re.split(r"^== ", file.read_text(encoding="utf-8"), flags=re.M)[1:]:
            name, _, text = part.partition("\n")
            yield file.stem, name.strip(), text


@cache
def program_of(name: str) -> Program:
    """The program of a name."""
    found = [text for _, each, text in texts() if each == name]
    if len(found) != 1:
        raise KeyError(f"{len(found)} programs are called {name!r}")
    return readable.program(found[0], name)


def masked(log: str) -> str:
    """A log without what no two loads have alike (addresses, ids of kernel functions), and without its statistics."""
    # the kernel does not always end the line before the statistics
    text = re.sub(r"\n?(processed \d+ insns|verification time|stack depth) .*", "", log)
    return re.sub(r" +;", " ;", _BTF_ID.sub("#ID", _ADDRESS.sub("ADDRESS", text))).strip()


def kept_log(log: str) -> str:
    """The masked end of a log, as it is kept."""
    return "\n".join(masked(log).split("\n")[-KEPT_LINES:])


def answer_of(program: Program) -> dict[str, Any]:
    """What the running kernel says of a program; the end of the log of refused ones alone."""
    from tests import oracle

    found = oracle.ask(program)
    answer = {
        "accepted": found.accepted,
        "errno": found.errno_name,
        "message": found.message,
        "insns_processed": found.insns_processed,
    }
    return answer if found.accepted else answer | {"log": kept_log(found.log)}


def answers() -> dict[str, dict[str, Any]]:
    """The kept answers, by name."""
    rows = [json.loads(line) for line in ANSWERS.read_text(encoding="utf-8").splitlines()]
    return {row["name"]: row for row in rows}


def write() -> None:
    """Asks the running kernel about every program and writes the answers."""
    rows = [{"name": name, "topic": topic} | answer_of(program_of(name)) for topic, name, _ in texts()]
    ANSWERS.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} programs, {sum(not row['accepted'] for row in rows)} refused")


if __name__ == "__main__":
    write()
