"""The stack that chains of calls may need, checked after all paths were explored.

Invariant: sizes in bytes, rounded up to 16 a function as the x86 JIT allots them. The walk goes through functions by
their calls alone, as the kernel's: a call in code that no path reaches counts as well.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from bpflisp.lean import dataclass, field
from bpflisp.spec.isa import STACK_SIZE
from simulator.verifier.refusal import Refused
from simulator.verifier.slots import Slots

MAX_FRAMES: Final = 8
TAIL_CALLER_LIMIT: Final = 256
PRIVATE_STACK_LEAST: Final = 64
"""A function gets a stack of its own, where its program may, from this size on."""

_E2BIG, _EACCES = 7, 13
_ROUND = 16

PRIVATE_STACK_TYPES: Final = frozenset({"kprobe", "tracepoint", "perf_event", "raw_tracepoint"})


@dataclass(frozen=True, slots=True)
class Frames:
    """What the walk needs of each function: where it starts and ends, its stack, what it is used as."""

    starts: Sequence[int]
    ends: Sequence[int]
    depth: Sequence[int]
    has_tail_call: Sequence[bool]
    has_packet_load: Sequence[bool]
    is_callback: Sequence[bool]
    is_async_callback: Sequence[bool]
    is_exception_callback: Sequence[bool]


@dataclass(slots=True)
class StackCheck:
    """The walk. `throws` are the slots of calls of bpf_throw; `private` says that the program may have private
    stacks; `unit` is in how many bytes stacks are counted: in more than 16, every function has some.
    """

    slots: Slots
    frames: Frames
    throws: frozenset[int]
    private: bool
    unit: int = _ROUND
    _own_stack: list[bool | None] = field(init=False)
    _crossings: list[int] = field(init=False)

    def run(self) -> None:
        """Walks from every asynchronous callback, last first, then from the entry function. Raises Refused."""
        frames = self.frames
        self._own_stack = [None] * len(frames.starts)
        self._crossings = list(self.slots.crossings())
        allowed = self.private and not any(frames.has_tail_call)
        for number in range(len(frames.starts) - 1, -1, -1):
            if number == 0 or frames.is_async_callback[number]:
                self._walk(number, private=allowed and number == 0)

    def _walk(self, root: int, *, private: bool) -> None:
        """Depth first through the calls of a function; the call stack is a list of (function, slot to go on at)."""
        frames = self.frames
        callers: list[tuple[int, int]] = []
        current, at, depth = root, frames.starts[root], 0
        tail_call_reached = False
        depth += self._enter(current, callers, depth, private)
        while True:
            call = self._next_call(current, at, callers)
            if call is not None:
                at, target = call
                callers.append((current, at + 1))
                current, at = target, frames.starts[target]
                tail_call_reached |= frames.has_tail_call[target]
                if len(callers) >= MAX_FRAMES:
                    raise Refused(f"the call stack of {len(callers)} frames is too deep !", errno=_E2BIG)
                depth += self._enter(current, callers, depth, private)
                continue
            if tail_call_reached and any(frames.is_exception_callback[caller] for caller, _ in callers):
                raise Refused("cannot tail call within exception cb")
            if not callers:
                return
            if not self._own_stack[current]:
                depth -= self._rounded(current)
            current, at = callers.pop()

    def _rounded(self, number: int) -> int:
        unit = self.unit
        return (max(self.frames.depth[number], unit > _ROUND) + unit - 1) // unit * unit

    def _enter(self, number: int, callers: Sequence[tuple[int, int]], depth: int, private: bool) -> int:
        """What the function adds to the shared stack."""
        frames = self.frames
        chain = [number, *(caller for caller, _ in callers)]
        if frames.has_packet_load[number] and any(frames.is_callback[one] for one in chain):
            raise Refused("cannot use BPF_LD_[ABS|IND] within callback")
        if number and frames.has_tail_call[number] and depth >= TAIL_CALLER_LIMIT:
            words = f"tail_calls are not allowed when call stack of previous frames is {depth} bytes. Too large"
            raise Refused(words, errno=_EACCES)
        size = self._rounded(number)
        if not private:
            self._own_stack[number] = False
        elif self._own_stack[number] is None and size >= PRIVATE_STACK_LEAST:
            self._own_stack[number] = True
        if self._own_stack[number]:
            if size > STACK_SIZE:
                raise Refused(f"stack size of subprog {number} is {size}. Too large", errno=_EACCES)
            return 0
        if depth + size > STACK_SIZE:
            words = f"combined stack size of {len(callers) + 1} calls is {depth + size}. Too large"
            raise Refused(words, errno=_EACCES)
        return size

    def _next_call(self, number: int, at: int, callers: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
        """The next call or callback in a function from a slot on: (slot, function); None at its end."""
        slots, frames = self.slots, self.frames
        crossings = self._crossings
        for where in range(bisect_left(crossings, at), len(crossings)):
            slot = crossings[where]
            if slot >= frames.ends[number]:
                break
            if slot in self.throws:
                chain = [number, *(caller for caller, _ in callers)]
                if any(frames.is_callback[one] for one in chain):
                    words = f"bpf_throw kfunc (insn {slot}) cannot be called from callback subprog {number}"
                    raise Refused(words, insn=slot)
                continue
            direct = slots.is_subprogram_call(slot)
            if not direct and not slots.is_function_load(slot):
                continue
            target = frames.starts.index(slot + slots.imm[slot] + 1)
            if frames.is_async_callback[target]:
                # It runs on a stack of its own later, unless it is called as well.
                if not direct:
                    continue
                if frames.is_exception_callback[target]:
                    raise Refused(f"insn {slot} cannot call exception cb directly", insn=slot)
            return slot, target
        return None


def may_have_private_stack(program_type: str, attach_type: str) -> bool:
    """Whether programs of this kind may have stacks outside of the kernel's: they are kept from running in each
    other.
    """
    return program_type in PRIVATE_STACK_TYPES or (program_type == "tracing" and attach_type != "trace_iter")
