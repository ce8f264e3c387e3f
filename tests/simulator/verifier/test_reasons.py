"""Reasons say what the path shows: how far it was checked, what may be null since when, what is still held."""

from __future__ import annotations

import pytest

from bpflisp.spec.isa import Kind
from simulator import Program, verify
from simulator.verdict import Reason, Verdict
from simulator.verifier.advice import ADVICE
from simulator.verifier.reasons import render
from simulator.verifier.refusal import CODES, UNCLASSED
from tests.simulator.verifier import readable
from tests.simulator.verifier.explore_cases import NEEDS_KERNEL_TYPES, answers, program_of
from tests.simulator.verifier.refusal_pages import WITHOUT_PAGE

# program -> what because has to say, and help
SAID = {
    "read without a check": ("byte 0 is accessed, and no test on this path", "if (p + 1 > data_end) return;"),
    "one byte past the check": ("test at insn 4 (if r4 > r3 goto pc+1) shows 14 bytes only", "15 bytes instead of 14"),
    "the check is the other way round": (
        "test at insn 4 (if r4 < r3 goto pc+1) shows that they exist on its other",
        "",
    ),
    "a variable offset, checked before it was added": ("variable offset that was added at insn 7", "p + 4 > data_end"),
    "an offset of 64 kilobytes cannot be checked": ("offset of up to 0xffffffff, added at insn 3", "bound the offset"),
    "old pointers after the packet moved": ("insn 7 (call bpf_xdp_adjust_head#44), which may move the packet", "again"),
    "a lookup that is not tested": ("r0 is what bpf_map_lookup_elem gave at insn 5 (", "if (!p) return 0;"),
    "one test for two lookups": ("bpf_map_lookup_elem gave at insn 11 (", ""),
    "a socket that may be null": ("what was loaded at insn 0", ""),
    "the wrong way of a test": ("r0 is null on this path", ""),
    "arguments do not survive a call": ("r1 was lost at insn 0 (call bpf_get_prandom_u32#7)", "r6 to r9"),
    "return nothing": ("nothing on this path sets r0", "on every path"),
    "read a register that nothing wrote": ("nothing on this path writes r3", ""),
    "value of an update too short": ("64 bytes are accessed from fp-16, and only 16 are left", "64 bytes"),
    "helper buffer longer than the frame": ("16 bytes are accessed from fp-8, and only 8 are left", ""),
    "an index that nothing bounds": ("r2 is between -2**63 and 2**63-1 since insn 2", "if (i >= N)"),
    "a comparison that is one too weak": ("the offset in r6 is between 0 and 64, added at insn 9", ""),
    "past a value": ("of 16 bytes, 8 at offset 16 are accessed", ""),
    "a signed comparison alone leaves it negative": ("is between -2**63 and 63", ""),
    "a record that is forgotten": ("what bpf_ringbuf_reserve gave at insn 4", "bpf_ringbuf_submit or bpf_ringbuf_disc"),
    "a socket that is not released": ("what bpf_sk_lookup_tcp gave at insn 7", "bpf_sk_release"),
    "submitted in the middle": ("8 bytes behind the start of what was acquired", ""),
    "a record used after it was submitted": ("insn 9 (call bpf_ringbuf_submit#132), which ended it", "before the call"),
    "a number as a key": ("argument 2 of bpf_map_lookup_elem is a number, from insn 0 (r2 = 5)", ""),
    "returns of a cgroup hook": (
        "r0 is 2 since insn 0 (r0 = 2); cgroup_sock cgroup_inet_sock_create may return 0 to",
        "",
    ),
    "a callback that returns too much": ("a callback may return 0 to 1", ""),
    "no such field": ("struct xdp_md has no field at offset 100", ""),
    "a field read too wide": ("__sk_buff.len, which is read as 4 bytes at offset 0", ""),
    "a field that may not be written": ("__sk_buff.len is no field that socket_filter programs may write", ""),
    "a helper that is not for this type": ("bpf_skb_pull_data is offered to xdp programs by no kernel", ""),
    "a helper that does not exist": ("has no helper number 9999", ""),
    "a helper for the GPL alone": ("the licence is 'MIT'", ""),
    "a loop that makes no progress": ("a round through insn 1 ends in the state that it began with", ""),
    "stacks of two functions together": ("main 400, the function at insn 3 400", ""),
    "a lock that is kept": ("a lock is held, taken at insn 2", ""),
}


def refused(name: str) -> tuple[Verdict, Reason]:
    verdict = verify(program_of(name))
    assert verdict.reason is not None
    return verdict, verdict.reason


@pytest.mark.parametrize("name", SAID)
def test_the_reason_is_found_in_the_path(name: str) -> None:
    because, help = SAID[name]
    _, reason = refused(name)
    assert because in reason.because
    assert help in reason.help


