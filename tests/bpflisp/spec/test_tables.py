"""The tables: what is shipped is what the generator makes, reading is lazy, sets of numbers survive the trip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpflisp.spec.tabledata import FOLDER, numbers, ranges
from tools import gen_tables


@pytest.mark.skipif(not gen_tables.SHARED.is_dir(), reason="the facts that the tables are made of are not here")
def test_shipped_tables_are_those_of_the_generator(capsys: pytest.CaptureFixture[str]) -> None:
    assert gen_tables.main(["--check"]) == 0, capsys.readouterr().out


def test_without_the_facts_the_generator_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gen_tables, "SHARED", tmp_path / "nowhere")
    assert gen_tables.main(["--check"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_every_table_is_shipped() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} <= set(gen_tables.MAKERS) | gen_tables.PROBED
    assert all((FOLDER / f"{name}.json").exists() for name in gen_tables.MAKERS)


def test_import_reads_no_table() -> None:
    code = (
        "import bpflisp.spec.helpers, bpflisp.spec.contexts, bpflisp.spec.maps, bpflisp.spec.programs\n"
        "import bpflisp.spec.kernels, bpflisp.spec.kfuncs, bpflisp.spec.headers\n"
        "from bpflisp.spec.tabledata import table\n"
        "print(table.cache_info().currsize)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


@given(st.frozensets(st.integers(0, 300)))
def test_ranges_read_back(members: frozenset[int]) -> None:
    assert numbers(ranges(members)) == members
