"""Every row of the instruction table runs on every engine as it runs in the kernel."""

from __future__ import annotations

import json

import pytest

from bpflisp.spec.isa import ROWS
from tests import oracle
from tests.engines import as_parameters
from tests.simulator.engines.every_row import FILE, NOT_RUN, cases, results


@pytest.mark.parametrize("engine", as_parameters())
def test_every_row_runs_as_it_ran_in_the_kernel(engine: str) -> None:
    kept = json.loads(FILE.read_text())
    wrong = {name: (found, kept[name]) for name, _, made in cases() if (found := results(made, engine)) != kept[name]}
    assert wrong == {}


def test_no_row_is_left_out() -> None:
    assert {row for _, row, _ in cases()} == {row for row in ROWS if row.kind not in NOT_RUN}


def test_the_running_kernel_still_says_so() -> None:
    works, why = oracle.available()
    if not works:
        pytest.skip(why)
    kept = json.loads(FILE.read_text())
    assert {name: results(made, "kernel") for name, _, made in cases()} == kept
