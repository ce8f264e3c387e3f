"""The back end's stages in order: legalise, select, allocate, prove the allocation right, emit."""

from __future__ import annotations

from bpflisp.back.audit import audit, snapshot
from bpflisp.back.emit import emit
from bpflisp.back.legalise import legalise
from bpflisp.back.loops import set_depths
from bpflisp.back.machine import Code
from bpflisp.back.makers import drop_repeated, share_makers
from bpflisp.back.regalloc import allocate
from bpflisp.back.returns import several_returns, unify_returns
from bpflisp.back.select import select
from bpflisp.back.slots import share_slots
from bpflisp.back.tails import merge_tails
from bpflisp.back.target import Target
from bpflisp.ir.clone import clone_function
from bpflisp.ir.ssa import Function

_SMALL = 2000
"""Functions of so many instructions are compiled in more than one way, to keep the shortest."""


def compile_function(function: Function, mcpu: str = "v3", opt: int = 2) -> Code:
    """Machine code for a function, which stays as it is.

    `opt` 0 keeps the back end from every improvement that is not needed for right code. Raises BackError for what the
    target cannot hold (stack, distance, missing atomics), ValueError for an unknown `mcpu`.
    """
    target = Target.of(mcpu)
    legal = clone_function(function)
    legalise(legal, target)
    if opt:
        share_slots(legal)
    code = _generate(legal, target, opt)
    if opt > 1 and several_returns(legal) and len(code.insns) < _SMALL:
        unify_returns(legal)
        other = _generate(legal, target, opt)
        if other.slots < code.slots:
            return other
    return code


def _generate(function: Function, target: Target, opt: int) -> Code:
    """The stages after legalising."""
    machine = select(function, target)
    set_depths(machine)
    if opt > 1:
        share_makers(machine)
    before = snapshot(machine)
    allocate(machine)
    audit(before, machine)
    if opt:
        drop_repeated(machine)
        merge_tails(machine)
    return emit(machine, target, function.position)
