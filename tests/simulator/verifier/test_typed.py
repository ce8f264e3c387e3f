"""Pointers that the kernel's BTF types are judged as kernel 6.18.44 judged them."""

from __future__ import annotations

import platform

import pytest

from simulator import verify
from simulator.verifier.refusal import UNCLASSED
from tests.simulator.verifier.explore_cases import HOST_BTF, answer_of, masked
from tests.simulator.verifier.typed_cases import answers, program_of, texts, without_ids

ANSWERS = answers()
NAMES = list(ANSWERS)


def test_every_program_has_an_answer() -> None:
    assert list(texts()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_answers_as_the_kernel(name: str) -> None:
    if not (HOST_BTF.exists() and platform.release().startswith("6.18.")):
        pytest.skip("needs the BTF of a kernel 6.18 in /sys/kernel/btf/vmlinux")
    verdict, answer = verify(program_of(name), kernel_btf=HOST_BTF), ANSWERS[name]
    assert (verdict.accepted, verdict.message) == (answer["accepted"], answer["message"])
    assert verdict.insns_processed == (answer["insns_processed"] or 0)
    if not verdict.accepted:
        assert verdict.code != UNCLASSED
        assert without_ids({"log": masked(verdict.log)})["log"] == answer["log"]


@pytest.mark.parametrize("name", NAMES)
def test_the_running_kernel_still_answers_so(name: str) -> None:
    from tests import oracle

    possible, why = oracle.available()
    if not possible:
        pytest.skip(why)
    if not platform.release().startswith("6.18."):
        pytest.skip("the answers are those of kernel 6.18")
    kept = {key: value for key, value in ANSWERS[name].items() if key != "name"}
    try:
        assert without_ids(answer_of(program_of(name))) == kept
    except oracle.CannotAskError as error:
        pytest.skip(str(error))
