"""Odd records cost a row each, never the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import no_bpf
from tests.agreement import corpus

GOOD = {
    "id": "a",
    "type": "xdp",
    "insns": "b7000000000000009500000000000000",
    "verdict": "accept",
    "insns_processed": 2,
}

ODD = [
    GOOD | {"origin": "o", "features": ["x"], "a field that nobody knows": {"deep": [1]}},
    GOOD | {"id": "no type", "type": None},
    GOOD | {"id": "no such type", "type": "teapot"},
    GOOD | {"id": "odd bytes", "insns": "b7"},
    GOOD | {"id": "no hex", "insns": "zz"},
    {"id": "without anything", "verdict": "reject"},
    GOOD | {"id": "a map that is not there", "relocs": [[0, "map", 7]]},
    GOOD | {"id": "no list", "maps": 3},
    {"id": "no verdict"},
    ["no record"],
]


def test_odd_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "odd.jsonl", tmp_path / "rows.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in ODD))
    try:
        no_bpf.run(no_bpf.forbid_bpf)
    except no_bpf.FilterError as error:
        pytest.skip(str(error))
    assert corpus.main([str(file), "--jobs", "1", "--json", str(out), "--show", "9"]) == 0
    printed = capsys.readouterr()
    assert "2 lines without a verdict are left out" in printed.err
    rows = {row["id"]: row for row in json.loads(out.read_text())}
    assert len(rows) == len(ODD) - 2
    assert rows["a"]["accepted"]
    assert not any(row["accepted"] for name, row in rows.items() if name not in ("a", "a map that is not there"))


def test_what_is_no_record_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "odd.jsonl"
    file.write_text("{")
    assert corpus.main([str(file)]) == 2
    assert corpus.main([str(tmp_path / "none.jsonl")]) == 2
    assert capsys.readouterr().err.count("corpus: ") == 2
