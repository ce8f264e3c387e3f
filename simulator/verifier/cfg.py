"""Control flow before any path is explored: functions, reachable code, prune points, loops.

Invariant: everything here depends on the instructions alone and is asked once. The order of checks and the order in
which the depth-first walk goes are the kernel's: they decide which message comes first and where states are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from bpflisp.lean import dataclass, field
from bpflisp.spec.isa import CALL_CODE, EXIT_CODE, JA_CODE, LD_IMM64_OPCODE
from simulator.verifier.refusal import Refused
from simulator.verifier.slots import CLASS_MASK, EXIT_OPCODE, JA32_OPCODE, JA_OPCODE, LD, OP_MASK, TAIL_CALL, Slots

MAX_SUBPROGRAMS: Final = 256

_E2BIG: Final = 7


@dataclass(slots=True)
class Function:
    """A function of the program, while its facts are gathered. `start` and `end` in slots, `end` excluded."""

    start: int
    end: int
    has_tail_call: bool = False
    has_packet_load: bool = False
    changes_packet: bool = False
    might_sleep: bool = False


@dataclass(frozen=True, slots=True)
class CallFacts:
    """What a call of a helper or kernel function means for control flow and liveness.

    `params` is how many registers from r1 it reads. `fastcall` says that the kernel inlines it, so that it clobbers
    only the registers of its prototype. `sync_callback` runs a function of the program before it returns,
    `async_callback` hands one to be run later.
    """

    params: int
    is_void: bool = False
    fastcall: bool = False
    might_sleep: bool = False
    changes_packet: bool = False
    iter_next: bool = False
    sync_callback: bool = False
    async_callback: bool = False
    throws: bool = False


CallsAt = Callable[[int], "CallFacts | None"]
"""Slot of a helper or kfunc call -> its facts, None where the program may not call it (which is refused later)."""


def add_function(starts: list[int], target: int, count: int) -> None:
    """Adds a function's start to the sorted starts. Raises Refused where it is outside, or one too many."""
    if not 0 <= target < count:
        raise Refused("call to invalid destination", errno=22)
    if target in starts:
        return
    if len(starts) >= MAX_SUBPROGRAMS:
        raise Refused("too many subprograms", errno=_E2BIG)
    starts.append(target)
    starts.sort()


def functions_of(starts: Sequence[int], slots: Slots) -> list[Function]:
    """The functions, each ending where the next one starts."""
    return [Function(start, end) for start, end in zip(starts, [*starts[1:], len(slots)], strict=True)]


def check_functions(functions: Sequence[Function], slots: Slots) -> None:
    """Every jump stays in its function and no function falls off its end; notes tail calls and packet loads."""
    opcodes, straight = slots.opcode, slots.straight
    for function in functions:
        for at in range(function.start, function.end):
            if straight[at] and opcodes[at] & CLASS_MASK != LD:
                continue
            if slots.is_helper_call(at) and slots.imm[at] == TAIL_CALL:
                function.has_tail_call = True
            if slots.is_packet_load(at):
                function.has_packet_load = True
            _check_jump(function, slots, at)
        if slots.opcode[function.end - 1] not in (EXIT_OPCODE, JA_OPCODE, JA32_OPCODE):
            raise Refused("last insn is not an exit or jmp", insn=function.end - 1)


def _check_jump(function: Function, slots: Slots, at: int) -> None:
    if not slots.is_jump_class(at) or slots.opcode[at] & OP_MASK in (EXIT_CODE, CALL_CODE):
        return
    target = at + slots.jump_distance(at) + 1
    if not function.start <= target < function.end:
        raise Refused(f"jump out of range from insn {at} to {target}", insn=at)


# States of a slot in the walk: 0 not seen, else discovered with the edges that were followed, or explored.
_DISCOVERED, _EXPLORED = 0x10, 0x20
_FALLTHROUGH, _BRANCH = 1, 2


@dataclass(slots=True)
class Marks:
    """Where states are compared, and what else the walk leaves, one entry a slot."""

    prune_point: list[bool]
    jump_point: list[bool]
    jump_target: list[bool]
    force_checkpoint: list[bool]
    calls_callback: list[bool]

    @staticmethod
    def empty(count: int) -> Marks:
        """No marks on `count` slots."""
        return Marks(*([False] * count for _ in range(5)))


