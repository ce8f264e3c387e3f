"""How small the book's programs come out, and that nothing is paid at other levels and targets."""

from pathlib import Path

import pytest

from bpflisp.back import compile_function
from bpflisp.ir.parse import parse_function
from bpflisp.ir.validate import validate
from bpflisp.opt import run

GOALS = Path(__file__).parent / "goals"


def slots(name: str, mcpu: str = "v3", level: int = 2) -> int:
    function = parse_function((GOALS / f"{name}.ir").read_text())
    validate(function)
    run(function, level, check=True)
    return compile_function(function, mcpu, level).slots


@pytest.mark.parametrize(("name", "limit"), [("packet_counter", 11), ("port_blocker", 24), ("syn_limiter", 37)])
def test_a_program_is_as_small_as_it_was(name: str, limit: int) -> None:
    assert slots(name) == limit


@pytest.mark.parametrize("mcpu", ["v1", "v2", "v3", "v4"])
@pytest.mark.parametrize("name", ["packet_counter", "port_blocker", "syn_limiter"])
def test_optimising_never_makes_it_longer(name: str, mcpu: str) -> None:
    assert slots(name, mcpu, 2) <= slots(name, mcpu, 1) <= slots(name, mcpu, 0)
