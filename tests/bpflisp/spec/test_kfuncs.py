"""Kfuncs: found by name, with flags per program type."""

from __future__ import annotations

import pytest

from bpflisp.spec import kfuncs

ALL = list(kfuncs.all_kfuncs())


def test_found_by_name() -> None:
    assert len(ALL) > 300
    for kfunc in ALL:
        assert kfuncs.by_name(kfunc.name) is kfunc
        assert (kfunc.ret is None) == (kfunc.args is None)
    assert kfuncs.by_name("no_such_kfunc") is None


@pytest.mark.parametrize(
    ("name", "flag"),
    [("bpf_iter_num_new", "ITER_NEW"), ("bpf_task_acquire", "ACQUIRE"), ("bpf_task_release", "RELEASE")],
)
def test_flags(name: str, flag: str) -> None:
    kfunc = kfuncs.by_name(name)
    assert kfunc is not None
    assert flag in kfunc.flags
    assert kfunc.args


def test_flags_by_program_type() -> None:
    from_xdp = kfuncs.by_name("bpf_dynptr_from_xdp")
    assert from_xdp is not None
    assert from_xdp.flags_for("xdp") is not None
    assert from_xdp.flags_for("kprobe") is None
