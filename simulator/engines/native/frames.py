"""How much of its frame a program can see: what has to be zero when it begins.

Sound for every program: where an address of the frame gets out of sight, all of the frame counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import CALL_HELPER, STACK_SIZE, Kind
from simulator.engines.source.blocks import Block
from simulator.engines.source.frame import ONE_OPERAND, live_registers
from simulator.engines.source.names import NO_CALLBACK
from simulator.engines.source.ranges import Known, State, after

_STORES = frozenset({Kind.STORE, Kind.ATOMIC, Kind.STORE_RELEASE})
_COMPUTES = frozenset({Kind.ALU, Kind.NEG, Kind.END})


def lowest_seen(blocks: Mapping[int, Block], states: Mapping[int, State], known: Known) -> int:
    """The first byte of its frame, from 0, that a program may read or hand on: what is before it is never seen."""
    live = live_registers(blocks, states, known)
    lowest = STACK_SIZE
    for start, block in blocks.items():
        if start not in states:
            continue
        state = states[start]
        for at, insn in block.insns:
            following = after(at, insn, state, known)
            if _gets_out_of_sight(insn, state, following):
                return 0
            lowest = min(lowest, _lowest_of(insn, state, following))
            state = following
        for on in block.next:
            if on in states and any(state[r].frame is not None and states[on][r].frame is None for r in live[on][-1]):
                return 0
    return max(0, lowest // 8 * 8)


def _lowest_of(insn: Insn, state: State, following: State) -> int:
    """The least byte of the frame that registers point to here, or that is accessed."""
    places = [value.frame for value in (*state, *following) if value.frame is not None]
    for register in (insn.dst, insn.src):
        frame = state[register].frame if register < len(state) else None
        if insn.row.size and frame is not None:
            places.append(frame + insn.off)
    return min(places, default=STACK_SIZE)


def _gets_out_of_sight(insn: Insn, state: State, following: State) -> bool:
    """Whether an address of the frame goes where the analysis does not follow it."""
    kind = insn.row.kind
    if kind in _STORES:
        return insn.src < len(state) and state[insn.src].frame is not None
    if kind is Kind.CALL:
        return insn.src != CALL_HELPER or insn.imm not in NO_CALLBACK
    if kind not in _COMPUTES:
        return kind is Kind.CALL_REG
    if max(insn.dst, insn.src) >= len(state) or following[insn.dst].frame is not None:
        return False
    used = insn.row.op not in ONE_OPERAND and state[insn.dst].frame is not None
    return used or (insn.row.reg and state[insn.src].frame is not None)
