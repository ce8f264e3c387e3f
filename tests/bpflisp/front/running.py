"""Compiles a body and runs it on every engine that works here."""

from __future__ import annotations

from functools import cache
from typing import Any

from bpflisp import compile_text
from simulator.engines.engine import EngineUnavailable
from simulator.loader import load
from simulator.program import Object
from simulator.run import run
from simulator.world import World
from tests.engines import HERE

PACKET = bytes(64)


@cache
def engines() -> tuple[str, ...]:
    """The engines that work here: the kernel where bpf(2) is allowed."""
    names = list(HERE)
    try:
        run(loaded("(defprog p () XDP_PASS)")["p"], PACKET, World(), "kernel")
        names.append("kernel")
    except EngineUnavailable:
        pass
    return tuple(names)


@cache
def loaded(source: str, opt: int = 2, mcpu: str = "v3") -> Object:
    """The object of a source, compiled once."""
    return load(compile_text(source, opt=opt, mcpu=mcpu), name="t")


def result(source: str, packet: bytes = PACKET, name: str = "p", world: World | None = None, **options: Any) -> int:
    """What the program of that name returns; every engine must say the same, at both levels of optimisation."""
    answers = set()
    for opt in (0, 2):
        program = loaded(source, opt)[name]
        for engine in engines():
            outcome = run(program, packet, world or World(), engine, **options)
            assert outcome.fault is None, outcome.fault
            answers.add(outcome.retval)
    assert len(answers) == 1, answers
    return int(answers.pop())


def value(body: str, before: str = "", packet: bytes = PACKET) -> int:
    """The value of a body, as an XDP program returns it; its low 32 bits."""
    return result(f"{before}\n(defprog p (:type :xdp)\n  {body})", packet)


def wide(body: str, before: str = "") -> int:
    """All 64 bits of the value of a body: in two runs, its low and its high half."""
    low = value(body, before)
    return low | value(f"(>> {body} 32)", before) << 32
