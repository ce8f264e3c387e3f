"""Where a verification spends its instructions: how often each one was looked at.

Invariant: the counts of an accepted program add up to `Verdict.insns_processed`. They are taken by an exploration of
its own, so that one that nobody asks costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from simulator.verifier.layout import Layout, prepare
from simulator.verifier.machine import Machine, Run
from simulator.verifier.refusal import Refused

if TYPE_CHECKING:
    from bpflisp.spec.btf import Btf
    from bpflisp.spec.kernels import Profile
    from simulator.program import Program


class CountingMachine(Machine):
    """Counts the visits of each slot, those among them that end in a state that was looked at before."""

    def __init__(self, layout: Layout, kernel_btf: Btf | None, cpus: int) -> None:
        super().__init__(layout, kernel_btf, 0, cpus)
        self.counts = [0] * len(self.code)
        visited = self.is_visited

        def is_visited(m: Machine, idx: int) -> bool:
            if not visited(m, idx):
                return False
            self.counts[idx] += 1
            return True

        self.is_visited = is_visited

    def _step(self, idx: int) -> Run:
        step, counts = super()._step(idx), self.counts

        def counted() -> int:
            counts[idx] += 1
            return step()

        return counted


def visits(program: Program, profile: Profile, kernel_btf: Btf | None, cpus: int) -> Sequence[int]:
    """How often each slot was processed, up to the refusal where there is one."""
    try:
        machine = CountingMachine(prepare(program, profile, kernel_btf), kernel_btf, cpus)
    except Refused:
        return [0] * (len(program.insns) // 8)
    with suppress(Refused):
        machine.run()
    machine.let_go()
    return machine.counts
