"""A pasted log leads to the class and its page, whatever stands around it."""

from __future__ import annotations

import pytest

from simulator.verifier.advice import advice_of
from simulator.verifier.explain import explain
from simulator.verifier.refusal import CLASSES, code_of
from tests.simulator.verifier.explore_cases import answers
from tests.simulator.verifier.refusal_pages import ROWS

REFUSED = {name: row for name, row in answers().items() if not row["accepted"] and row["message"]}


@pytest.mark.parametrize("name", REFUSED)
def test_logs_of_the_kernel_lead_to_the_class_of_their_message(name: str) -> None:
    row = REFUSED[name]
    log = f"{row['log']}\nprocessed 3 insns (limit 1000000) max_states_per_insn 0 total_states 0\n"
    found = explain(log)
    assert [one.code for one in found] == [code_of(row["message"])]
    assert found[0].page == (f"docs/refusals/{found[0].code}.md" if found[0].code in CLASSES else "")
    assert found[0].problem
    assert found[0].help


def test_what_libbpf_prints_around_it_is_skipped() -> None:
    log = """libbpf: prog 'xdp_main': BPF program load failed: Permission denied
libbpf: prog 'xdp_main': -- BEGIN PROG LOAD LOG --
0: R1=ctx() R10=fp0
; __u8 first = *(__u8 *)data; @ prog.c:12
2: (71) r0 = *(u8 *)(r2 +0)
invalid access to packet, off=0 size=1, R2(id=0,off=0,r=0)
R2 offset is outside of the packet
processed 3 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
-- END PROG LOAD LOG --
libbpf: failed to load object 'prog.o'
"""
    (found,) = explain(log)
    assert found.code == "packet-bounds"
    assert found.page == "docs/refusals/packet-bounds.md"


def test_several_programs_in_one_log() -> None:
    log = "R0 !read_ok\nprocessed 1 insns (limit 1)\nR0 invalid mem access 'map_value_or_null'\nprocessed 6 insns x\n"
    assert [one.code for one in explain(log)] == ["uninitialised-register", "maybe-null"]


def test_the_report_of_later_kernels() -> None:
    log = """Verification failed: invalid memory access
  Reason: R0 invalid mem access 'map_value_or_null'
  At: insn 6 (79) r1 = *(u64 *)(r0 +0)
  Causal path:
    5: (85) call bpf_map_lookup_elem#1
  Suggestion: check the pointer for NULL before it is dereferenced
"""
    (found,) = explain(log)
    assert found.code == "maybe-null"
    assert found.help == "check the pointer for NULL before it is dereferenced"


SAID = {page.code: str(answers()[page.refused]["message"]) for page in ROWS}
PREFIXES = {"plain": "", "libbpf": "libbpf: ", "dmesg": "[   17.123456] "}


def report(said: str, suggestion: str = "") -> str:
    """A report as kernel 7.3 words it, around a message; what stands in the path's lines is no refusal."""
    told = f"  Suggestion: {suggestion}\n" if suggestion else ""
    return (
        f"Verification failed: program rejected\n  Reason: {said}\n  At: insn 6 (79) r1 = *(u64 *)(r0 +0)\n"
        "  Causal path:\n    2: (b7) r0 = 0\n    4: (85) call bpf_map_lookup_elem#1\n"
        f"{told}processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n"
    )


@pytest.mark.parametrize("how", PREFIXES)
@pytest.mark.parametrize("code", SAID)
def test_a_report_leads_to_the_class_of_its_reason(code: str, how: str) -> None:
    text = "".join(f"{PREFIXES[how]}{line}\n" for line in report(SAID[code]).splitlines())
    (found,) = explain(text)
    assert (found.code, found.page, found.said) == (code, f"docs/refusals/{code}.md", SAID[code])
    assert found.help == advice_of(code).help


def test_each_of_several_reports_has_its_own_suggestion() -> None:
    first = report(SAID["maybe-null"], "test it")
    text = first + report(SAID["stack-bounds"]) + report(SAID["reference"], "release it") + first
    assert [(one.code, one.help) for one in explain(text)] == [
        ("maybe-null", "test it"),
        ("stack-bounds", advice_of("stack-bounds").help),
        ("reference", "release it"),
    ]


def test_a_report_of_what_is_in_no_class_is_not_explained() -> None:
    assert explain(report("the moon is in the wrong house")) == []


