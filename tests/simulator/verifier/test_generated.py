"""Generated programs, judged as kernel 6.18 judged them: verdict, message and count of processed instructions.

The records were written by `python -m tests.agreement.generate --record FILE`, with what the kernel answered.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simulator.program import Program
from simulator.verifier import verify

FIXTURE = Path(__file__).parents[3] / "fixtures/verifier/generated-6.18.jsonl"
RECORDS = [json.loads(line) for line in FIXTURE.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("record", RECORDS, ids=[record["id"] for record in RECORDS])
def test_judged_as_the_kernel_did(record: dict[str, Any]) -> None:
    verdict = verify(Program.from_record(record), kernel="6.18", log_level=0)
    assert (verdict.accepted, verdict.message) == (record["verdict"] == "accept", record["message"])
    if verdict.accepted:
        assert verdict.insns_processed == record["insns_processed"]


def test_both_verdicts_are_there() -> None:
    verdicts = [record["verdict"] for record in RECORDS]
    assert min(verdicts.count("accept"), verdicts.count("reject")) > 50
