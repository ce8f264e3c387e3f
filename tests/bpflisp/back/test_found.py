"""What is provable stays provable: functions that the long run found, cut down, and random ones of their kind.

`found/` has one function a file. At every level, for every target, our verifier and the kernel must accept it.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpflisp.back import compile_function
from bpflisp.ir.clone import clone_function
from bpflisp.ir.parse import parse_function
from bpflisp.opt import run
from tests.oracle import ask, available

from .generate import PACKET_SIZE, Bounded
from .test_kernel import as_program, expected, on_engine

FOUND = sorted((Path(__file__).parent / "found").glob("*.ir"))


@pytest.mark.parametrize("version", [1, 2, 3, 4])
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("path", FOUND, ids=[path.stem for path in FOUND])
def test_it_is_provable_and_right(path: Path, level: int, version: int) -> None:
    function = parse_function(path.read_text())
    better = clone_function(function)
    run(better, level, check=True)
    code = compile_function(better, f"v{version}", level)
    program = as_program(code)
    assert program.verify().accepted, program.verify().message
    if available()[0]:
        assert ask(program).accepted
    r = random.Random(path.stem)
    for _ in range(20):
        packet, values = r.randbytes(PACKET_SIZE), r.randbytes(64)
        wanted = expected(function, packet, values)
        for engine in ("python", "kernel") if available()[0] else ("python",):
            assert on_engine(engine, code, packet, values) == wanted


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32), size=st.integers(1, 12), version=st.integers(1, 4))
def test_bounded_accesses_stay_provable(seed: int, size: int, version: int) -> None:
    function = Bounded(seed, size, version, checked=True).function()
    for level in (0, 1, 2):
        better = clone_function(function)
        run(better, level)
        program = as_program(compile_function(better, f"v{version}", level))
        verdict = program.verify()
        assert verdict.accepted, (level, verdict.message)
        if available()[0]:
            assert ask(program).insns_processed == verdict.insns_processed