@pytest.mark.parametrize(
    "name", [n for n, a in answers().items() if not a["accepted"] and a["topic"] not in NEEDS_KERNEL_TYPES]
)
def test_every_refusal_has_a_problem_and_a_help_and_ends_with_its_instruction(name: str) -> None:
    verdict, reason = refused(name)
    assert reason.problem
    assert reason.help
    if reason.path:
        assert reason.path[-1].insn == verdict.insn
    assert reason.problem in render(verdict, program_of(name))


def test_every_class_has_advice() -> None:
    classes = {code for _, code in CODES}
    assert classes - set(ADVICE) == set()
    assert len(classes) >= 40
    assert set(WITHOUT_PAGE) == set(ADVICE) - classes


def test_accepted_programs_have_no_reason_and_render_to_nothing() -> None:
    verdict = verify(program_of("return a number"))
    assert verdict.reason is None
    assert render(verdict, program_of("return a number")) == ""


def test_without_a_log_no_reason_is_looked_for() -> None:
    assert verify(program_of("return nothing"), log_level=0).reason is None


def test_source_lines_are_named() -> None:
    verdict, reason = refused("source lines")
    assert "line 5, insn 5 (call bpf_map_lookup_elem#1)" in reason.because
    assert verdict.source == "case.c:10: return *value;"
    assert next(step.source for step in reason.path).startswith("case.c:5: long *value")
    assert render(verdict, program_of("source lines")).startswith("case.c:10: refused[maybe-null]")


def test_a_loop_that_is_too_long_is_named() -> None:
    text = "r1 = 0\nagain:\nr1 += 1\nif r1 < 2000000 goto again\nr0 = 0\nexit\n"
    verdict = verify(readable.program(text))
    assert verdict.code == "too-complex"
    assert verdict.reason is not None
    assert "the loop through insn 1 to 2 is still running" in verdict.reason.because


def is_branch(program: Program, slot: int) -> bool:
    insn = program.code[slot]
    return insn is not None and insn.row.kind is Kind.BRANCH


def test_the_trail_falls_back_with_the_path() -> None:
    # the way that is refused is explored last: branches of the ways before it must not be shown
    program = readable.program(
        "%type xdp\nr6 = *(u32 *)(r1 +16)\nif r6 == 1 goto a\nif r6 == 2 goto b\nr0 = 0\nexit\n"
        "a:\nr0 = *(u64 *)(r9 +0)\nexit\nb:\nr0 = 2\nexit\n"
    )
    verdict = verify(program)
    assert verdict.reason is not None
    branches = [
        step for step in verdict.reason.path if (found := program.code[step.insn]) and found.row.kind is Kind.BRANCH
    ]
    assert [(step.insn, step.text.split("   ")[-1]) for step in branches] == [(1, "taken")]


@pytest.mark.parametrize("name", [row["name"] for row in answers().values() if row["topic"] in NEEDS_KERNEL_TYPES])
def test_what_wants_the_kernels_types_says_how_to_give_them(name: str) -> None:
    verdict = verify(program_of(name))
    if "the kernel's BTF" in verdict.message:
        assert verdict.reason is not None
        assert "--kernel-btf" in verdict.reason.help


def test_no_refusal_is_without_a_because() -> None:
    vague = []
    for name, answer in answers().items():
        if answer["accepted"] or answer["topic"] in NEEDS_KERNEL_TYPES:
            continue
        verdict, reason = refused(name)
        assert verdict.code != UNCLASSED
        if not reason.because:
            vague.append(name)
    assert vague == []


def test_a_class_without_a_look_of_its_own_says_what_it_worked_on() -> None:
    verdict = verify(readable.program("r2 = r1\nr2 *= 4\nr0 = 0\nexit\n"))
    assert verdict.code == "pointer-arithmetic"
    assert verdict.reason is not None
    assert verdict.reason.because == "r2 is the context, from insn 0 (r2 = r1)"


OF_THE_PROGRAM = {
    "a lock in a tracepoint": "map `m` has such a field in its values, and the program is tracepoint",
    "a lock in a socket filter": "the program is socket_filter",
    "tracing without a target": "the program is tracing trace_raw_tp, and names no target",
    "unreachable code": "what is before insn 2 ends or jumps, and no jump that can be reached leads to it",
    "a function that the debugging information does not have": "the code has 2 functions, and the debugging "
    "information lists 1",
    "one map more than a program may have": "map `m65` is one too many",
}


@pytest.mark.parametrize("name", OF_THE_PROGRAM)
def test_what_is_refused_before_the_first_path_says_what_the_program_shows(name: str) -> None:
    _, reason = refused(name)
    assert reason.because.endswith(OF_THE_PROGRAM[name])


def test_a_dynptr_that_is_overwritten_is_named_with_the_call_that_made_it() -> None:
    _, reason = refused("a reserved dynptr overwritten")
    assert reason.because.startswith("the dynptr at fp-16 holds what bpf_ringbuf_reserve_dynptr gave at insn 6 (")
    assert [step.insn for step in reason.path] == [6, 7]
