"""The commonest refusals, a smallest program each: verdict, text and count as kernel 6.18.44 gave them."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest

from simulator import verify
from simulator.verifier.refusal import UNCLASSED
from tests.simulator.verifier.common_cases import program_of, rows

ROWS = rows()
FACTS = Path(os.environ.get("BPF_FACTS", "../shared/data")) / "verifier_rejections.json"

each_row = pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])


@each_row
def test_answers_as_the_kernel(row: dict[str, Any]) -> None:
    verdict = verify(program_of(row), kernel="6.18", log_level=0)
    assert (verdict.accepted, verdict.message) == (row["accepted"], row["message"])
    assert verdict.insns_processed == (row["insns_processed"] or 0)
    assert verdict.accepted or verdict.code != UNCLASSED


@each_row
def test_the_running_kernel_still_answers_so(row: dict[str, Any]) -> None:
    from tests import oracle

    possible, why = oracle.available()
    if not possible:
        pytest.skip(why)
    if not platform.release().startswith("6.18."):
        pytest.skip("the answers are those of kernel 6.18")
    answer = oracle.ask(program_of(row))
    assert (answer.accepted, answer.message) == (row["accepted"], row["message"])
    assert answer.insns_processed == row["insns_processed"]


def test_none_of_the_facts_is_missing() -> None:
    if not FACTS.exists():
        pytest.skip(f"{FACTS} is not there")
    known = json.loads(FACTS.read_text(encoding="utf-8"))["cases"]
    assert {case["id"]: case["insns_hex"] for case in known} == {row["name"]: row["insns"] for row in ROWS}
    # of its texts, two are the states that follow the refusal, and one names a map that has no name there
    assert [case["accepted_6_18"] for case in known] == [row["accepted"] for row in ROWS]
    assert sum((case["message_6_18"] or "") == row["message"] for case, row in zip(known, ROWS, strict=True)) == 69
