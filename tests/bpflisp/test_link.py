"""Linked objects: what is in them, that tools and the kernel take them, and that contradictions are refused."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from bpflisp.link import (
    CoreAccess,
    Line,
    LinkError,
    LinkFunction,
    LinkGlobal,
    LinkMap,
    LinkObject,
    Relocation,
    RelocKind,
    link,
)
from bpflisp.spec.btf_build import INT, U32, U64, Array, BtfBuilder, Forward, Member, Pointer, Signature, Struct, Void
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Kind
from simulator.loader import load

MOV, MOV_REG, LOAD64, CALL, EXIT, STORE32_IMM, ADD, ADD_REG = 0xB7, 0xBF, 0x18, 0x85, 0x95, 0x62, 0x07, 0x0F
CONTEXT = Struct("xdp_md", 24, [Member(name, U32, 32 * at) for at, name in enumerate(
    ["data", "data_end", "data_meta", "ingress_ifindex", "rx_queue_index", "egress_ifindex"])])  # fmt: skip
PROGRAM = Signature(INT, [("ctx", Pointer(CONTEXT))])
PLAIN = Signature(INT, [("n", INT)])
FLOW = Struct("flow", 8, [Member("address", U32, 0), Member("port", U32, 32)])


def _lines(*slots: int) -> list[Line]:
    return [Line(slot, "count.lisp", 10 + at, 3, f"  (form {at})") for at, slot in enumerate(slots)]


def count() -> LinkFunction:
    """Looks a key up, calls two subprograms, adds a global."""
    insns = [
        Insn(STORE32_IMM, 10, 0, -4, 0),
        Insn(STORE32_IMM, 10, 0, -8, 0),
        Insn(MOV_REG, 2, 10),
        Insn(ADD, 2, 0, 0, -8),
        Insn(LOAD64, 1),
        Insn(CALL, 0, 0, 0, 1),
        Insn(MOV, 1, 0, 0, 3),
        Insn(CALL),
        Insn(MOV_REG, 1, 0),
        Insn(CALL),
        Insn(LOAD64, 2),
        Insn(0x61, 2, 2, 0),
        Insn(0x5F, 0, 2),
        Insn(MOV, 0, 0, 0, 2),
        Insn(EXIT),
    ]
    relocations = [
        Relocation(4, RelocKind.MAP, "flows"),
        Relocation(8, RelocKind.CALL, "twice"),
        Relocation(10, RelocKind.CALL, "thrice"),
        Relocation(11, RelocKind.DATA, "limits", 4),
    ]
    return LinkFunction("count", "xdp", insns, PROGRAM, relocations, _lines(0, 4, 7))


def subprogram(name: str, times: int, is_global: bool) -> LinkFunction:
    insns = [Insn(MOV_REG, 0, 1), *[Insn(ADD_REG, 0, 1)] * (times - 1), Insn(EXIT)]
    return LinkFunction(name, ".text", insns, PLAIN, (), _lines(1), is_global=is_global)


def dispatch() -> LinkFunction:
    """A second program in the same section, that calls into a prog array."""
    insns = [Insn(LOAD64, 2), Insn(MOV, 3), Insn(CALL, 0, 0, 0, 12), Insn(MOV, 0, 0, 0, 1), Insn(EXIT)]
    return LinkFunction(
        "dispatch", "xdp", insns, PROGRAM, [Relocation(0, RelocKind.MAP, "jumps")], _lines(0), is_global=True
    )


WHOLE = LinkObject(
    [count(), dispatch(), subprogram("twice", 2, False), subprogram("thrice", 3, True)],
    [
        LinkMap("flows", "hash", FLOW, Array(U64, 2), max_entries=64, flags=1),
        LinkMap("events", "ringbuf", max_entries=4096),
        LinkMap("jumps", "prog_array", key_size=4, value_size=4, max_entries=4, slots={1: "dispatch"}),
        LinkMap("outer", "array_of_maps", key_size=4, value_size=4, max_entries=2,
                inner=LinkMap("", "array", U32, U64, max_entries=1)),
    ],
    [
        LinkGlobal("limits", ".rodata", Array(U32, 2), bytes([1, 0, 0, 0, 255, 0, 0, 0]), 4),
        LinkGlobal("seen", ".bss", U64, bytes(8)),
        LinkGlobal("started", ".data", U64, bytes([9, 0, 0, 0, 0, 0, 0, 0]), is_global=False),
    ],
    types=[Struct("event", 8, [Member("pid", U32, 0), Member("next", Pointer(Forward("event")), 0)])],
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    out = tmp_path / "whole.bpf.o"
    out.write_bytes(link(WHOLE))
    return out


def test_the_same_input_gives_the_same_bytes() -> None:
    assert link(WHOLE) == link(WHOLE)


@pytest.mark.skipif(not shutil.which("llvm-readelf-19"), reason="no llvm-readelf-19 here")
def test_readelf_has_no_complaint(path: Path) -> None:
    done = subprocess.run(["llvm-readelf-19", "-a", "-W", path], capture_output=True, text=True, check=True)
    assert not done.stderr
    assert "R_BPF_64_32" in done.stdout
    assert "warning" not in done.stdout


@pytest.mark.skipif(not shutil.which("bpftool"), reason="no bpftool here")
def test_bpftool_reads_the_btf(path: Path) -> None:
    shown = subprocess.run(["bpftool", "btf", "dump", "file", path], capture_output=True, text=True, check=True).stdout
    assert "FUNC 'twice' type_id" in shown
    assert "linkage=static" in shown
    assert "DATASEC '.maps' size=136 vlen=4" in shown
    assert "DATASEC '.rodata' size=8 vlen=1" in shown


@pytest.mark.skipif(not shutil.which("bpftool"), reason="no bpftool here")
def test_libbpf_and_the_kernel_take_it(path: Path) -> None:
    pin = Path("/sys/fs/bpf") / f"bpflisp-link-{path.parent.name}"
    done = subprocess.run(["bpftool", "prog", "loadall", path, pin], capture_output=True, text=True)
    if "Operation not permitted" in done.stderr or "Read-only" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"bpf(2) is refused here: {done.stderr.strip().splitlines()[0]}")
    try:
        assert done.returncode == 0, done.stderr
        shown = subprocess.run(
            ["bpftool", "prog", "dump", "xlated", "pinned", pin / "count", "linum"], capture_output=True, text=True
        ).stdout
        assert "; (form 0) [file:count.lisp line_num:10 line_col:3]" in shown
    finally:
        shutil.rmtree(pin, ignore_errors=True)


def _broken(**changes: object) -> LinkObject:
    return replace(WHOLE, functions=[replace(count(), **changes), *WHOLE.functions[1:]])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (_broken(name="count-flows"), "no name like 'count-flows'"),
        (_broken(name="twice"), "two things are named 'twice'"),
        (_broken(relocations=[Relocation(5, RelocKind.MAP, "flows")]), "slot 5 of 'count': no instruction starts"),
        (_broken(relocations=[Relocation(6, RelocKind.MAP, "flows")]), "which is a call"),
        (_broken(relocations=[Relocation(4, RelocKind.MAP, "nobody")]), "needs the map 'nobody'"),
        (_broken(relocations=[Relocation(4, RelocKind.DATA, "flows")]), "needs the data 'flows'"),
        (_broken(relocations=[Relocation(8, RelocKind.CALL, "dispatch")]), "has to be in .text"),
        (_broken(relocations=[Relocation(4, RelocKind.MAP, "flows")] * 2), "two relocations at slot 4"),
        (_broken(lines=()), "'count' has no source line"),
        (LinkObject([], [LinkMap("m", "hashish")]), "type 'hashish'"),
        (LinkObject([], [LinkMap("m", "array", slots={0: "x"})]), "cannot have initial entries"),
        (LinkObject([], [LinkMap("m", "prog_array", slots={0: "x"})]), "entry 0 of map 'm' is 'x'"),
        (LinkObject([], [], [LinkGlobal("g", ".bss", U32, b"\1\0\0\0")]), "not all zero"),
        (LinkObject([], [], [LinkGlobal("g", "data", U32, b"\1\0\0\0")]), "not .data, .rodata or .bss"),
    ],
)
def test_contradictions_are_refused(source: LinkObject, message: str) -> None:
    with pytest.raises(LinkError, match=message):
        link(source)


def test_a_map_with_one_type_gets_the_other_too() -> None:
    """The kernel refuses a map of which only the value has a type; libbpf then drops both, cilium/ebpf gives up."""
    maps = [LinkMap("m", "hash", value=FLOW, key_size=4, max_entries=1),
            LinkMap("n", "hash", key=FLOW, value_size=6, max_entries=1)]  # fmt: skip
    loaded = load(link(LinkObject([], maps))).maps
    btf = loaded["m"].btf
    assert btf is not None
    assert btf.type(loaded["m"].btf_key).name == "__u32"
    assert btf.size_of(loaded["n"].btf_value) == 6


def test_what_is_linked_is_what_is_loaded() -> None:
    loaded = load(link(WHOLE), name="whole.o")
    assert list(loaded.programs) == ["count", "dispatch"]
    count = loaded["count"]
    assert [insn.imm for insn in count.code if insn and insn.row.kind is Kind.CALL] == [1, 8, 9]
    assert loaded.maps["jumps"].slots == {1: "dispatch"}
    assert loaded.maps["whole.rodata"].init == WHOLE.globals[0].data
    assert [line.text.strip() for line in count.line_info] == ["(form 0)", "(form 1)", "(form 2)"] + ["(form 0)"] * 2
    assert len(count.func_info) == 3


def test_a_core_record_is_resolved_against_another_kernel() -> None:
    ours, theirs = (Struct("task_struct", 8 + at, [Member("pid", INT, 8 * at)]) for at in (0, 12))
    function = LinkFunction(
        "f", "raw_tp", [Insn(0xB7, 1, 0, 0, 0), Insn(MOV, 0), Insn(EXIT)], Signature(INT, [("ctx", Pointer(Void()))]),
        core=[CoreAccess(0, 0, ours, "0:0")],
    )  # fmt: skip
    builder = BtfBuilder()
    builder.add(theirs)
    loaded = load(link(LinkObject([function])), kernel_btf=builder.to_bytes())
    first = loaded["f"].code[0]
    assert first is not None
    assert first.imm == 12


def test_core_records_and_kernel_functions(tmp_path: Path) -> None:
    task = Struct("task_struct", 8, [Member("pid", INT, 0)])
    insns = [Insn(CALL), Insn(MOV, 0), Insn(EXIT)]
    function = LinkFunction(
        "f", "tc", insns, Signature(INT, [("ctx", Pointer(Void()))]),
        [Relocation(0, RelocKind.KFUNC, "bpf_rcu_read_lock")], core=[CoreAccess(1, 0, task, "0:0")],
    )  # fmt: skip
    data = link(LinkObject([function], externs={"bpf_rcu_read_lock": Signature(Void())}))
    assert b"bpf_rcu_read_lock\0" in data
    assert b"0:0\0" in data
