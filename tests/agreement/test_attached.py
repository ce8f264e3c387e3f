"""Helpers of programs without a test run do what kernel 6.18.44 answered when they were attached, on every engine."""

from __future__ import annotations

import pytest

from simulator.run import engine_named
from tests.agreement.attached import answer, cases, recorded
from tests.engines import as_parameters


@pytest.mark.parametrize("engine", as_parameters())
def test_attached_programs_do_as_in_the_kernel(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_named("python"), "first_runs", 0)
    wanted = recorded()
    found = {case.name: answer(case, engine).rstrip("0") for case in cases()}
    assert set(found) == set(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []
