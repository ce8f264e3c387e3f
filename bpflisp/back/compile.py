"""The back end's stages in order: legalise, select, allocate, prove the allocation right, emit."""

from __future__ import annotations

from collections.abc import Callable, Collection

from bpflisp.back.audit import audit, snapshot
from bpflisp.back.emit import emit
from bpflisp.back.legalise import legalise
from bpflisp.back.loops import set_depths
from bpflisp.back.machine import Code, MFunction
from bpflisp.back.makers import share_makers
from bpflisp.back.regalloc import allocate
from bpflisp.back.repeated import drop_repeated
from bpflisp.back.returns import several_returns, unify_returns
from bpflisp.back.select import select
from bpflisp.back.slots import share_slots
from bpflisp.back.tails import merge_tails
from bpflisp.back.target import Target
from bpflisp.ir.clone import clone_function
from bpflisp.ir.ssa import Function
from bpflisp.lean import dataclass, replace

_SMALL = 2000
"""Functions of so many instructions are compiled in more than one way, to keep the shortest."""

IMPROVEMENTS = {"slots": 1, "returns": 2, "makers": 2, "coalesce": 1, "repeated": 1, "tails": 1}
"""The stages that right code does not need, and the least -O that runs each."""

STAGES = ("legalise", "slots", "returns", "select", "makers", "allocate", "repeated", "tails")
"""The stages that leave something to be shown, in order."""

Observer = Callable[[str, Function | MFunction], None]
"""Called with a stage's name and what it leaves."""


@dataclass(frozen=True, slots=True)
class _Way:
    """For which target, with which improvements, and who watches."""

    target: Target
    improvements: frozenset[str]
    after: Observer | None = None

    def does(self, name: str) -> bool:
        return name in self.improvements

    def show(self, name: str, what: Function | MFunction) -> None:
        if self.after:
            self.after(name, what)


def compile_function(
    function: Function,
    mcpu: str = "v3",
    opt: int = 2,
    without: Collection[str] = (),
    after: Observer | None = None,
) -> Code:
    """Machine code for a function, which stays as it is.

    `opt` 0 keeps the back end from every improvement that is not needed for right code; `without` names improvements to
    leave out; `after` sees what each stage leaves, on the way to the code that is returned. Raises BackError for what
    the target cannot hold (stack, distance, missing atomics), ValueError for an unknown `mcpu`.
    """
    does = frozenset(name for name, level in IMPROVEMENTS.items() if level <= opt and name not in without)
    way = _Way(Target.of(mcpu), does)
    legal = clone_function(function)
    legalise(legal, way.target)
    if after:
        after("legalise", legal)
    if way.does("slots"):
        share_slots(legal)
        if after:
            after("slots", legal)
    code = _generate(legal, way)
    chosen = legal
    if way.does("returns") and several_returns(legal) and len(code.insns) < _SMALL:
        unified = clone_function(legal)
        unify_returns(unified)
        other = _generate(unified, way)
        if other.slots < code.slots:
            code, chosen = other, unified
    if after:
        after("returns", chosen)
        _generate(chosen, replace(way, after=after))
    return code


def _generate(function: Function, way: _Way) -> Code:
    """The stages after legalising."""
    machine = select(function, way.target)
    way.show("select", machine)
    set_depths(machine)
    if way.does("makers"):
        share_makers(machine)
        way.show("makers", machine)
    before = snapshot(machine)
    allocate(machine, coalesce=way.does("coalesce"))
    audit(before, machine)
    way.show("allocate", machine)
    if way.does("repeated"):
        drop_repeated(machine)
        way.show("repeated", machine)
    if way.does("tails"):
        merge_tails(machine)
        way.show("tails", machine)
    return emit(machine, way.target, function.position)
