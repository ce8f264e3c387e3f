"""Code that no path came to is taken out, and with it functions whose address is still loaded.

Invariant: runs of dead instructions go as a whole; what loads the address of one of them keeps its distance as it was,
and so points to what comes after, or to nothing that begins a function.
Source: opt_remove_dead_code of kernel/bpf/verifier.c, bpf_adj_branches of kernel/bpf/core.c, jit_subprogs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from simulator.verifier.refusal import Refused
from simulator.verifier.slots import Slots

CATCH_GROWTH: Final = 2
"""How many instructions the kernel adds at the end to catch what is thrown."""
LOOP_GROWTH: Final = 18
"""How many instructions more an inlined bpf_loop is than its call; it is inlined before dead code goes."""


def check_function_loads(
    slots: Slots, starts: Sequence[int], seen: Sequence[bool], inlined_loops: Collection[int], adds_function: bool
) -> None:
    """That each loaded address of a function is one after dead code is gone. Raises Refused.

    `adds_function`: the kernel adds one of its own, which catches what the program throws. The number in the message is
    the kernel's where nothing but loops was rewritten at another length.
    """
    loads = [at for at in slots.crossings() if seen[at] and slots.is_function_load(at)]
    targets = {at: at + slots.imm[at] + 1 for at in loads}
    if all(seen[target] for target in targets.values()):
        return
    live = _live(slots, seen)
    if sum(live[start] for start in starts) + adds_function < 2:
        return  # one function is left, which is compiled alone: what its loads point to is not looked at
    for at, target in targets.items():
        if live[target]:
            continue
        first, end = _run(live, target)
        gone = end - first
        # ahead, the distance reaches over what is gone; back, the load has moved and takes its aim along
        lands = target + gone if at < first else target - gone
        if lands not in starts or not (lands < len(live) and live[lands]):
            left = sum(live[:lands]) + max(0, lands - len(live))
            beyond_the_end = left >= sum(live)
            left += LOOP_GROWTH * sum(call < lands for call in inlined_loops)
            left += CATCH_GROWTH * (adds_function and beyond_the_end)
            raise Refused(f"verifier bug: No program to jit at insn {left} (subprog < 0)", insn=at)


def _live(slots: Slots, seen: Sequence[bool]) -> list[bool]:
    """Whether each slot is kept: both halves of a 64-bit load are."""
    live = list(seen)
    for at in range(1, len(live)):
        if seen[at - 1] and slots.width(at - 1) == 2:
            live[at] = True
    return live


def _run(live: Sequence[bool], at: int) -> tuple[int, int]:
    """The run of dead slots around one: its first, and the one after its last."""
    first, end = at, at
    while first > 0 and not live[first - 1]:
        first -= 1
    while end < len(live) and not live[end]:
        end += 1
    return first, end
