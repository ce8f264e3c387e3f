"""The path under way as it was walked, with the registers before each instruction: what a reason is found in.

Invariant: only a logged run keeps one, and it holds what led to the state under way: when the machine takes up a state
that it left for later, the trail falls back to where that state was left. Positions are those of the log, which only
grow along a path; so they tell which moments came before a state was left.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from simulator.verifier.regs import Reg

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

LONGEST: Final = 40_000
"""Moments that are kept; of a longer path the first half is forgotten."""


class Moment(NamedTuple):
    """One visit of an instruction: its slot, how many frames there were, and the innermost frame's registers before."""

    position: int
    idx: int
    depth: int
    regs: list[Reg]


class Trail:
    """The moments of the path under way, first to last; the last is the instruction that is looked at."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self.whole = True

    def note(self, m: Machine, idx: int) -> None:
        """The machine looks at an instruction."""
        if len(self.moments) >= LONGEST:
            del self.moments[: LONGEST // 2]
            self.whole = False
        self.moments.append(Moment(m.log.end, idx, len(m.state.frames), m.frame.regs[:]))

    def back_to(self, position: int) -> None:
        """The machine takes up a state that it left when the log was so long."""
        moments = self.moments
        # the moment of the instruction that left the state came before its line was printed, any later one after
        while moments and moments[-1].position >= position:
            moments.pop()

    def backwards(self) -> Iterator[tuple[Moment, list[Reg]]]:
        """Each moment and the registers after it, last first, as far as the innermost function has run.

        Moments inside of functions that it called are left out: to the caller, a call is one step.
        """
        moments = self.moments
        if not moments:
            return
        depth, after = moments[-1].depth, moments[-1].regs
        for moment in reversed(moments[:-1]):
            if moment.depth > depth:
                continue
            if moment.depth < depth:
                return
            yield moment, after
            after = moment.regs
