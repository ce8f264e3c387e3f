"""The command line called in this process, as a shell sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from bpflisp.cli import main

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures"
PORT_BLOCKER = str(FIXTURES / "twins" / "port_blocker.o")
SYN_LIMITER = str(FIXTURES / "programs" / "syn_limiter" / "program.lisp")

REFUSED_LISP = "(defprog bad (:type :xdp)\n  (load u8 (ctx u32 0) 0))\n"
"""Compiles, and is refused: it reads the packet without asking for its end."""

WRONG_LISP = "(defprog bad (:type :xdp)\n  (no-such-form 1))\n"
"""Does not compile."""


@dataclass(frozen=True)
class Called:
    """What a command wrote, and its exit code."""

    code: int
    out: str
    err: str


def call(capsys: pytest.CaptureFixture[str], *args: str | Path) -> Called:
    """Runs `bpflisp ARGS`."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        main([str(arg) for arg in args])
    written = capsys.readouterr()
    assert isinstance(leaving.value.code, int)
    return Called(leaving.value.code, written.out, written.err)
