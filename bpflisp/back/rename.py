"""Writes machine registers for virtual ones."""

from __future__ import annotations

from collections.abc import Mapping

from bpflisp.back.machine import MFunction


def rename(function: MFunction, registers: Mapping[int, int]) -> None:
    """Replace each register by what the mapping has for it; KeyError where a virtual one is not in it."""
    for insn in function.instructions():
        if not insn.raw:
            insn.dst = registers.get(insn.dst, insn.dst)
            insn.src = registers.get(insn.src, insn.src)