@dataclass(slots=True)
class Walk:
    """The depth-first walk over the program, from slot 0 and into every function that is called.

    `any_back_edge` is False for kernels that let jumps alone close a loop: neither the fall into the next instruction
    nor a call (so that recursion is refused here). `callbacks_are_loops` is False for those that look at a callback
    once, where its helper is called.
    """

    slots: Slots
    functions: Sequence[Function]
    function_of: Sequence[int]
    calls_at: CallsAt
    any_back_edge: bool = True
    callbacks_are_loops: bool = True
    marks: Marks = field(init=False)
    _state: list[int] = field(init=False)
    _stack: list[int] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.marks = Marks.empty(len(self.slots))
        self._state = [0] * len(self.slots)

    def run(self, exception_callback: int = 0) -> Marks:
        """Walks, then checks that every slot was reached; `exception_callback` is a second entry, 0 for none.

        Raises Refused: jumps out of range, back edges where the kernel allows none, unreachable instructions.
        """
        self._from(0)
        if exception_callback and self._state[exception_callback] != _EXPLORED:
            self._from(exception_callback)
        self._check_reached()
        return self.marks

    def _from(self, entry: int) -> None:
        state, stack, straight, count = self._state, self._stack, self.slots.straight, len(self.slots)
        state[entry] = _DISCOVERED
        stack.append(entry)
        while stack:
            at = stack[-1]
            target = at + straight[at]
            # `_visit` and `_push`, in place for what most instructions do
            if target > at and state[at] == _DISCOVERED and target < count and not state[target]:
                state[at] = _DISCOVERED | _FALLTHROUGH
                state[target] = _DISCOVERED
                stack.append(target)
            elif (target > at and state[at] != _DISCOVERED) or not self._visit(at):
                state[at] = _EXPLORED
                stack.pop()

    def _check_reached(self) -> None:
        at, count = 0, len(self.slots)
        while at < count:
            if self._state[at] != _EXPLORED:
                raise Refused(f"unreachable insn {at}", insn=at)
            if self.slots.opcode[at] == LD_IMM64_OPCODE:
                if self._state[at + 1]:
                    raise Refused(f"jump into the middle of ldimm64 insn {at}", insn=at)
                at += 1
            at += 1

    def _push(self, at: int, target: int, edge: int) -> bool:
        """Follows an edge unless that was done; True where it leads to a slot not seen before, to be visited next."""
        state = self._state
        if state[at] >= (_DISCOVERED | edge):
            return False
        if not 0 <= target < len(self.slots):
            raise Refused(f"jump out of range from insn {at} to {target}", insn=at)
        if edge == _BRANCH:
            self.marks.prune_point[target] = True
            self.marks.jump_point[target] = True
            self.marks.jump_target[target] = True
        if state[target] == 0:
            state[at] = _DISCOVERED | edge
            state[target] = _DISCOVERED
            self._stack.append(target)
            return True
        if state[target] & 0xF0 == _DISCOVERED:
            if not self.any_back_edge and not self._may_close_loop(at):
                raise Refused(f"back-edge from insn {at} to {target}", insn=at)
            return False
        state[at] = _DISCOVERED | edge
        return False

    def _may_close_loop(self, at: int) -> bool:
        if self.slots.is_function_load(at):
            return True
        return self.slots.is_jump_class(at) and self.slots.opcode[at] & OP_MASK != CALL_CODE

    def _visit(self, at: int) -> bool:
        """One step at a slot: True where there is more to do before the slot is done."""
        slots, marks = self.slots, self.marks
        if slots.is_function_load(at):
            return self._visit_call(at, callee=True)
        if not slots.is_jump_class(at):
            return self._push(at, at + slots.width(at), _FALLTHROUGH)
        operation = slots.opcode[at] & OP_MASK
        if operation == EXIT_CODE:
            return False
        if operation == CALL_CODE:
            if not slots.is_subprogram_call(at):
                self._note_call(at)
            return self._visit_call(at, callee=slots.is_subprogram_call(at))
        target = at + slots.jump_distance(at) + 1
        if operation == JA_CODE:
            if self._push(at, target, _FALLTHROUGH):
                return True
            marks.prune_point[target] = marks.jump_point[target] = marks.jump_target[target] = True
            return False
        marks.prune_point[at] = True
        if slots.is_may_goto(at):
            marks.force_checkpoint[at] = True
        return self._push(at, at + 1, _FALLTHROUGH) or self._push(at, target, _BRANCH)

    def _visit_call(self, at: int, *, callee: bool) -> bool:
        after = at + self.slots.width(at)
        if self._push(at, after, _FALLTHROUGH):
            return True
        self.marks.prune_point[after] = True
        # A return is no fall-through: the history of jumps needs it.
        self.marks.jump_point[after] = True
        if not callee:
            return False
        target = at + self.slots.imm[at] + 1
        self.marks.prune_point[at] = True
        # The callee's facts are whole when this runs for the last time: the walk has then explored the callee.
        caller, called = self.functions[self.function_of[at]], self.functions[self.function_of[target]]
        caller.changes_packet |= called.changes_packet
        caller.might_sleep |= called.might_sleep
        return self._push(at, target, _BRANCH)

    def _note_call(self, at: int) -> None:
        facts = self.calls_at(at)
        if facts is None:
            return
        marks, function = self.marks, self.functions[self.function_of[at]]
        if not self.callbacks_are_loops:
            marks.prune_point[at] |= facts.async_callback
            return
        if facts.async_callback or facts.sync_callback or facts.iter_next:
            # A state has to be looked up before the callback is entered, else each visit would push it again.
            marks.prune_point[at] = True
        if facts.sync_callback:
            marks.calls_callback[at] = marks.jump_point[at] = True
        if facts.sync_callback or facts.iter_next:
            # How often a callback or loop body runs is not known: only equal states end the repetition.
            marks.force_checkpoint[at] = True
        function.might_sleep |= facts.might_sleep
        function.changes_packet |= facts.changes_packet


