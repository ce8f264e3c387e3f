"""What a level-2 log begins with: where functions start, and the registers that are alive before each instruction.

Source: add_subprog_and_kfunc and compute_live_registers of kernel/bpf/verifier.c, kernel 6.18.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine


def functions_text(starts: Iterable[int]) -> str:
    """The first slot of each function."""
    return "".join(f"func#{number} @{start}\n" for number, start in enumerate(starts))


def preamble(m: Machine) -> str:
    """All that is printed before the first path."""
    starts = [one.start for one in m.layout.subprograms]
    return functions_text(starts) + "Live regs before insn:\n" + "".join(_rows(m))


def _rows(m: Machine) -> Iterable[str]:
    """Per instruction: its loop, its slot, r0 to r9 where they are alive."""
    for slot, insn in enumerate(m.code):
        if insn is None:
            continue
        loop = m.loop_of[slot]
        alive = "".join(str(register) if m.live_regs[slot] >> register & 1 else "." for register in range(10))
        yield f"{loop:3} " * bool(loop) + "    " * (not loop) + f"{slot:3}: {alive} {m.insn_text(slot, insn)}\n"
