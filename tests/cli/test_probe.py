"""`bpflisp probe`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulator.engines import bpf_syscall
from tests.cli.calling import PORT_BLOCKER, call


def test_a_profile_of_this_kernel_is_one_to_check_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    able, reason = bpf_syscall.available()
    if not able:
        pytest.skip(reason)
    profile = tmp_path / "host.json"
    assert call(capsys, "probe", "-o", profile).out.startswith(f"wrote {profile}: kernel ")
    assert json.loads(profile.read_text())["rows"]
    checked = call(capsys, "check", PORT_BLOCKER, "--kernel", profile)
    assert (checked.code, "accepted" in checked.out) == (0, True)


def test_without_bpf_it_says_what_it_takes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf_syscall, "available", lambda: (False, "bpf(2) is refused: EPERM"))
    called = call(capsys, "probe")
    assert (called.code, called.out) == (2, "")
    assert "error[no-kernel]" in called.err
    assert "CAP_BPF" in called.err
