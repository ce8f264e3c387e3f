"""Stacks of call chains: what kernel 6.18.44 lets functions use together.

Each case is a program of functions, written as (bytes of stack, functions called); what is asked of `finish` is what
the kernel answered, which `python -m tests.simulator.verifier.test_stackdepth` prints.
"""

from __future__ import annotations

import platform

import pytest

from bpflisp.spec.kernels import profile
from simulator.program import Program
from simulator.verifier.layout import Explored, finish, prepare
from simulator.verifier.refusal import Refused
from tests.simulator.verifier.layout_cases import EXIT, MOV0, call, insn

Functions = list[tuple[int, list[int]]]

CASES: list[tuple[str, str, Functions, str]] = [
    ("one, full", "xdp", [(512, [])], ""),
    ("two, full", "xdp", [(256, [1]), (256, [])], ""),
    ("two, too large", "xdp", [(256, [1]), (264, [])], "combined stack size of 2 calls is 528. Too large"),
    ("rounded up to 16", "xdp", [(264, [1]), (248, [])], "combined stack size of 2 calls is 528. Too large"),
    (
        "three deep",
        "xdp",
        [(192, [1]), (192, [2]), (192, [])],
        "combined stack size of 3 calls is 576. Too large",
    ),
    ("one after the other", "xdp", [(192, [1, 2]), (320, []), (320, [])], ""),
    ("eight frames", "xdp", [*[(8, [at + 1]) for at in range(7)], (8, [])], ""),
    ("own stacks", "kprobe", [(256, [1]), (512, [2]), (512, [])], ""),
    ("small ones share", "kprobe", [(256, [1]), (48, [])], ""),
    ("no own stack in xdp", "xdp", [(256, [1]), (512, [])], "combined stack size of 2 calls is 768. Too large"),
]


def program_of(kind: str, functions: Functions) -> Program:
    """The functions one after the other, each writing the lowest 8 bytes of its stack, then calling."""
    lengths = [3 + len(calls) for _, calls in functions]
    starts = [sum(lengths[:at]) for at in range(len(functions))]
    code = b""
    for at, (size, calls) in enumerate(functions):
        code += insn(0x7A, 10, off=-size)
        for number, target in enumerate(calls):
            code += call(starts[target] - (starts[at] + 1 + number) - 1)
        code += MOV0 + EXIT
    return Program(insns=code, type=kind)


def ours(kind: str, functions: Functions) -> str:
    layout = prepare(program_of(kind, functions), profile())
    seen = [True] * len(layout.slots)
    try:
        finish(layout, Explored([size for size, _ in functions], seen))
    except Refused as refusal:
        return refusal.message
    return ""


@pytest.mark.parametrize(("name", "kind", "functions", "message"), CASES, ids=[case[0] for case in CASES])
def test_stack_is_judged_as_the_kernel_judges_it(name: str, kind: str, functions: Functions, message: str) -> None:
    assert ours(kind, functions) == message


@pytest.mark.parametrize(("name", "kind", "functions", "message"), CASES, ids=[case[0] for case in CASES])
def test_the_running_kernel_still_answers_so(name: str, kind: str, functions: Functions, message: str) -> None:
    from tests import oracle

    can_ask, why = oracle.available()
    if not can_ask:
        pytest.skip(why)
    if not platform.release().startswith("6.18."):
        pytest.skip("the answers are those of kernel 6.18")
    assert oracle.ask(program_of(kind, functions)).message == message


if __name__ == "__main__":
    from tests.oracle import ask

    for case in CASES:
        print(case[0], "|", ask(program_of(case[1], case[2])).message, "| expected", case[3])
