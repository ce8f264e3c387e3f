"""`bpflisp compile`: an object that loads, verified first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bpflisp.spec.btf_build import INT, BtfBuilder, Signature
from simulator import load
from tests.cli.calling import REFUSED_LISP, SYN_LIMITER, WRONG_LISP, call


def test_the_object_is_written_and_its_programs_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "syn.bpf.o"
    called = call(capsys, "compile", SYN_LIMITER, "-o", out)
    slots = len(load(out)["syn_limiter"].code)
    assert (called.code, called.out) == (0, f"syn_limiter  xdp  {slots} instructions\n")
    assert called.err == f"wrote {out}\n"


def test_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "syn.bpf.o"
    told = json.loads(call(capsys, "compile", SYN_LIMITER, "-o", out, "--json").out)
    slots = len(load(out)["syn_limiter"].code)
    assert told == {"programs": {"syn_limiter": {"section": "xdp", "insns": slots}}, "maps": ["syns"]}


def test_the_object_goes_beside_its_source(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = tmp_path / "drop.lisp"
    source.write_text("(defprog drop (:type :xdp) XDP_DROP)")
    assert call(capsys, "compile", source).code == 0
    assert list(load(tmp_path / "drop.bpf.o")) == ["drop"]


def test_what_is_refused_is_not_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = tmp_path / "bad.lisp"
    source.write_text(REFUSED_LISP)
    called = call(capsys, "compile", source)
    assert called.code == 1
    assert f"{source}:2: refused[packet-bounds]" in called.err
    assert "--no-verify" in called.err
    assert not (tmp_path / "bad.bpf.o").exists()


def test_what_traces_the_kernel_is_verified_with_its_types(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = tmp_path / "trace.lisp"
    source.write_text('(defprog trace (:type :tracing :section "fentry/do_unlinkat") 0)')
    called = call(capsys, "compile", source)
    assert called.code == 1
    assert "--kernel-btf FILE" in called.err
    builder = BtfBuilder()
    builder.func("do_unlinkat", Signature(INT, [("dfd", INT)]), 0)
    (tmp_path / "kernel.btf").write_bytes(builder.to_bytes())
    assert call(capsys, "compile", source, "--kernel-btf", tmp_path / "kernel.btf").code == 0
    missing = call(capsys, "compile", source, "--kernel-btf", tmp_path / "none")
    assert (missing.code, missing.err) == (2, f"{tmp_path}/none: error[file]: No such file or directory\n")


def test_unless_it_is_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = tmp_path / "bad.lisp"
    source.write_text(REFUSED_LISP)
    assert call(capsys, "compile", source, "--no-verify").code == 0
    assert (tmp_path / "bad.bpf.o").exists()


def test_a_lisp_error_has_place_line_and_caret(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = tmp_path / "wrong.lisp"
    source.write_text(WRONG_LISP)
    called = call(capsys, "compile", source)
    assert (called.code, called.out) == (1, "")
    assert called.err.startswith(f"{source}:2:3: error[unknown-form]: ")
    assert "\n  |   ^^^^^^^^^^^^^^^" in called.err


def test_a_place_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    called = call(capsys, "compile", SYN_LIMITER, "-o", "/nonexistent/syn.o")
    assert (called.code, called.err) == (2, "/nonexistent/syn.o: error[file]: No such file or directory\n")


def test_registers_are_those_of_the_target(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = tmp_path / "probe.lisp"
    source.write_text('(defprog probe (:type :kprobe :section "kprobe/f") (pt-regs-parm2))')
    offsets = []
    for arch in ("x86_64", "arm64"):
        assert call(capsys, "compile", source, "--arch", arch, "--no-verify").code == 0
        offsets.append([insn.off for insn in load(tmp_path / "probe.bpf.o")["probe"].code if insn and insn.off])
    assert offsets == [[104], [8]]


def test_bindings_are_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    called = call(capsys, "compile", SYN_LIMITER, "--gen", "c")
    assert called.code == 2
    assert "`--gen` (bindings for other languages) is not built yet" in called.err
