"""The text of instructions is the text of the kernel's log, recorded by tests.bpflisp.record_text."""

import json
from pathlib import Path

import pytest

from bpflisp.spec.insn import Insn, decode
from bpflisp.spec.isa import ROWS, Kind
from bpflisp.spec.text import insn_text

RECORDED = Path(__file__).parents[2] / "fixtures/text/kernel-6.18.jsonl"
CASES = [json.loads(line) for line in RECORDED.read_text().splitlines()]
HELPERS = {
    1: "bpf_map_lookup_elem",
    5: "bpf_ktime_get_ns",
    7: "bpf_get_prandom_u32",
    8: "bpf_get_smp_processor_id",
    12: "bpf_tail_call",
    14: "bpf_get_current_pid_tgid",
    125: "bpf_ktime_get_boot_ns",
}


def _insn(case: dict[str, str]) -> Insn:
    (insn, *_) = decode(bytes.fromhex(case["insn"]))
    assert insn is not None
    return insn


def test_every_recorded_answer() -> None:
    wrong = [(case, text) for case in CASES if (text := insn_text(_insn(case), HELPERS)) != case["text"]]
    assert not wrong


def test_every_row_is_recorded() -> None:
    """But the call by register, which the kernel refuses before it would print it."""
    recorded = {_insn(case).row for case in CASES}
    missing = [row for row in ROWS if row not in recorded and row.kind is not Kind.CALL_REG]
    assert not missing


def test_names_that_the_caller_knows() -> None:
    assert insn_text(Insn(0x85, 0, 0, 0, 9999)) == "(85) call unknown#9999"
    assert insn_text(Insn(0x85, 0, 2, 0, 77), kfunc="bpf_rcu_read_lock") == "(85) call bpf_rcu_read_lock#77"
    assert insn_text(Insn(0x18, 1, 1, 0, 3), imm64=0xFFFF888100000000) == "(18) r1 = 0xffff888100000000"


@pytest.mark.parametrize("opcode", [0x8C, 0xFF, 0x00, 0x38, 0x9F, 0xE6])
def test_what_is_no_instruction_still_has_a_text(opcode: int) -> None:
    assert f"{opcode:02x}" in insn_text(Insn(opcode))