def test_a_problem_line_will_do() -> None:
    (found,) = explain("Verification failed: x\nProblem: R2 offset is outside of the packet\n")
    assert found.code == "packet-bounds"


@pytest.mark.parametrize(
    "text", ["", "hello\n", "0: R1=ctx() R10=fp0\n0: (95) exit\n", "processed 2 insns (limit 1)\n"]
)
def test_nothing_is_guessed(text: str) -> None:
    assert explain(text) == []


LOG = """0: R1=ctx() R10=fp0
; __u8 first = *(__u8 *)data; @ prog.c:12
2: (71) r0 = *(u8 *)(r2 +0)
invalid access to packet, off=0 size=1, R2(id=0,off=0,r=0)
R2 offset is outside of the packet
processed 3 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""

NULL = "R0 invalid mem access 'map_value_or_null'"

PASTED = {
    "dmesg": "".join(f"[  123.4567{at}] {line}\n" for at, line in enumerate(LOG.splitlines())),
    "journal": "".join(f"Nov 28 05:43:00 host loader[17]: {line}\n" for line in LOG.splitlines()),
    "logger": "".join(f"2026-11-28T05:43:00.123Z ERROR {line}\n" for line in LOG.splitlines()),
    "go's logger": "".join(f"2026/11/28 05:43:00 {line}\n" for line in LOG.splitlines()),
    "quoted": "".join(f"> {line}\n" for line in LOG.splitlines()),
    "indented": "".join(f"\t\t{line}\n" for line in LOG.splitlines()),
    "coloured": LOG.replace("R2 offset", "\x1b[31mR2 offset").replace("packet\n", "packet\x1b[0m\n"),
    "windows": LOG.replace("\n", "\r\n"),
    "without its end": LOG[: LOG.index("processed")],
    "without its beginning": LOG[LOG.index("*(u8") :],
    "cut within a line": LOG[: LOG.index("total_states")],
    "a string in a line": '{"level":"error","msg":"load","log":"' + LOG.replace("\n", "\\n") + '"}',
    "libbpf, and what it says last": f"libbpf: prog 'x': BPF program load failed: Permission denied\n"
    f"libbpf: prog 'x': -- BEGIN PROG LOAD LOG --\n{LOG}-- END PROG LOAD LOG --\n"
    "libbpf: prog 'x': failed to load: -13\nlibbpf: failed to load object 'spin_lock.bpf.o'\n"
    "libbpf: failed to load BPF skeleton 'sleepable_bpf': -13\nError: failed to load object file\n",
    "cilium/ebpf in a line": "field XdpProg: program xdp_prog: load program: permission denied: invalid access to "
    "packet, off=0 size=1, R2(id=0,off=0,r=0): R2 offset is outside of the packet (21 line(s) omitted)\n",
    "cilium/ebpf in full": "program xdp_prog: load program: permission denied:\n"
    + "".join(f"\t{line}\n" for line in LOG.splitlines()),
    "aya": f"Error: the BPF_PROG_LOAD syscall failed. Verifier output: {LOG}",
    "aya, as debug text": 'Error: LoadError { io_error: Os { code: 13 }, verifier_log: "'
    + LOG.replace("\n", "\\n")
    + '"}',
}


@pytest.mark.parametrize("how", PASTED)
def test_however_it_was_pasted(how: str) -> None:
    (found,) = explain(PASTED[how])
    assert found.code == "packet-bounds"
    assert found.said.endswith("R2 offset is outside of the packet")


def test_a_message_that_begins_a_line_is_found_behind_a_loaders_words() -> None:
    (found,) = explain(f"load program: permission denied: 6: (79) r1 = *(u64 *)(r0 +0): {NULL} (7 line(s) omitted)")
    assert (found.code, found.said) == ("maybe-null", NULL)


@pytest.mark.parametrize(
    "text",
    [
        "libbpf: failed to load object 'spin_lock.bpf.o'\n",
        "libbpf: prog 'attach_btf': failed to load: -22\n",
        "Error: failed to load BPF skeleton 'sleep_bpf'\n",
        "field Lock: program spin_lock: load program: invalid argument\n",
    ],
)
def test_names_in_a_loaders_words_are_no_refusals(text: str) -> None:
    assert explain(text) == []