def postorder_of(functions: Sequence[Function], slots: Slots) -> list[list[int]]:
    """The slots of each function in the kernel's postorder: most successors stand before their instruction.

    The walk marks a successor when it is put on the stack, not when it is taken from it, so where two paths meet the
    order is not a textbook postorder; fixpoints come out alike, the number of passes that the log counts does not.
    """
    state = [0] * len(slots)
    orders = []
    for function in functions:
        order: list[int] = []
        stack = [function.start]
        while stack:
            top = stack[-1]
            state[top] |= _DISCOVERED
            if state[top] & _EXPLORED:
                order.append(top)
                stack.pop()
                continue
            for successor in slots.after[top]:
                if not state[successor]:
                    stack.append(successor)
                    state[successor] |= _DISCOVERED
            state[top] |= _EXPLORED
        orders.append(order)
    return orders


def loops_of(slots: Slots) -> list[int]:
    """The number of the strongly connected component of each slot, 0 for a slot in no loop.

    In 6.18 a call that runs a callback is no loop by itself. Source of the algorithm: Tarjan 1972, in Pearce's form.
    """
    count = len(slots)
    done = count + 1
    order, low, loop = [0] * count, [0] * count, [0] * count
    after = slots.after
    if not any(slot <= at for at, following in enumerate(after) for slot in following):
        return loop  # nothing leads back
    after = [tuple([slot for slot in following if slot < count]) for following in after]
    stack: list[int] = []
    next_order, next_loop = 1, 1
    for root in range(count):
        path = [] if order[root] else [root]
        while path:
            at = path[-1]
            if not order[at]:
                order[at] = low[at] = next_order
                next_order += 1
                stack.append(at)
            least = low[at]
            for slot in after[at]:
                if not order[slot]:
                    path.append(slot)
                    break
                least = min(least, low[slot])
            low[at] = least
            if path[-1] != at:
                continue
            path.pop()
            if least < order[at]:
                continue
            is_loop = stack[-1] != at or at in after[at]
            while True:
                member = stack.pop()
                low[member] = done
                if is_loop:
                    loop[member] = next_loop
                if member == at:
                    break
            next_loop += is_loop
    return loop
