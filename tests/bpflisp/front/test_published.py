"""The language's published example programs, written anew from what is said of them: they load, and they behave.

fixtures/language has one folder a program, in the form of fixtures/programs (see tests/agreement/fixtures.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from bpflisp import compile_file
from simulator.engines.engine import EngineUnavailable
from simulator.loader import load
from simulator.program import Object
from tests import bpftool, oracle
from tests.agreement.fixtures import EVERY_ENGINE, ROOT, Case, check, play, read_fixture

PUBLISHED = [read_fixture(path) for path in sorted((ROOT / "language").glob("*/cases.toml"))]
NAMES = [fixture.name for fixture in PUBLISHED]


@cache
def compiled(name: str) -> bytes:
    return compile_file(ROOT / "language" / name / "program.lisp")


@cache
def loaded(name: str) -> Object:
    return load(compiled(name))


def runs() -> Iterator[object]:
    for fixture in PUBLISHED:
        for case in fixture.cases:
            for engine in EVERY_ENGINE:
                if engine in case.engines:
                    yield pytest.param(fixture.name, case, engine, id=f"{fixture.name}-{case.name}-{engine}")


@pytest.mark.parametrize(("name", "case", "engine"), list(runs()))
def test_it_behaves(name: str, case: Case, engine: str) -> None:
    try:
        world, outcomes = play(case, loaded(name), {}, engine)
    except EngineUnavailable as error:
        pytest.skip(str(error))
    check(case, world, outcomes)


@pytest.mark.parametrize("name", NAMES)
def test_the_verifier_and_the_kernel_take_it(name: str) -> None:
    for program in loaded(name).values():
        verdict = program.verify()
        assert verdict.accepted, verdict.message
        if oracle.available()[0]:
            answer = oracle.ask(program)
            assert answer.accepted, answer.log
            assert verdict.insns_processed == answer.insns_processed


@pytest.mark.parametrize("name", NAMES)
def test_libbpf_loads_it(name: str, tmp_path: Path) -> None:
    made = tmp_path / f"{name}.o"
    made.write_bytes(compiled(name))
    with bpftool.loaded(made) as pins:
        assert {pin.name for pin in pins.iterdir()} - {"maps"} == set(loaded(name))
