"""Contexts in BTF: every member where the context has it, in BTF that the kernel takes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bpflisp.spec import contexts
from bpflisp.spec.btf import Btf, BtfKind
from bpflisp.spec.btf_build import BtfBuilder
from bpflisp.spec.context_btf import context_type
from bpflisp.spec.programs import all_program_types
from simulator.engines import bpf_syscall

KINDS = [kind.name for kind in all_program_types() if context_type(kind.name, "x86_64")]


def members(btf: Btf, type_id: int, base: int = 0) -> Iterator[tuple[str, int, int, int]]:
    """(name, offset in bits, size in bytes, bits) of each member, those of unnamed unions among them."""
    for member in btf.members(btf.resolve(type_id)):
        at = base + member.bit_offset
        if member.name:
            yield member.name, at, btf.size_of(member.type), member.bits
        else:
            yield from members(btf, member.type, at)


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_member_is_where_the_context_has_it(kind: str, arch: str) -> None:
    found = context_type(kind, arch)
    assert found is not None
    builder = BtfBuilder()
    type_id = builder.add(found)
    btf = Btf(builder.to_bytes())
    struct = contexts.context_struct(kind)
    assert struct is not None
    if struct.name == "pt_regs":
        struct = contexts.pt_regs(arch)
        assert btf.type(type_id).kind is BtfKind.TYPEDEF
    wanted = {(f.name, f.offset * 8 + f.bit_offset, f.size, f.bits) for f in struct.fields if f.offset < struct.size}
    if arch == "arm64" and kind == "kprobe":
        wanted = {row for row in wanted if "[" not in row[0]} | {("regs", 0, 31 * 8, 0)}
    assert set(members(btf, type_id)) == wanted
    assert btf.size_of(type_id) == struct.size
    assert btf.type(btf.resolve(type_id)).name == struct.name
    if bpf_syscall.available()[0]:
        bpf_syscall.btf_load(builder.to_bytes()).close()


def test_they_are_most_types() -> None:
    assert len(KINDS) >= 20
