"""A part of the corpus on every run: nothing is accepted that the kernel refuses, and nothing breaks the verifier."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.agreement import corpus
from tests.agreement.fixtures import ROOT
from tests.agreement.score import CRASH, Row, Score

CORPUS = Path(os.environ.get("BPF_CORPUS", ROOT.parents[1] / "shared" / "corpus")) / "verdicts.jsonl.gz"
EVERY = 9


def _some() -> tuple[list[dict[str, Any]], corpus.Setup]:
    options = corpus._options().parse_args([str(CORPUS)])
    records, setup = corpus._inputs(options)
    quick = [record for record in records if record["insns_processed"] < 300]
    return quick[::EVERY], setup


@pytest.mark.skipif(not CORPUS.exists(), reason=f"{CORPUS} is not there (BPF_CORPUS names the folder)")
def test_no_program_is_accepted_that_the_kernel_refuses() -> None:
    records, setup = _some()
    rows = [Row.of(record, corpus.verify_record(setup, record)) for record in records]
    score = Score(rows)
    assert [row.told() for row in rows if row.kind in ("false accept", CRASH)] == []
    assert score.count("agree") >= 0.8 * len(rows)


@pytest.mark.skipif(not CORPUS.exists(), reason=f"{CORPUS} is not there (BPF_CORPUS names the folder)")
@pytest.mark.parametrize("kernel", ["5.10.262", "6.1.192", "6.12.117"])
def test_earlier_kernels_refuse_what_we_refuse(kernel: str) -> None:
    kernels = CORPUS.with_name("kernels.jsonl.gz")
    options = corpus._options().parse_args([str(CORPUS), "--kernel", kernel, "--kernels", str(kernels)])
    records, setup = corpus._inputs(options)
    quick = [record for record in records if (record["insns_processed"] or 0) < 300][:: 2 * EVERY]
    rows = [Row.of(record, corpus.verify_record(setup, record)) for record in quick]
    assert [row.told() for row in rows if row.kind in ("false accept", CRASH)] == []
    assert Score(rows).count("agree") >= 0.95 * len(rows)
