"""Compiled code does what the intermediate form says: every --mcpu, every level, every pass left out alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpflisp.back import compile_function
from bpflisp.back.compile import IMPROVEMENTS
from bpflisp.ir.clone import clone_function
from bpflisp.ir.parse import parse_function
from bpflisp.ir.text import print_function
from bpflisp.ir.validate import validate
from bpflisp.opt import PASSES, run

from .compared import run_code, run_function
from .generate import Generator, Leaving

SEEDS = st.integers(0, 1 << 32)
SIZES = st.integers(1, 40)
FEW = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
@FEW
@given(seed=SEEDS, size=SIZES)
def test_machine_code_does_what_the_function_says(version: int, seed: int, size: int) -> None:
    function = Generator(seed, size, version).function()
    validate(function)
    code = compile_function(function, f"v{version}", opt=0)
    assert all(insn.row.isa <= version for insn in code.insns)
    assert run_code(code, seed) == run_function(function, seed)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
@pytest.mark.parametrize("level", [1, 2])
@FEW
@given(seed=SEEDS, size=SIZES)
def test_optimising_changes_nothing_that_can_be_seen(version: int, level: int, seed: int, size: int) -> None:
    function = Generator(seed, size, version).function()
    expected = run_function(function, seed)
    better = clone_function(function)
    run(better, level, check=True)
    assert run_function(better, seed) == expected
    code = compile_function(better, f"v{version}", opt=level)
    assert run_code(code, seed) == expected


@pytest.mark.parametrize("name", [*(step.name for step in PASSES), *IMPROVEMENTS])
@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, size=SIZES)
def test_any_pass_can_be_left_out(name: str, seed: int, size: int) -> None:
    function = Generator(seed, size).function()
    expected = run_function(function, seed)
    run(function, 2, without=[name], check=True)
    assert run_code(compile_function(function, without=[name]), seed) == expected


@FEW
@given(seed=SEEDS, size=st.integers(4, 30))
def test_ways_out_that_are_alike(seed: int, size: int) -> None:
    function = Leaving(seed, size).function()
    expected = run_function(function, seed)
    run(function, 2, check=True)
    assert run_function(function, seed) == expected
    assert run_code(compile_function(function), seed) == expected


def test_many_of_them_are_merged() -> None:
    """The test above tests something: in a fair part of its functions there is something to merge."""
    merged = 0
    for seed in range(20):
        names: list[int] = []
        for without in ((), ("merge",)):
            function = Leaving(seed, 20).function()
            run(function, 2, without)
            names.append(sum(1 for _ in function.instructions()))
        merged += names[0] < names[1]
    assert merged >= 5


@FEW
@given(seed=SEEDS, size=SIZES)
def test_the_text_of_a_function_is_the_function(seed: int, size: int) -> None:
    function = Generator(seed, size, 3).function()
    again = parse_function(print_function(function))
    assert print_function(again) == print_function(function)
    assert run_function(again, seed) == run_function(function, seed)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_more_values_than_registers(seed: int) -> None:
    """Twenty variables that all are alive at the end, across calls."""
    function = Generator(seed, 30, 3, variables=20).function()
    expected = run_function(function, seed)
    code = compile_function(function, opt=0)
    assert run_code(code, seed) == expected
