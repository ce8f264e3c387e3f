"""Objects that others made: the XDP programs of Debian's libxdp1 load, and are judged as the kernel judges them."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest

from simulator.loader import load
from simulator.verdict import UNSUPPORTED
from tests import oracle

OBJECTS = sorted(Path(name) for name in glob.glob("/usr/lib/*/bpf/*.o"))


@pytest.mark.skipif(not OBJECTS, reason="Debian's package libxdp1 is not installed")
@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.stem)
def test_each_program_is_judged(path: Path) -> None:
    obj = load(path)
    assert obj.programs
    works, _ = oracle.available()
    for program in obj.values():
        verdict = program.verify()
        if verdict.code == UNSUPPORTED:
            assert verdict.message
            continue
        if not works:
            assert verdict.accepted, verdict.message
            continue
        answer = oracle.ask(program)
        assert (verdict.accepted, verdict.message) == (answer.accepted, answer.message)
        assert verdict.insns_processed == answer.insns_processed
