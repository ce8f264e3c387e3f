"""Generated programs, judged as kernel 6.18 judged them: verdict, message and count of processed instructions.

The records were written by `python -m tests.agreement.generate --record FILE`, with what the kernel answered.
"""

from __future__ import annotations

import json
import platform
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bpflisp.spec.btf import Btf, read_btf
from simulator.program import Program
from simulator.verdict import UNSUPPORTED
from simulator.verifier import verify
from tests.agreement.types import types
from tests.simulator.verifier.explore_cases import HOST_BTF

FIXTURE = Path(__file__).parents[3] / "fixtures/verifier/generated-6.18.jsonl"
FILES = (FIXTURE, FIXTURE.with_name("generated-managed-6.18.jsonl"))
RECORDS = [json.loads(line) for file in FILES for line in file.read_text(encoding="utf-8").splitlines()]
KEPT = FIXTURE.with_name("generated")
"""Programs that were once judged otherwise, made small: `make agreement` puts them there."""
RECORDS += [json.loads(file.read_text(encoding="utf-8")) for file in sorted(KEPT.glob("*.json"))]


BTF = {"types": types().btf.data}
"""The types that the records name: those of the generator."""


@cache
def kernel_btf() -> Btf | None:
    """The running kernel's types, where it is the one that answered."""
    here = HOST_BTF.exists() and platform.release().startswith("6.18.")
    return read_btf(HOST_BTF) if here else None


@pytest.mark.parametrize("record", RECORDS, ids=[record["id"] for record in RECORDS])
def test_judged_as_the_kernel_did(record: dict[str, Any]) -> None:
    verdict = verify(Program.from_record(record, BTF), kernel="6.18", kernel_btf=kernel_btf(), log_level=0)
    if verdict.code == UNSUPPORTED and kernel_btf() is None:
        pytest.skip("needs the BTF of a kernel 6.18 in /sys/kernel/btf/vmlinux")
    assert (verdict.accepted, verdict.message) == (record["verdict"] == "accept", record["message"])
    if verdict.accepted:
        assert verdict.insns_processed == record["insns_processed"]


def test_both_verdicts_are_there() -> None:
    verdicts = [record["verdict"] for record in RECORDS]
    assert min(verdicts.count("accept"), verdicts.count("reject")) > 50
