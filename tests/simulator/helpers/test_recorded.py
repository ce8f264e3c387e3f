"""Helpers as kernel 6.18.44 answered them, on every simulating engine."""

from __future__ import annotations

import pytest

from tests.engines import as_parameters
from tests.simulator.helpers import network
from tests.simulator.helpers.calls import answer, cases, recorded


@pytest.mark.parametrize("engine", as_parameters())
def test_helpers_answer_as_the_kernel_did(engine: str) -> None:
    wanted = recorded()
    differences = []
    for case in cases():
        found = answer(case, engine)
        if found != wanted[case.name]:
            differences.append((case.name, found, wanted[case.name]))
    assert not differences, f"{len(differences)} of {len(wanted)}: {differences[:5]}"


@pytest.mark.parametrize("engine", as_parameters())
def test_routes_are_found_as_the_kernel_found_them(engine: str) -> None:
    wanted = network.recorded()
    differences = []
    for case in network.cases():
        found = network.ours(case, engine).retval
        if found != wanted[case.name]:
            differences.append((case.name, found, wanted[case.name]))
    assert not differences, f"{len(differences)} of {len(wanted)}: {differences[:5]}"
