"""CO-RE accesses: a loader finds the member by the way to it, in members, elements and unions without a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpflisp import CompileError, compile_text
from bpflisp.spec.btf import Btf, BtfKind, read_btf
from bpflisp.spec.insn import decode
from bpflisp.spec.isa import Kind
from simulator.loader import load

VMLINUX = Path("/sys/kernel/btf/vmlinux")
TARGET = Path(__file__).parents[3] / "fixtures" / "objects" / "core_target.bpf.o"
"""The types that fixtures/objects/core_target.c declares."""

# What the program says of an access -> where the target has it, by its declaration.
ACCESSES = {
    "(core-load u32 p 0 shape first)": 8,
    "(core-load u32 p 0 shape deep)": 16,
    "(core-load u64 p 40 shape other)": 16,
    "(core-load u32 p 0 shape (inner a))": 32 + 8,
    "(core-load u16 p 0 shape (inner items 0))": 32 + 12,
    "(core-load u16 p 100 shape (inner items 5))": 32 + 12 + 5 * 2,
    "(core-load ptr p 8 shape pointer)": 72,
    "(core-load ptr p 0 same next)": 8,
}


def moved(source: str, kernel_btf: Path) -> list[int]:
    """The offsets of the loads of a program, once the loader has moved them."""
    program = load(compile_text(source), kernel_btf=kernel_btf)["p"]
    return [insn.off for insn in decode(program.insns) if insn and insn.row.kind in (Kind.LOAD, Kind.LOAD_SIGNED)]


def program(access: str) -> str:
    return f'(defprog p (:type :kprobe :section "kprobe/f") (let ((p (get-current-task-btf))) {access}))'


@pytest.mark.parametrize(("access", "offset"), ACCESSES.items())
def test_the_loader_finds_the_member(access: str, offset: int) -> None:
    assert moved(program(access), TARGET) == [offset]


@pytest.mark.parametrize(
    ("struct", "path"),
    [
        ("task_struct", ("pid",)),
        ("task_struct", ("se", "vruntime")),
        ("task_struct", ("se", "load", "weight")),
        ("task_struct", ("comm", 3)),
        ("sk_buff", ("dev",)),  # in a union within a struct within a union, none of which has a name
        ("net_device", ("ifindex",)),
    ],
)
def test_in_the_running_kernel(struct: str, path: tuple[str | int, ...]) -> None:
    if not VMLINUX.exists():
        pytest.skip("this kernel has no BTF")
    btf = read_btf(VMLINUX)
    offset, size, pointer = place(btf, struct, path)
    kind = "ptr" if pointer else f"u{size * 8}"
    shown = " ".join(str(step).replace("_", "-") for step in path)
    access = f"(core-load {kind} p 64 {struct.replace('_', '-')} ({shown}))"
    assert moved(program(access), VMLINUX) == [offset]


def place(btf: Btf, struct: str, path: tuple[str | int, ...]) -> tuple[int, int, bool]:
    """(offset, size, is a pointer) of a member, by its way through the kernel's types."""
    found, at = btf.find(struct, BtfKind.STRUCT), 0
    assert found is not None
    for step in path:
        found = btf.resolve(found)
        if isinstance(step, int):
            element = btf.array(found).element
            at, found = at + step * btf.size_of(element), element
        else:
            bits, found = next(iter(_named(btf, found, step)))
            at += bits // 8
    return at, btf.size_of(found), btf.type(btf.resolve(found)).kind is BtfKind.PTR


def _named(btf: Btf, type_id: int, name: str) -> list[tuple[int, int]]:
    """(offset in bits, type) of the members of a name, in what has no name too."""
    rows: list[tuple[int, int]] = []
    for member in btf.members(btf.resolve(type_id)):
        if member.name == name:
            rows.append((member.bit_offset, member.type))
        elif not member.name:
            rows += [(member.bit_offset + bits, kind) for bits, kind in _named(btf, member.type, name)]
    return rows


@pytest.mark.parametrize(
    ("access", "code"),
    [
        ('(core-load u32 p 0 "shape" first)', "bad-name"),
        ("(core-load u32 p 0 shape (3))", "bad-name"),
        ("(core-load u32 p 0 shape ((inner) a))", "bad-name"),
        ("(core-load u32 p 0 shape (inner -1))", "bad-name"),
        ("(core-load u8 p 2 shape (name 3))", "bad-offset"),
        ("(core-load nothing p 2 shape first)", "unknown-type"),
    ],
)
def test_what_is_no_access(access: str, code: str) -> None:
    with pytest.raises(CompileError) as caught:
        compile_text(program(access))
    assert [found.code for found in caught.value.errors] == [code]
