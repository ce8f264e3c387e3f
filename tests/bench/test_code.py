"""The bench of code: what it says of figures, and that it measures where neither clang-19 nor a kernel is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agreement.fixtures import fixture
from tests.bench import code, variants
from tests.bench.variants import OURS, Row, Variant


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows of three fixtures, one of which has several programs, with the kept objects beside ours."""
    folder: Path = tmp_path_factory.mktemp("code")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "CLANG", None)
        names = ("total_counter", "port_dropper", "dispatch")
        return [row for name in names for row in variants._rows_of(fixture(name), folder)]


def test_without_clang_the_kept_objects_stand_beside_ours(found: list[Row]) -> None:
    assert [row.name for row in found] == [
        "total_counter", "port_dropper", "dispatch/main", "dispatch/handler_a", "dispatch/handler_b",
    ]  # fmt: skip
    for row in found:
        assert set(row.made) == {Variant(OURS, "v3"), Variant(OURS, "v4"), Variant("-O2", "v3")}
        assert row.made[Variant("-O2", "v3")].insns != b""


def test_both_verifiers_count_alike(found: list[Row]) -> None:
    counts, differ = code.processed(found, kernel=code.bpf_syscall.available()[0])
    assert not differ
    assert all(counts.values())


def test_a_goal_that_is_not_met_is_named(found: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "CLANG", None)
    monkeypatch.setattr(code, "SLOT_GOALS", {"total_counter": 11})
    figures = {(row.name, variant): 10.0 for row in found for variant in row.made}
    assert [row[-1] for row in code._goals(found, figures, figures, figures)] == ["yes", "NO", "yes", "yes", "yes"]
    figures["total_counter", Variant(OURS, "v3")] = figures["total_counter", Variant(OURS, "v4")] = 12.0
    rows = list(code._goals(found, figures, figures, {}))
    assert [row[-1] for row in rows] == ["NO", "NO", "NO", "NO"]
    assert rows[0][1] == "total_counter +2"
