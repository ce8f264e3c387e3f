"""The context of every type of program, by field name: each field compiles to the access that the kernel takes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bpflisp import CompileError, compile_text
from bpflisp.spec import contexts, programs
from bpflisp.spec.contexts import Field
from bpflisp.spec.insn import decode
from bpflisp.spec.isa import Kind
from simulator.loader import load
from simulator.program import Program
from tests import oracle

SECTIONS = {"kprobe": "kprobe/f", "raw_tracepoint": "raw_tp/sched_switch",
            "raw_tracepoint_writable": "raw_tp.w/nbd_send_request"}  # fmt: skip
NOT_HERE = {"lirc_mode2"}
"""Types that the machine's kernel was built without."""


def section_of(prog_type: str, attach_type: str) -> str:
    return SECTIONS.get(prog_type) or programs.libbpf_name(prog_type, attach_type) or prog_type


def compiled(prog_type: str, section: str, form: str) -> Program:
    kind = prog_type.replace("_", "-")
    return load(compile_text(f'(defprog p (:type :{kind} :section "{section}") (if {form} 1 1))', opt=0))["p"]


def fields() -> Iterator[object]:
    """Every scalar field that some attach type of a program type may read, under the first such attach type."""
    for kind in programs.all_program_types():
        struct = contexts.context_struct(kind.name)
        for field in struct.fields if struct else ():
            if field.bits or field.element_size not in (1, 2, 4, 8):
                continue
            for attach_type in ("", *kind.attach_types):
                table = contexts.access_table(kind.name, attach_type)
                size = field.element_size
                if table and table.access(field.offset, size, False):
                    yield pytest.param(kind.name, attach_type, field, id=f"{kind.name}-{field.name}")
                    break


FIELDS = list(fields())


@pytest.mark.parametrize(("prog_type", "attach_type", "field"), FIELDS)
def test_field(prog_type: str, attach_type: str, field: Field) -> None:
    index = " 0" if field.element_size != field.size else ""
    section = section_of(prog_type, attach_type)
    program = compiled(prog_type, section, f"(ctx {field.name.replace('_', '-')}{index})")
    loads = [insn for insn in decode(program.insns) if insn and insn.row.kind is Kind.LOAD]
    assert [(insn.off, insn.row.size) for insn in loads] == [(field.offset, field.element_size)]
    verdict = program.verify("6.18")
    assert verdict.accepted or verdict.code == "unsupported", verdict.message
    if oracle.available()[0] and prog_type not in NOT_HERE:
        answer = oracle.ask(program)
        assert answer.accepted, answer.log


def test_there_are_fields() -> None:
    assert len(FIELDS) > 250


ENTER, LEAVE = "tracepoint/syscalls/sys_enter_openat", "tracepoint/syscalls/sys_exit_openat"
WORDS = [
    ("tracing", "fentry/do_unlinkat", "(ctx args 0)", 0),
    ("tracing", "fexit/do_unlinkat", "(ctx args 2)", 16),
    ("tracing", "tp_btf/sched_switch", "(ctx args 1)", 8),
    ("lsm", "lsm/file_open", "(ctx args 0)", 0),
    ("raw_tracepoint", "raw_tp/sched_switch", "(ctx args 2)", 16),
    ("tracepoint", ENTER, "(ctx id)", 8),
    ("tracepoint", ENTER, "(ctx args 5)", 56),
    ("tracepoint", LEAVE, "(ctx ret)", 16),
    ("lirc_mode2", "lirc_mode2", "(ctx sample)", 0),
]


@pytest.mark.parametrize(("prog_type", "section", "form", "offset"), WORDS)
def test_words_that_the_user_api_has_no_structure_for(prog_type: str, section: str, form: str, offset: int) -> None:
    loads = [
        insn.off for insn in decode(compiled(prog_type, section, form).insns) if insn and "LOAD" in insn.row.kind.name
    ]
    assert loads == [offset]


@pytest.mark.parametrize(
    ("section", "form"),
    [(ENTER, "(ctx ret)"), (LEAVE, "(ctx args 0)"), ("tracepoint/sched/sched_switch", "(ctx args 0)")],
)
def test_a_tracepoint_has_no_other_names(section: str, form: str) -> None:
    with pytest.raises(CompileError, match="unknown-field"):
        compiled("tracepoint", section, form)


@pytest.mark.parametrize(("form", "offset"), [("(ctx regs 3)", 24), ("(ctx sp)", 248), ("(ctx pc)", 256)])
def test_registers_of_arm64_by_name(form: str, offset: int) -> None:
    text = f'(defprog p (:type :kprobe :section "kprobe/f") (if {form} 0 0))'
    program = load(compile_text(text, arch="arm64", opt=0))["p"]
    assert [insn.off for insn in decode(program.insns) if insn and insn.row.kind is Kind.LOAD] == [offset]
