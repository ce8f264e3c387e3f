"""The instruction-set tests of the corpus, where it is at hand, on every engine."""

from __future__ import annotations

import pytest

from tests.agreement.conformance import cases, passes
from tests.agreement.runs import CORPUS
from tests.engines import as_parameters

FILE = CORPUS / "conformance.jsonl"


@pytest.mark.skipif(not FILE.is_file(), reason=f"no corpus at {CORPUS}")
@pytest.mark.parametrize("engine", as_parameters())
def test_all_of_the_first_suite(engine: str) -> None:
    found = [case for case in cases(FILE) if case.suite == "bpf_conformance"]
    assert len(found) == 313
    assert [case.name for case in found if not passes(case, engine)] == []
