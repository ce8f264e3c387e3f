"""Objects that the kernel manages (trees, lists, counts, locks, flags, work) are judged as kernel 6.18.44 judged."""

from __future__ import annotations

import platform

import pytest

from simulator import verify
from simulator.verifier.refusal import UNCLASSED
from tests.simulator.verifier.explore_cases import HOST_BTF, masked
from tests.simulator.verifier.managed_cases import answer, answers, programs
from tests.simulator.verifier.typed_cases import without_ids

ANSWERS = answers()
NAMES = list(ANSWERS)


def test_every_program_has_an_answer() -> None:
    assert list(programs()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_answers_as_the_kernel(name: str) -> None:
    if not (HOST_BTF.exists() and platform.release().startswith("6.18.")):
        pytest.skip("needs the BTF of a kernel 6.18 in /sys/kernel/btf/vmlinux")
    verdict, kept = verify(programs()[name], kernel_btf=HOST_BTF), ANSWERS[name]
    assert (verdict.accepted, verdict.message) == (kept["accepted"], kept["message"])
    assert verdict.insns_processed == (kept["insns_processed"] or 0)
    if not verdict.accepted:
        assert verdict.code != UNCLASSED
        assert without_ids({"log": masked(verdict.log)})["log"] == kept["log"]


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
        assert answer(name) == kept
    except oracle.CannotAskError as error:
        pytest.skip(str(error))
