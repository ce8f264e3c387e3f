"""Of the corpus' refusals none is left in the catch-all class, and nearly all say why."""

from __future__ import annotations

import json
import random

import pytest

from simulator.program import Program
from simulator.verdict import UNSUPPORTED
from simulator.verifier.refusal import UNCLASSED
from tests.agreement import corpus
from tests.agreement.test_corpus import CORPUS

ASKED = 150


def test_refusals_of_the_corpus_have_a_class_and_a_because() -> None:
    if not CORPUS.exists():
        pytest.skip(f"no corpus in {CORPUS.parent}; BPF_CORPUS names another place")
    with corpus.open_text(CORPUS) as lines:
        records = [json.loads(line) for line in lines]
    short = [one for one in records if one["verdict"] == "reject" and 0 < (one["insns_processed"] or 0) < 2000]
    blobs = corpus.blobs(str(CORPUS.with_name("btf.jsonl.gz")))
    told = vague = 0
    for record in random.Random(3).sample(short, ASKED):
        verdict = Program.from_record(record, blobs).verify("6.18")
        if verdict.accepted or verdict.code == UNSUPPORTED:
            continue
        assert verdict.code != UNCLASSED, record["id"]
        assert verdict.reason is not None
        told += 1
        vague += not verdict.reason.because
    assert told > ASKED // 2
    assert vague <= told // 10, f"{vague} of {told} without a because"
