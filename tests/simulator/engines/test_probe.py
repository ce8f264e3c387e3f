"""The profile of this host, where it may be asked: rows of the tables' form, and of 6.18.44 what the tables say."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bpflisp.spec import helpers, kernels, programs
from simulator.engines import bpf_syscall, probe
from simulator.engines.bpf_syscall import BpfError

needs_kernel = pytest.mark.skipif(not bpf_syscall.available()[0], reason="bpf(2) is refused to this process")


def test_every_program_type_is_asked_about() -> None:
    asked = {(shape.type, shape.attach_type) for shape in probe.shapes()}
    assert {name for name, _ in asked} == {kind.name for kind in programs.all_program_types()}
    assert ("cgroup_skb", "cgroup_inet_egress") in asked


@needs_kernel
def test_the_profile_is_read_back(tmp_path: Path) -> None:
    seen: list[str] = []
    found = probe.probe(seen.append)
    assert "xdp" in seen
    file = tmp_path / "host.json"
    file.write_text(json.dumps(found))
    profile = kernels.profile(str(file))
    assert profile.version == kernels.parse(os.uname().release)
    assert helpers.allowed(profile.name, "xdp") >= {1, 2, 3}
    assert helpers.gpl_only(profile.name, "xdp") <= helpers.allowed(profile.name, "xdp")
    if profile.version == (6, 18, 44):
        for prog_type, attach_type, sleepable, *_ in found["rows"]:
            about = (prog_type, attach_type, sleepable)
            assert helpers.allowed(profile.name, *about) == helpers.allowed("6.18.44", *about), about
            assert helpers.gpl_only(profile.name, *about) == helpers.gpl_only("6.18.44", *about), about


def test_a_host_that_may_not_be_asked_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf_syscall, "available", lambda: (False, "no such luck"))
    with pytest.raises(BpfError, match="no such luck"):
        probe.probe()
