"""The tables held against what eleven kernels said of three thousand programs, where the corpus is at hand."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bpflisp.spec import contexts, helpers, maps, programs
from bpflisp.spec.insn import decode
from bpflisp.spec.isa import CALL_HELPER, Kind

CORPUS = Path(os.environ.get("BPF_CORPUS", Path(__file__).resolve().parents[4] / "shared" / "corpus"))

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not here")

# libbpf puts this number where a CO-RE relocation failed; such code is dead where the program loads.
POISONED = 195896080


def _lines(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(CORPUS / name, "rt") as file:
        for line in file:
            yield json.loads(line)


@cache
def _answers() -> list[tuple[dict[str, Any], str, str, str, str]]:
    """(record, attach type, kernel, verdict, message) for each answer of each kernel."""
    others = {row["id"]: row["kernels"] for row in _lines("kernels.jsonl.gz")}
    rows = []
    for record in _lines("verdicts.jsonl.gz"):
        attach = programs.attach_name(record["attach_type"] or 0)
        for kernel, answer in {**others.get(record["id"], {}), "6.18.44": record}.items():
            rows.append((record, attach, kernel, answer["verdict"], answer.get("message") or ""))
    return rows


def _sleepable(record: dict[str, Any]) -> bool:
    return bool((record.get("prog_flags") or 0) & programs.F_SLEEPABLE)


def test_helpers_that_a_kernel_refused_are_not_allowed() -> None:
    seen = 0
    for record, attach, kernel, _, message in _answers():
        found = re.search(r"(?:unknown func|cannot use helper|invalid func) \w+#(-?\d+)", message)
        if found:
            seen += 1
            number = int(found[1])
            allowed = helpers.allowed(kernel, record["type"], attach, _sleepable(record))
            assert number not in allowed, (record["id"], kernel, message)
            assert message == helpers.refusal(number, kernel)
    assert seen > 300


@cache
def _called(code: str) -> frozenset[int]:
    insns = (insn for insn in decode(bytes.fromhex(code)) if insn is not None)
    return frozenset(insn.imm for insn in insns if insn.row.kind is Kind.CALL and insn.src == CALL_HELPER)


def test_helpers_of_loaded_programs_are_allowed() -> None:
    for record, attach, kernel, verdict, _ in _answers():
        if verdict == "accept":
            allowed = helpers.allowed(kernel, record["type"], attach, _sleepable(record))
            assert _called(record["insns"]) - allowed <= {POISONED}, (record["id"], kernel)


def test_context_accesses_that_a_kernel_refused_are_not_in_the_table() -> None:
    seen = 0
    for record, attach, kernel, _, message in _answers():
        found = re.search(r"invalid bpf_context access off=(-?\d+) size=(\d+)", message)
        table = contexts.access_table(record["type"], attach, kernel) if found else None
        if found and table:
            seen += 1
            off, size = int(found[1]), int(found[2])
            both = table.access(off, size, write=False) and table.access(off, size, write=True)
            assert not both, (record["id"], kernel, message)
    assert seen > 100


def test_ranges_of_results_are_those_of_the_table() -> None:
    seen = 0
    for record, attach, kernel, _, message in _answers():
        found = re.search(r"At program exit the register R0 .*should have been in \[(-?\d+), (-?\d+)\]", message)
        if found and kernel == "6.18.44" and record["type"] != "lsm":
            seen += 1
            assert programs.return_range(record["type"], attach) == (int(found[1]), int(found[2])), record["id"]
    assert seen


def test_pairs_of_map_and_helper_that_a_kernel_refused() -> None:
    for record, attach, kernel, _, message in _answers():
        found = re.search(r"cannot pass map_type (\d+) into func (\w+)#", message)
        if found and kernel == "6.18.44":
            kind = maps.by_number(int(found[1]))
            assert kind is not None
            may = maps.compatible(found[2], kind.name)
            if kind.name in ("sockmap", "sockhash"):
                may = may and maps.may_change_sockets(found[2], record["type"], attach)
            assert not may, (record["id"], message)
