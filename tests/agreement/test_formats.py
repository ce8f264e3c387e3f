"""Format strings print what kernel 6.18.44 answered, on every engine."""

from __future__ import annotations

import pytest

from tests.agreement.formats import KEPT, answer, case, recorded
from tests.engines import as_parameters


@pytest.mark.parametrize("engine", as_parameters())
def test_formats_print_as_in_the_kernel(engine: str) -> None:
    wanted = recorded()
    assert len(wanted) == KEPT
    assert sum(map(bool, wanted.values())) > KEPT // 3
    assert [seed for seed, found in wanted.items() if found and answer(case(seed), engine) != found] == []
