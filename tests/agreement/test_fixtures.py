"""Each fixture does what its cases say: as Lisp and as C, on every engine; and the kernel takes every object."""

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
from tests.agreement.fixtures import EVERY_ENGINE, Case, Fixture, all_fixtures, cases, check, play
from tests.agreement.fixtures import fixture as fixture_named

FORMS = ("lisp", "twin")

every_object = pytest.mark.parametrize("form", FORMS)
every_fixture = pytest.mark.parametrize("fixture", all_fixtures(), ids=lambda fixture: fixture.name)


@cache
def _compiled(source: Path) -> bytes:
    return compile_file(source)


@cache
def _object(name: str, form: str) -> Object:
    fixture = fixture_named(name)
    return load(_compiled(fixture.source)) if form == "lisp" else load(fixture.twin)


def _names(fixture: Fixture, form: str) -> dict[str, str]:
    return dict(fixture.twin_names) if form == "twin" else {}


def _runs() -> Iterator[object]:
    for fixture, case in cases():
        for engine in EVERY_ENGINE:
            if engine in case.engines:
                yield pytest.param(fixture, case, engine, id=f"{fixture.name}-{case.name}-{engine}")


@every_object
@pytest.mark.parametrize(("fixture", "case", "engine"), list(_runs()))
def test_it_does_what_the_case_says(fixture: Fixture, case: Case, engine: str, form: str) -> None:
    try:
        world, outcomes = play(case, _object(fixture.name, form), _names(fixture, form), engine)
    except EngineUnavailable as error:
        pytest.skip(str(error))
    check(case, world, outcomes)


@every_object
@every_fixture
def test_it_has_its_programs_and_no_others(fixture: Fixture, form: str) -> None:
    names = _names(fixture, form)
    assert set(_object(fixture.name, form)) == {names.get(name, name) for name in fixture.programs}


@every_object
@every_fixture
def test_it_is_verified_as_the_kernel_verifies_it(fixture: Fixture, form: str) -> None:
    for program in _object(fixture.name, form).values():
        verdict = program.verify()
        assert verdict.accepted, verdict.message
        works, _ = oracle.available()
        if works:
            answer = oracle.ask(program)
            assert answer.accepted, answer.log
            assert verdict.insns_processed == answer.insns_processed


@every_object
@every_fixture
def test_libbpf_loads_it(fixture: Fixture, form: str, tmp_path: Path) -> None:
    made = tmp_path / f"{fixture.name}.o"
    made.write_bytes(_compiled(fixture.source) if form == "lisp" else fixture.twin.read_bytes())
    # libbpf does not know the chapter's sections xdp/handler_a and xdp/handler_b: the type is given.
    kind = ["type", "xdp"] if fixture.name == "dispatch" else []
    with bpftool.loaded(made, *kind) as pins:
        assert {pin.name for pin in pins.iterdir()} - {"maps"} == set(_object(fixture.name, form))
