"""Compiled code does what the intermediate form says, for every --mcpu."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpflisp.back import compile_function
from bpflisp.ir.validate import validate

from .compared import run_code, run_function
from .generate import Generator

SEEDS = st.integers(0, 1 << 32)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, size=st.integers(1, 40))
def test_machine_code_does_what_the_function_says(version: int, seed: int, size: int) -> None:
    function = Generator(seed, size, version).function()
    validate(function)
    code = compile_function(function, f"v{version}", opt=0)
    assert all(insn.row.isa <= version for insn in code.insns)
    assert run_code(code, seed) == run_function(function, seed)
