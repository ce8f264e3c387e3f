"""What earlier kernels refuse before exploration; the answers are those that Debian's kernels gave (kernel-
versions.md).
"""

from __future__ import annotations

import pytest

from bpflisp.spec.kernels import profile
from simulator.program import Program
from simulator.verifier.layout import prepare
from simulator.verifier.refusal import Refused
from tests.simulator.verifier.layout_cases import EXIT, MOV0, RETURN0, call, insn, ld64

CASES = [
    ("6.1", "xdp", 0, MOV0 + insn(0xE5, off=1) + insn(0x05, off=-2) + EXIT, "unknown opcode e5"),
    ("6.1", "xdp", 0, insn(0xD7, 1, imm=16) + RETURN0, "unknown opcode d7"),
    ("6.1", "xdp", 0, insn(0x81, 0, 1) + EXIT, "BPF_LDX uses reserved fields"),
    ("6.12", "xdp", 0, insn(0xD3, 0, 1, imm=0x100) + EXIT, "unknown opcode d3"),
    ("5.10", "xdp", 0, insn(0xDB, 10, 1, -8, 1) + RETURN0, "BPF_STX uses reserved fields"),
    ("5.10", "xdp", 0, ld64(src=4, imm=2) + RETURN0 + RETURN0, "unrecognized bpf_ld_imm64 insn"),
    ("6.1", "xdp", 0, call(1) + EXIT + call(-1) + EXIT, "back-edge from insn 2 to 2"),
    ("5.10", "kprobe", 16, RETURN0, "Only fentry/fexit/fmod_ret and lsm programs can be sleepable"),
    ("6.1", "xdp", 16, RETURN0, "Only fentry/fexit/fmod_ret, lsm, and kprobe/uprobe programs can be sleepable"),
    ("6.1", "xdp", 0, RETURN0, ""),
    ("6.12", "xdp", 0, insn(0xDB, 10, 1, -8, 0x100) + RETURN0, ""),
    ("6.18", "xdp", 0, call(1) + EXIT + call(-1) + EXIT, ""),
]


@pytest.mark.parametrize(("kernel", "kind", "flags", "code", "message"), CASES)
def test_each_kernel_refuses_in_its_own_words(kernel: str, kind: str, flags: int, code: bytes, message: str) -> None:
    program = Program(insns=code, type=kind, flags=flags)
    if not message:
        prepare(program, profile(kernel))
        return
    with pytest.raises(Refused) as caught:
        prepare(program, profile(kernel))
    assert caught.value.message == message
