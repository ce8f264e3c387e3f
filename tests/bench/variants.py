"""The fixture programs as our compiler and as clang-19 make them, by --mcpu and level: what `make bench-code` compares.

The C is compiled anew, with the options of tools/build_twins.sh; without clang-19 there are the kept objects, which are
-O2 -mcpu=v3.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bpflisp import compile_file
from simulator.loader import load
from simulator.program import Object, Program
from tests.agreement.fixtures import Fixture, all_fixtures

CLANG = shutil.which("clang-19")
OURS = "ours"
MCPUS = ("v3", "v4")


@dataclass(frozen=True, slots=True)
class Variant:
    """A compiler with its level (`ours`, `-O2`, `-Os`), and an --mcpu."""

    made_by: str
    mcpu: str


@dataclass(frozen=True, slots=True)
class Row:
    """One program of a fixture: what each variant made of it, and the object that it is in."""

    fixture: Fixture
    program: str
    made: Mapping[Variant, Program]
    objects: Mapping[Variant, Object]

    @property
    def name(self) -> str:
        """The fixture's name, and the program's where it is another."""
        return self.program if self.program == self.fixture.name else f"{self.fixture.name}/{self.program}"

    def names(self, variant: Variant) -> Mapping[str, str]:
        """Program names of the Lisp -> those of this variant's object."""
        return {} if variant.made_by == OURS else self.fixture.twin_names


def variants() -> list[Variant]:
    """What can be made here, ours before clang's."""
    theirs = ("-O2", "-Os") if CLANG else ()
    found = [Variant(made_by, mcpu) for mcpu in MCPUS for made_by in (OURS, *theirs)]
    return found if CLANG else [*found, Variant("-O2", "v3")]


def rows() -> list[Row]:
    """Every program of every fixture."""
    with TemporaryDirectory() as folder:
        return [row for found in all_fixtures() for row in _rows_of(found, Path(folder))]


def _rows_of(found: Fixture, folder: Path) -> Iterator[Row]:
    objects = {variant: _object(found, variant, folder) for variant in variants()}
    for program in found.programs:
        made = {}
        for variant, obj in objects.items():
            renamed = {} if variant.made_by == OURS else found.twin_names
            made[variant] = obj[renamed.get(program, program)]
        yield Row(found, program, made, objects)


def _object(found: Fixture, variant: Variant, folder: Path) -> Object:
    if variant.made_by == OURS:
        return load(compile_file(found.source, mcpu=variant.mcpu))
    if CLANG is None:
        return load(found.twin)
    made = folder / f"{found.name}{variant.made_by}{variant.mcpu}.o"
    source = found.twin.with_suffix(".c")
    subprocess.run(
        [
            CLANG, variant.made_by, "-g", f"-mcpu={variant.mcpu}", "-target", "bpf", "-Wall", "-Werror",
            f"-I/usr/include/{platform.machine()}-linux-gnu", "-c", str(source), "-o", str(made),
        ],
        check=True, timeout=60,
    )  # fmt: skip
    return load(made)
