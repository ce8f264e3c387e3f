"""The classes of messages: of other kernels than 6.18, and of 6.18's in the words of others."""

from __future__ import annotations

import json
import re

import pytest

from simulator.verifier.refusal import CODES, UNCLASSED, code_of
from simulator.verifier.wordings import WORDINGS
from tests.simulator.verifier.explore_cases import FIXTURES

OTHER_KERNELS = {
    "5.10: Arg#0 type PTR in foo() is not supported yet.": "function-arguments",
    "5.10: Global function foo() doesn't return scalar. Only those are supported.": "function-arguments",
    "5.10: BPF_XADD stores into R1 ctx is not allowed": "atomic-access",
    "5.10: kernel subsystem misconfigured verifier": "tail-call",
    "6.1: BPF_ST stores into R1 ctx is not allowed": "context-access",
    "6.12: invalid may_goto off 0 imm 3": "reserved-fields",
    "6.1: At async callback the register R0 has value (0x1; 0x0) should have been in (0x0; 0x0)": "return-range",
    "7.3: At bpf_set_retval the register R1 has smin=1 smax=1 should have been in [-4095, 0]": "return-range",
    "7.2: R3 and R4 memory, len pair leads to invalid memory access": "function-arguments",
}


@pytest.mark.parametrize("line", OTHER_KERNELS)
def test_what_other_kernels_say_has_a_class(line: str) -> None:
    assert code_of(line.partition(": ")[2]) == OTHER_KERNELS[line]


def test_every_kept_answer_of_a_kernel_has_a_class() -> None:
    said = set()
    for file in sorted(FIXTURES.rglob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            said |= set(messages(json.loads(line)))
    assert len(said) > 300
    assert sorted(one for one in said if code_of(one) == UNCLASSED) == []


def messages(value: object) -> list[str]:
    """The messages anywhere in a record."""
    if isinstance(value, list):
        return [found for one in value for found in messages(one)]
    if not isinstance(value, dict):
        return []
    own = value.get("message")
    found = [own] if isinstance(own, str) and own else []
    return found + [one for each in value.values() for one in messages(each)]


@pytest.mark.parametrize("row", WORDINGS, ids=lambda row: row.pattern.pattern)
def test_a_line_that_is_reworded_whole_has_a_class(row: object) -> None:
    wording = next(one for one in WORDINGS if one is row)
    whole = isinstance(wording.text, str) and wording.pattern.pattern.startswith("^") and "\\1" not in wording.text
    if whole and wording.text:
        assert code_of(str(wording.text)) != UNCLASSED


def test_no_row_is_there_twice() -> None:
    patterns = [pattern for pattern, _ in CODES]
    assert len(patterns) == len(set(patterns))
    assert all(re.compile(pattern) for pattern in patterns)
