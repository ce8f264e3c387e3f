"""Contexts: the access tables are the kernel's answers, byte for byte; structures lie as C lays them."""

from __future__ import annotations

import json

import pytest

from bpflisp.spec import contexts, programs
from bpflisp.spec.contexts import Access
from tools.facts import ANSWERS

PROBED = json.loads((ANSWERS / "6.18.44" / "contexts.json").read_text())
PLACES = [(off, size) for off in range(-8, 288) for size in (1, 2, 4, 8)]


@pytest.mark.parametrize("name", PROBED)
def test_access_is_what_the_kernel_answered(name: str) -> None:
    row = PROBED[name]
    writes = set(row["writes"])
    for off, size in PLACES:
        place = f"{off}:{size}"
        read = contexts.access(row["prog_type"], row["attach_type"], off, size, write=False)
        told = row["reads"].get(place)
        assert ((read.kind + (f"_{read.btf}" if read.btf else "")) if read else None) == told, (place, read, told)
        written = contexts.access(row["prog_type"], row["attach_type"], off, size, write=True)
        assert (written == Access("scalar")) == (place in writes), place


def test_buffers_go_on_beyond_what_was_probed_bytewise() -> None:
    assert contexts.access("tracepoint", "", 8184, 8, write=False)
    assert contexts.access("tracepoint", "", 8192, 8, write=False) is None
    assert contexts.access("tracepoint", "", 0, 8, write=False) is None
    assert contexts.access("tracepoint", "", -4096, 8, write=False)
    assert contexts.access("tracepoint", "", 8, 8, write=True) is None
    assert contexts.access("syscall", "", 4096, 8, write=True)
    assert contexts.access("syscall", "", 4097, 8, write=True) is None


def test_typed_contexts_have_no_table() -> None:
    for prog_type in ("tracing", "lsm", "struct_ops", "ext"):
        assert contexts.access_table(prog_type) is None
        with pytest.raises(KeyError, match=prog_type):
            contexts.access(prog_type, "", 0, 8, write=False)


def test_every_other_type_has_one() -> None:
    missing = {kind.name for kind in programs.all_program_types() if contexts.access_table(kind.name) is None}
    assert missing == {"tracing", "lsm", "struct_ops", "ext", "lirc_mode2"}


_TYPES = {
    "__sk_buff": "sched_cls",
    "bpf_sock_ops": "sock_ops",
    "sk_reuseport_md": "sk_reuseport",
    "bpf_sk_lookup": "sk_lookup",
}


@pytest.mark.parametrize(("struct", "name"), contexts.FIELD_MIN_KERNEL)
def test_older_kernels_lack_fields(struct: str, name: str) -> None:
    field = contexts.struct(struct).field(name)
    assert field is not None
    prog_type = {"__sk_buff": "sched_cls", "bpf_sock_ops": "sock_ops"}.get(
        struct, struct.removesuffix("_md").removeprefix("bpf_")
    )
    for kernel in ("5.10", contexts.FIELD_MIN_KERNEL[struct, name], "6.18"):
        table = contexts.access_table(prog_type, "", kernel)
        assert table is not None
        assert (table.access(field.offset, field.size, write=False) is not None) == (kernel != "5.10"), kernel
        assert table.access(0, 4, write=False) or table.access(0, 8, write=False)
    assert contexts.access_table(prog_type, "", "6.18") == contexts.access_table(prog_type)


@pytest.mark.parametrize("name", contexts.struct_names())
def test_structures_are_within_their_size(name: str) -> None:
    struct = contexts.struct(name)
    for field in struct.fields:
        assert field.offset >= 0
        assert field.offset + field.size <= struct.size
        assert field.element_size * max(1, field.size // max(1, field.element_size)) == field.size
        assert struct.field(field.name) is not None


def test_spot_structures() -> None:
    assert contexts.struct("xdp_md").size == 24
    assert contexts.struct("__sk_buff").field("cb") == contexts.Field("cb", 48, 20, "__u32[5]")
    assert contexts.struct("bpf_fib_lookup").size == 64
    context = contexts.context_struct("kprobe")
    assert context is not None
    assert context.name == "pt_regs"
    assert contexts.context_struct("tracepoint") is None


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_registers_that_carry_parameters_exist(arch: str) -> None:
    regs = contexts.pt_regs(arch)
    assert all(regs.field(name) for name in contexts.pt_regs_parm(arch).values())
    with pytest.raises(KeyError):
        contexts.pt_regs("vax")
