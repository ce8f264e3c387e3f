"""Spills and fills around calls that the kernel inlines: they cost no stack, as long as nothing else uses those slots.

Invariant: a pattern is a run of 8-byte spills just before a call and the fills of the same registers from the same
offsets just after, at the lowest offsets that the function uses. Kernels know them from 6.12 on.
"""

from __future__ import annotations

from collections.abc import Sequence

from bpflisp.lean import dataclass
from bpflisp.spec.isa import FRAME_POINTER
from simulator.verifier.cfg import CallsAt, Function
from simulator.verifier.live_registers import CALLER_SAVED, argument_mask
from simulator.verifier.slots import CALL_OPCODE, FILL_OPCODE, SPILL_OPCODE, Slots

_MAX_PAIRS = 6


@dataclass(slots=True)
class Fastcalls:
    """What was found. `pattern` by slot: the spill or fill belongs to a pattern; `removable` by slot of a call: how
    many pairs the kernel takes out. By function: `stack_off` the lowest offset that patterns use (0 for none; accesses
    below it that are no pattern break the contract), `keep_stack` that some pattern stays, so the stack is not made
    smaller.
    """

    pattern: list[bool]
    removable: dict[int, int]
    stack_off: list[int]
    keep_stack: list[bool]


def find_fastcalls(
    functions: Sequence[Function], slots: Slots, calls_at: CallsAt, jump_target: Sequence[bool]
) -> Fastcalls:
    """The patterns of every function. `jump_target` by slot, all False for kernels that do not look (6.18.44)."""
    found = Fastcalls([False] * len(slots), {}, [0] * len(functions), [False] * len(functions))
    opcodes, targets = slots.opcode, slots.dst
    for number, function in enumerate(functions):
        span = range(function.start, function.end)
        spills = (at for at in span if opcodes[at] == SPILL_OPCODE and targets[at] == FRAME_POINTER)
        lowest = min((slots.off[at] for at in spills), default=0)
        lowest = min(lowest, 0)
        for at in span:
            if opcodes[at] == CALL_OPCODE and not slots.is_subprogram_call(at):
                _note_pattern(found, number, slots, at, lowest, calls_at, jump_target)
    return found


def _is_spill(slots: Slots, at: int) -> bool:
    return slots.opcode[at] == SPILL_OPCODE and slots.dst[at] == FRAME_POINTER


def _note_pattern(
    found: Fastcalls,
    number: int,
    slots: Slots,
    call: int,
    lowest: int,
    calls_at: CallsAt,
    jump_target: Sequence[bool],
) -> None:
    facts = calls_at(call)
    if facts is None:
        return
    clobbered = argument_mask(facts.params) | (0 if facts.is_void else 1)
    pairs = _pairs(slots, call, lowest, CALLER_SAVED & ~clobbered, jump_target)
    if not pairs:
        return
    for distance in range(1, pairs + 1):
        found.pattern[call - distance] = found.pattern[call + distance] = True
    if facts.fastcall:
        found.removable[call] = pairs
    else:
        found.keep_stack[number] = True
    found.stack_off[number] = min(found.stack_off[number], lowest + 8 * pairs)


def _pairs(slots: Slots, call: int, lowest: int, expected: int, jump_target: Sequence[bool]) -> int:
    """How many pairs surround the call, the inner one at the lowest offset, each of another register expected."""
    for distance in range(1, _MAX_PAIRS + 1):
        spill, fill = call - distance, call + distance
        if spill < 0 or fill >= len(slots):
            return distance - 1
        # A pattern runs as a whole: a jump may lead to its first spill alone.
        if jump_target[spill + 1] or jump_target[fill]:
            return distance - 1
        register = slots.src[spill]
        fits = (
            _is_spill(slots, spill)
            and slots.opcode[fill] == FILL_OPCODE
            and slots.src[fill] == FRAME_POINTER
            and slots.dst[fill] == register
            and expected >> register & 1
            and slots.off[spill] == slots.off[fill] == lowest + 8 * (distance - 1)
        )
        if not fits:
            return distance - 1
        expected &= ~(1 << register)
    return _MAX_PAIRS
