"""The mutants: what a record says of its slots moves with its instructions, and a seed is always the same mutant."""

from __future__ import annotations

import json
import platform

import pytest

from bpflisp.spec.insn import Insn
from simulator.program import Program
from tests import oracle
from tests.agreement.code import Node
from tests.agreement.fixtures import ROOT
from tests.agreement.mutants import compared, listing, smallest
from tests.agreement.record_changes import Pool, mutant
from tests.agreement.record_code import code_of, with_code
from tests.agreement.types import types

BTF = {"types": types().btf.data}
FILES = ("generated-6.18.jsonl", "generated-managed-6.18.jsonl")
RECORDS = [
    json.loads(line) for file in FILES for line in (ROOT / "verifier" / file).read_text(encoding="utf-8").splitlines()
]


def test_a_record_is_what_it_was_when_nothing_changes() -> None:
    for record in RECORDS:
        program = Program.from_record(record, BTF)
        code = code_of(record, program)
        again = Program.from_record(with_code(record, code, code), BTF)
        assert (again.kfuncs, again.btf_ids, again.func_info) == (program.kfuncs, program.btf_ids, program.func_info)
        assert len(again.insns) == len(program.insns)


def test_names_and_functions_follow_their_instructions() -> None:
    record = next(one for one in RECORDS if one.get("kfuncs") and len(one.get("func_info", "")) > 16)
    program = Program.from_record(record, BTF)
    code = code_of(record, program)
    moved = Program.from_record(with_code(record, code, code.inserted(0, Node(Insn(0xB7)))), BTF)
    assert moved.kfuncs == {slot + 1: name for slot, name in program.kfuncs.items()}
    # the label of what begins at slot 0 stays before the new instruction
    starts = [info.insn and info.insn + 1 for info in program.func_info]
    assert [info.insn for info in moved.func_info] == starts


def test_a_seed_is_a_mutant() -> None:
    pool = Pool(RECORDS)
    made = [mutant(pool, BTF, seed) for seed in range(200)]
    assert made == [mutant(pool, BTF, seed) for seed in range(200)]
    by_id = {record["id"]: record for record in RECORDS}
    changed = [one for one in made if {**one, "id": 0} != {**by_id[one["id"].split("/", 1)[1]], "id": 0}]
    assert len(changed) > 150


def test_mutants_are_judged_as_the_kernel_judges_them() -> None:
    possible, why = oracle.available()
    if not possible:
        pytest.skip(why)
    if not platform.release().startswith("6.18."):
        pytest.skip("our answers are those of kernel 6.18")
    pool, asked = Pool(RECORDS), 0
    for seed in range(150):
        record = mutant(pool, BTF, seed)
        answer = compared(record, BTF)
        if answer is None:
            continue
        asked += 1
        ours = answer["ours"]
        assert (ours["accepted"], ours["message"]) == (answer["verdict"] == "accept", answer["message"]), listing(
            record, BTF
        )
    assert asked > 100


def test_shrinking_asks_for_the_same_disagreement() -> None:
    record = RECORDS[0]
    # nothing is wrong with it: there is nothing to keep, and so nothing is taken away
    assert smallest(record, BTF, "no such disagreement", 10) == record
