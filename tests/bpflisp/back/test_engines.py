"""The simulator's engines run compiled functions as the intermediate form says."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bpflisp.back import compile_function
from bpflisp.ir.clone import clone_function
from bpflisp.opt import run
from tests.engines import as_parameters

from .generate import PACKET_SIZE, Generator
from .test_kernel import expected, on_engine


@pytest.mark.parametrize("engine", as_parameters())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@example(seed=4642, size=18)
@given(seed=st.integers(0, 1 << 32), size=st.integers(1, 30))
def test_an_engine_runs_it_alike(engine: str, seed: int, size: int) -> None:
    version, level = seed % 4 + 1, (0, 2)[seed // 4 % 2]
    function = Generator(seed, size, version, variables=6 + seed % 9, checked=True).function()
    r = random.Random(seed)
    packet, values = r.randbytes(PACKET_SIZE), r.randbytes(64)
    wanted = expected(function, packet, values)
    better = clone_function(function)
    run(better, level)
    code = compile_function(better, f"v{version}", level)
    assert on_engine(engine, code, packet, values) == wanted
