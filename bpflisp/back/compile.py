"""The back end's stages in order: legalise, select, allocate, prove the allocation right, emit."""

from __future__ import annotations

from bpflisp.back.audit import audit, snapshot
from bpflisp.back.emit import emit
from bpflisp.back.legalise import legalise
from bpflisp.back.loops import set_depths
from bpflisp.back.machine import Code
from bpflisp.back.makers import drop_repeated, share_makers
from bpflisp.back.regalloc import allocate
from bpflisp.back.select import select
from bpflisp.back.slots import share_slots
from bpflisp.back.tails import merge_tails
from bpflisp.back.target import Target
from bpflisp.ir.clone import clone_function
from bpflisp.ir.ssa import Function


def compile_function(function: Function, mcpu: str = "v3", opt: int = 2) -> Code:
    """Machine code for a function, which stays as it is.

    `opt` 0 keeps the back end from every improvement that is not needed for right code. Raises BackError for what the
    target cannot hold (stack, distance, missing atomics), ValueError for an unknown `mcpu`.
    """
    target = Target.of(mcpu)
    function = clone_function(function)
    legalise(function, target)
    if opt:
        share_slots(function)
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
