"""Verdict, message and count as kernels 5.10.262, 6.1.192 and 6.12.117 gave them, and a case for each rule."""

from __future__ import annotations

import pytest

from bpflisp.spec.kernels import profile
from simulator import verify
from tests.simulator.verifier.kernel_cases import KERNELS, RUNNING, answers, program_of, rule_texts, texts

ANSWERS = answers()
CASES = [(name, kernel) for name, row in ANSWERS.items() for kernel in row]
RULE_NAMES = [name for name, _ in rule_texts()]

OTHERWISE = {
    ("a function that is pointed to and never called, after another", "6.12.117"): "6.12 refuses it without a word",
    ("a count of rounds that is a pointer", "6.12.117"): "6.12 types the argument, where 6.18 meets a bug of its own",
    ("a record of unknown size", "5.10.262"): "5.10 looks at the bounds of the size before its being known",
    ("a socket that is not ours to release", "5.10.262"): "5.10 names the helper that releases",
    ("a lock in a socket filter", "5.10.262"): "5.10 calls every such program a tracing program",
    ("a reserved dynptr overwritten", "6.1.192"): "6.1 counts another identity before the reference's",
    ("one map more than a program may have", "5.10.262"): "5.10 refuses without a word",
    ("one map more than a program may have", "6.1.192"): "6.1 refuses without a word",
    ("a comparison of a register that is none, with another", "5.10.262"): "5.10 looks at the second register first",
    ("submitted in the middle", "6.1.192"): "6.1 names the type and the offset",
    ("records-given-back-whole", "6.1.192"): "6.1 names the type and the offset",
}
"""(program, kernel) -> why our words are others; the verdict is the kernel's even so."""


def test_every_rule_has_answers() -> None:
    # programs of `explore_cases` may be newer than the answers: to ask those kernels takes minutes
    assert set(RULE_NAMES) <= set(ANSWERS) <= set(texts())
    assert len(ANSWERS) >= 300
    assert all(set(ANSWERS[name]) == {*KERNELS, RUNNING} for name in RULE_NAMES)


@pytest.mark.parametrize("name", RULE_NAMES)
def test_a_rule_shows_on_both_sides(name: str) -> None:
    rule = name.partition(",")[0]
    sides: dict[bool, list[object]] = {True: [], False: []}
    for kernel, answer in ANSWERS[name].items():
        sides[profile(kernel).has(rule)].append(answer)
    assert sides[True]
    assert sides[False]
    assert all(one not in sides[False] for one in sides[True])


@pytest.mark.parametrize(("name", "kernel"), CASES)
def test_answers_as_that_kernel(name: str, kernel: str) -> None:
    answer, verdict = ANSWERS[name][kernel], verify(program_of(name), kernel=kernel)
    assert verdict.accepted == (answer["verdict"] == "accept")
    assert verdict.insns_processed == answer["insns_processed"]
    if (name, kernel) not in OTHERWISE:
        assert verdict.message == answer["message"]
