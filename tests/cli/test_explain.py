"""`bpflisp explain`."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.cli.calling import call

LOG = "0: (95) exit\nR0 !read_ok\nprocessed 1 insns (limit 1000000) max_states_per_insn 0\n"


def test_a_log_is_explained(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "log").write_text(LOG)
    called = call(capsys, "explain", tmp_path / "log")
    assert called.code == 0
    lines = called.out.splitlines()
    assert lines[0] == "refused[uninitialised-register]: R0 !read_ok"
    assert lines[1].startswith("  = because: a register is read")
    assert lines[-1] == "  = see: docs/refusals/uninitialised-register.md"


def test_a_log_is_read_from_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(LOG))
    assert call(capsys, "explain", "-").code == 0


def test_a_report_of_kernel_7_3_is_explained_with_its_own_suggestion(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "log").write_text(
        "Verification failed: uninitialized register\n  Reason: R0 !read_ok\n  At: insn 0 (95) exit\n"
        "  Causal path:\n    0: (95) exit\n  Suggestion: set R0 before the exit\n"
    )
    called = call(capsys, "explain", tmp_path / "log")
    assert called.code == 0
    lines = called.out.splitlines()
    assert lines[0] == "refused[uninitialised-register]: R0 !read_ok"
    assert lines[2:] == ["  = help: set R0 before the exit", "  = see: docs/refusals/uninitialised-register.md"]


def test_what_is_no_log_is_not_explained(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\xff hello\n")
    called = call(capsys, "explain", tmp_path / "log")
    assert (called.code, called.out) == (1, "")
    missing = call(capsys, "explain", tmp_path / "nothing")
    assert missing.code == 2
    assert "unreadable" in missing.err
