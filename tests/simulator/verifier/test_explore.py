"""Exploration answers as kernel 6.18.44 did: verdict, message, count of instructions, log where refused."""

from __future__ import annotations

import platform

import pytest

from simulator import verify
from simulator.verdict import UNSUPPORTED, Verdict
from simulator.verifier.refusal import UNCLASSED
from tests.simulator.verifier.explore_cases import (
    HOST_BTF,
    NEEDS_KERNEL_TYPES,
    answer_of,
    answers,
    kept_log,
    program_of,
    texts,
)

ANSWERS = answers()
NAMES = list(ANSWERS)

KERNEL_TYPES = {"the map itself read", "the map itself written"}
"""Programs of other topics that use the kernel's types."""


def judged(name: str) -> Verdict:
    needs = ANSWERS[name]["topic"] in NEEDS_KERNEL_TYPES or name in KERNEL_TYPES
    if needs and not (HOST_BTF.exists() and platform.release().startswith("6.18.")):
        pytest.skip("needs the BTF of a kernel 6.18 in /sys/kernel/btf/vmlinux")
    return verify(program_of(name), kernel_btf=HOST_BTF if needs else None)


def test_every_program_has_an_answer() -> None:
    assert [name for _, name, _ in texts()] == NAMES
    assert len(NAMES) == len(set(NAMES)) >= 290


@pytest.mark.parametrize("name", NAMES)
def test_answers_as_the_kernel(name: str) -> None:
    verdict, answer = judged(name), ANSWERS[name]
    assert (verdict.accepted, verdict.message) == (answer["accepted"], answer["message"])
    assert verdict.insns_processed == (answer["insns_processed"] or 0)
    if not verdict.accepted:
        assert verdict.code not in (UNCLASSED, UNSUPPORTED)
        assert kept_log(verdict.log) == answer["log"]


@pytest.mark.parametrize("name", NAMES)
def test_the_running_kernel_still_answers_so(name: str) -> None:
    from tests import oracle

    possible, why = oracle.available()
    if not possible:
        pytest.skip(why)
    if not platform.release().startswith("6.18."):
        pytest.skip("the answers are those of kernel 6.18")
    kept = {key: value for key, value in ANSWERS[name].items() if key not in ("name", "topic")}
    try:
        assert answer_of(program_of(name)) == kept
    except oracle.CannotAskError as error:
        pytest.skip(str(error))
