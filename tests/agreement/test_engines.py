"""A few generated programs on every run: our engines leave behind what the kernel leaves behind."""

from __future__ import annotations

import pytest

from tests import oracle
from tests.agreement.engines import ENGINES, run_seed

SEEDS = range(8_000_000, 8_000_080)
GOOD = {"agree", "unmodelled", "set aside", "not run"}


def test_generated_programs_run_as_in_the_kernel() -> None:
    works, why = oracle.available()
    if not works:
        pytest.skip(why)
    results = [(number, *row) for number in SEEDS for row in run_seed(ENGINES, 8, number)]
    assert [row for row in results if row[2] not in GOOD] == []
    assert sum(row[2] == "agree" for row in results) >= len(ENGINES)
