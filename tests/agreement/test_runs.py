"""The recorded runs of the corpus, where it is at hand: the kernel's value, but for those that are listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulator.run import engine_named
from tests.agreement import runs
from tests.agreement.runs import CORPUS, answer, recorded
from tests.engines import as_parameters

EXCEPTIONS = json.loads((Path(__file__).parents[2] / "fixtures" / "runs" / "exceptions.json").read_text())["exceptions"]
SHARE = 6
"""One in so many runs is made here; `python -m tests.agreement.runs` makes them all."""


@pytest.mark.skipif(not (CORPUS / "verdicts.jsonl.gz").is_file(), reason=f"no corpus at {CORPUS}")
@pytest.mark.parametrize("engine", as_parameters()[1:])
def test_recorded_runs(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_named("python"), "first_runs", 0)
    different = []
    for index, one in enumerate(recorded()):
        name = f"{one.record}#{one.number}"
        if index % SHARE or name in EXCEPTIONS:
            continue
        found = answer(one, engine)
        if not found.same:
            different.append((name, found.said))
    assert different == []


def test_an_engine_that_is_none_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert runs.main(["verdicts.jsonl.gz"]) == 2
    assert "no engine verdicts.jsonl.gz here: there are reference" in capsys.readouterr().err
