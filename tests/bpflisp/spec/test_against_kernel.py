"""Spot facts asked of the running kernel, where it may be asked: the tables are of 6.18.44, and others differ."""

from __future__ import annotations

import re

import pytest

from bpflisp.spec import contexts, helpers, programs
from bpflisp.spec.helpers import ArgType
from tools.bpfcall import EXIT, insn, load, mov, permitted
from tools.probe_kernel import release

pytestmark = [
    pytest.mark.skipif(not permitted(), reason="bpf(2) is refused to this process"),
    pytest.mark.skipif(release() != "6.18.44", reason="the tables are exact for 6.18.44, this kernel is another"),
]

PLAIN = ("socket_filter", "sched_cls", "xdp", "tracepoint", "kprobe", "perf_event", "lwt_xmit", "sk_skb")
_PASS_ZERO = {ArgType.ANYTHING, ArgType.SCALAR, ArgType.CONST_SIZE, ArgType.CONST_SIZE_OR_ZERO,
              ArgType.CONST_ALLOC_SIZE_OR_ZERO}  # fmt: skip


def _number(prog_type: str) -> int:
    kind = programs.by_name(prog_type)
    assert kind is not None
    return kind.number


@pytest.mark.parametrize("prog_type", PLAIN)
def test_the_first_argument_that_refuses_a_zero(prog_type: str) -> None:
    """Each allowed helper is called with five zeros: the register of the refusal is the prototype's."""
    zeros = b"".join(mov(register, 0) for register in range(1, 6))
    for number in sorted(helpers.allowed("6.18", prog_type)):
        proto = helpers.proto(number, prog_type)
        if proto.might_sleep:
            continue
        wanted = [at for at, arg in enumerate(proto.args, 1) if arg.type not in _PASS_ZERO and not arg.maybe_null]
        answer = load(zeros + insn(0x85, imm=number) + mov(0, 0) + EXIT, _number(prog_type))
        refused = re.match(r"R(\d) type=scalar expected=", answer.message)
        assert (int(refused[1]) if refused else None) == (wanted[0] if wanted else None), (proto, answer.message)


@pytest.mark.parametrize("number", [0, 13, 211, 212, 100_000])
def test_refusals_are_the_kernels_words(number: int) -> None:
    if number in helpers.allowed("6.18", "socket_filter"):
        return
    assert load(insn(0x85, imm=number) + EXIT, 1).message == helpers.refusal(number)


@pytest.mark.parametrize("prog_type", ["xdp", "sched_cls", "sk_skb", "perf_event"])
def test_contexts_are_read_as_the_kernel_lets(prog_type: str) -> None:
    for off in range(0, 200, 3):
        for size, bits in ((1, 0x10), (4, 0x00)):
            answer = load(insn(0x61 | bits, 0, 1, off) + mov(0, 0) + EXIT, _number(prog_type), level=0)
            assert answer.accepted == (contexts.access(prog_type, "", off, size, write=False) is not None), (off, size)
