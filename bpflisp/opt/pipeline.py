"""The passes in order, and what each level runs."""

from __future__ import annotations

from collections.abc import Callable, Collection

from bpflisp.ir.ssa import Function, Module
from bpflisp.ir.validate import validate
from bpflisp.lean import dataclass
from bpflisp.opt.bounds import merge_checks
from bpflisp.opt.cfg import drop_unreachable, tidy
from bpflisp.opt.dce import drop_dead
from bpflisp.opt.demand import drop_unneeded
from bpflisp.opt.dse import drop_dead_stores
from bpflisp.opt.equals import use_numbers
from bpflisp.opt.forward import forward_values
from bpflisp.opt.gvn import number_values
from bpflisp.opt.licm import hoist_invariants
from bpflisp.opt.merge import merge_blocks
from bpflisp.opt.narrow import narrow_loads
from bpflisp.opt.offsets import fold_offsets
from bpflisp.opt.overwritten import drop_overwritten
from bpflisp.opt.simplify import simplify
from bpflisp.opt.sink import sink_stores
from bpflisp.opt.stores import merge_stores
from bpflisp.opt.swaps import sink_swaps
from bpflisp.opt.threading import thread_jumps


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass changes a function in place and says whether it did; `level` is the least -O that runs it.

    One that is `late` waits for a round in which the others find nothing more to do.
    """

    name: str
    run: Callable[[Function], bool]
    level: int
    late: bool = False


PASSES = (
    Pass("simplify", simplify, 1),
    Pass("demand", drop_unneeded, 1),
    Pass("tidy", tidy, 1),
    Pass("swaps", sink_swaps, 2),
    Pass("gvn", number_values, 1),
    Pass("offsets", fold_offsets, 1),
    Pass("forward", forward_values, 2),
    Pass("dse", drop_dead_stores, 2),
    Pass("overwritten", drop_overwritten, 2),
    Pass("sink", sink_stores, 2),
    Pass("stores", merge_stores, 2, late=True),
    Pass("narrow", narrow_loads, 2, late=True),
    Pass("bounds", merge_checks, 2),
    Pass("threading", thread_jumps, 2),
    Pass("equals", use_numbers, 2),
    Pass("licm", hoist_invariants, 2),
    Pass("dce", drop_dead, 1),
    Pass("merge", merge_blocks, 2, late=True),
)
"""One round; rounds follow each other until nothing changes."""

_ROUNDS = 12


def run(
    what: Module | Function,
    level: int = 2,
    without: Collection[str] = (),
    check: bool = False,
    after: Callable[[str, Function], None] | None = None,
) -> None:
    """Optimise a function, or all of a module, in place.

    `without` names passes to leave out; `check` validates after each pass; `after` is called with each pass's name and
    the function when it has run.
    """
    functions = list(what.functions.values()) if isinstance(what, Module) else [what]
    for function in functions:
        drop_unreachable(function)
        for _ in range(_ROUNDS):
            if not _round(function, level, without, check, after):
                break


def _round(
    function: Function,
    level: int,
    without: Collection[str],
    check: bool,
    after: Callable[[str, Function], None] | None,
) -> bool:
    changed = False
    for step in PASSES:
        if step.level > level or step.name in without or (step.late and changed):
            continue
        if step.run(function):
            changed = True
            if check:
                validate(function)
        if after:
            after(step.name, function)
    return changed
