"""Each rule by which kernels differ is a switch that something hangs on: turned round, it changes a verdict or log."""

from __future__ import annotations

import pytest

from bpflisp.spec.kernels import profile
from bpflisp.spec.rules import RULES
from simulator.verifier.ways import ways_of
from tests.simulator.verifier.explore_cases import NEEDS_KERNEL_TYPES
from tests.simulator.verifier.explore_cases import texts as explored
from tests.simulator.verifier.rule_cases import answer, running_types, table, texts, turned_round

TABLE, TEXTS = table(), texts()
NEED_TYPES = {name for topic, name, _ in explored() if topic in NEEDS_KERNEL_TYPES}


def test_every_rule_has_a_program_that_shows_it() -> None:
    assert list(TABLE) == [rule.name for rule in RULES]


@pytest.mark.parametrize("rule", TABLE)
def test_the_program_is_judged_otherwise_with_the_rule_turned_round(rule: str) -> None:
    kernel, name = TABLE[rule]
    if name in NEED_TYPES and running_types() is None:
        pytest.skip("needs the BTF of a kernel 6.18 in /sys/kernel/btf/vmlinux")
    usual = answer(TEXTS[name], name, kernel)
    with turned_round(rule):
        assert answer(TEXTS[name], name, kernel) != usual
    assert answer(TEXTS[name], name, kernel) == usual


def test_turning_round_is_undone() -> None:
    before = ways_of(profile("6.18"))
    with turned_round("static-stack"):
        assert ways_of(profile("6.18")).static_stack != before.static_stack
    assert ways_of(profile("6.18")) == before
