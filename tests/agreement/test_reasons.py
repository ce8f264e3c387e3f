"""Of the corpus' refusals none is left in the catch-all class, and each says what is wrong, why, and what to do."""

from __future__ import annotations

import json

import pytest

from bpflisp.spec.btf import Btf, read_btf
from simulator.program import Program
from simulator.verdict import UNSUPPORTED
from simulator.verifier import verify
from simulator.verifier.refusal import UNCLASSED
from tests.agreement import corpus
from tests.agreement.test_corpus import CORPUS

LONGEST = 200
"""Instructions that the kernel processed of a record before it refused: longer ones take their time."""


@pytest.mark.skipif(not CORPUS.exists(), reason=f"{CORPUS} is not there (BPF_CORPUS names the folder)")
def test_refusals_of_the_corpus_have_a_class_a_problem_a_because_and_a_help() -> None:
    with corpus.open_text(CORPUS) as lines:
        records = [json.loads(line) for line in lines]
    short = [one for one in records if one["verdict"] == "reject" and (one["insns_processed"] or 0) < LONGEST]
    blobs = corpus.blobs(str(CORPUS.with_name("btf.jsonl.gz")))
    types: Btf | None = read_btf(corpus.HOST_BTF) if corpus.HOST_BTF.exists() else None
    told, vague = 0, []
    for record in short:
        verdict = verify(Program.from_record(record, blobs), "6.18", types)
        if verdict.accepted or verdict.code == UNSUPPORTED:
            continue
        assert verdict.code != UNCLASSED, record["id"]
        told += 1
        reason = verdict.reason
        if reason is None or not (reason.problem and reason.because and reason.help):
            vague.append(record["id"])
    assert told > 600
    assert vague == []
