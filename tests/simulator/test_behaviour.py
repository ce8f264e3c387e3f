"""What programs of fixtures/behaviour do, on every simulating engine, as kernel 6.18.44 had it."""

from __future__ import annotations

import pytest

from simulator.run import engine_named
from tests.engines import as_parameters
from tests.simulator.behaviour import answer, cases, recorded

CASES = {name: (obj, program) for name, obj, program in cases()}


@pytest.mark.parametrize("engine", as_parameters())
@pytest.mark.parametrize("name", CASES)
def test_a_program_does_as_in_the_kernel(name: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_named("python"), "first_runs", 0)
    assert answer(*CASES[name], engine) == recorded()[name]


def test_every_answer_has_its_program() -> None:
    assert set(recorded()) == set(CASES)
