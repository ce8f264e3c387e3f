"""Sequences of helpers on packets do what kernel 6.18.44 answered, on every engine."""

from __future__ import annotations

import pytest

from simulator.run import engine_named
from tests.agreement.sequences import KEPT, answer, case, digest, recorded
from tests.engines import as_parameters


@pytest.mark.parametrize("engine", as_parameters())
def test_sequences_do_as_in_the_kernel(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_named("python"), "first_runs", 0)
    wanted = recorded()
    assert len(wanted) == KEPT
    assert [seed for seed, found in wanted.items() if digest(answer(case(seed), engine)) != found] == []
