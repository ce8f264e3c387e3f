"""Small programs and what kernels 5.10.262, 6.1.192 and 6.12.117 answered to them, beside the running 6.18.44.

The programs are those of `explore_cases` and, one for each rule that began between these kernels, those of
`fixtures/verifier/rules/`. `python -m tests.simulator.verifier.kernel_cases IMAGE...` boots the kernels of Debian's
packages under qemu (`tools/boot_kernel.py`), asks each about every program, and writes
`fixtures/verifier/kernels.jsonl`.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from simulator.program import Program
from tests.simulator.verifier import explore_cases, readable

RULES = explore_cases.FIXTURES / "rules"
ANSWERS = explore_cases.FIXTURES / "kernels.jsonl"
KERNELS = ("5.10.262", "6.1.192", "6.12.117")
RUNNING = "6.18.44"
NEED_KERNEL_TYPES = ("the map itself read", "the map itself written")


def rule_texts() -> Iterator[tuple[str, str]]:
    """(name, text) of each program that shows a rule; the name is the rule's, and after a comma which of several."""
    for file in sorted(RULES.glob("*.txt")):
        for part in re.split(r"^== ", file.read_text(encoding="utf-8"), flags=re.M)[1:]:
            name, _, text = part.partition("\n")
            yield name.strip(), text


@cache
def texts() -> dict[str, str]:
    """Every program's text by name, but those that call kernel functions: they need the BTF of each kernel."""
    explored = {
        name: text
        for topic, name, text in explore_cases.texts()
        if topic not in explore_cases.NEEDS_KERNEL_TYPES and name not in NEED_KERNEL_TYPES
    }
    return explored | dict(rule_texts())


@cache
def program_of(name: str) -> Program:
    """The program of a name."""
    return readable.program(texts()[name], name)


@cache
def answers() -> dict[str, dict[str, dict[str, Any]]]:
    """Name -> kernel -> verdict, message and insns_processed."""
    rows = [json.loads(line) for line in ANSWERS.read_text(encoding="utf-8").splitlines()]
    return {row["name"]: row["kernels"] for row in rows}


def main(images: Sequence[str]) -> None:
    """Asks the kernels of these images, in the order of KERNELS, and the running one about the rules."""
    from tests import oracle
    from tools import boot_kernel

    found: dict[str, dict[str, Any]] = {name: {} for name in texts()}
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "records.jsonl"
        records.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts().items()))
        for kernel, image in zip(KERNELS, images, strict=True):
            out = Path(folder) / kernel
            if boot_kernel.main([image, str(records), "--out", str(out)]):
                raise SystemExit(f"kernel_cases: {image} did not answer")
            for line in out.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                if "verdict" in row:
                    found[row["id"]][kernel] = _kept(row["verdict"], row["message"], row["insns_processed"])
    for name, _ in rule_texts():
        answer = oracle.ask(program_of(name))
        verdict = "accept" if answer.accepted else "reject"
        found[name][RUNNING] = _kept(verdict, answer.message, answer.insns_processed)
    rows = [{"name": name, "kernels": row} for name, row in found.items()]
    ANSWERS.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _kept(verdict: str, message: str, processed: int | None) -> dict[str, Any]:
    return {"verdict": verdict, "message": message, "insns_processed": processed or 0}


if __name__ == "__main__":
    main(sys.argv[1:])
