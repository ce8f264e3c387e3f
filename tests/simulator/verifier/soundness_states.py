"""Every state that the verifier has at an instruction of an accepted program: what runs are held against.

Exploration is done twice. *Whole*: a path ends only in a state that lies in an earlier one with every number counted,
so that every number of a run lies in a state. *Pruned*: as the verifier does it. A path goes on in the state of another
then, whose numbers count only where they were needed, and what is not read again not at all: pointers and known zeros
of live registers and live stack remain to be held against. Programs with loops that end only so are explored so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bpflisp.spec.kernels import profile
from simulator.program import Program
from simulator.verifier import prune
from simulator.verifier.layout import Layout, prepare
from simulator.verifier.liveness import StackLiveness
from simulator.verifier.machine import Machine
from simulator.verifier.regs import Reg
from simulator.verifier.state import Slot, State
from simulator.verifier.trail import Trail

Place = tuple[int, tuple[int, ...], int]
"""The function that a verification starts with, the call sites from it inwards, and the instruction."""

View = tuple[tuple[Sequence[Reg], Sequence[Slot]], ...]
"""The registers and the stack of each frame, outermost first."""

ALL_REGISTERS, ALL_SLOTS = 0x7FF, (1 << 64) - 1


class TooLongError(Exception):
    """The program has more states than asked for."""


class Seen(Trail):
    """Notes, in place of a trail, every state at every instruction."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.views: dict[Place, list[View]] = {}
        self._known: dict[Place, set[tuple[int, ...]]] = {}
        self._left = longest

    def note(self, m: Machine, idx: int) -> None:
        self._left -= 1
        if self._left < 0:
            raise TooLongError
        frames = m.state.frames
        place = place_of(m.state, idx)
        view = tuple((tuple(frame.regs), tuple(frame.stack)) for frame in frames)
        # What a view refers to is kept with it, so that no address serves twice.
        key = tuple(id(one) for regs, stack in view for one in (*regs, None, *stack))
        known = self._known.setdefault(place, set())
        if key not in known:
            known.add(key)
            self.views.setdefault(place, []).append(view)

    def back_to(self, position: int) -> None:
        """Nothing is forgotten."""


def place_of(state: State, idx: int) -> Place:
    return state.frames[0].subprog, tuple(frame.callsite for frame in state.frames[1:]), idx


@dataclass
class Explored:
    """The states of a program. `whole`: every number counts. `live` answers what counts, a pair of masks a frame."""

    layout: Layout
    machine: Machine
    views: dict[Place, list[View]]
    whole: bool
    _live: dict[Place, list[tuple[int, int]]] = field(default_factory=dict)

    def live(self, place: Place) -> list[tuple[int, int]]:
        """For each frame, the registers and the slots of stack that count."""
        found = self._live.get(place)
        if found is None:
            found = self._live[place] = self._find_live(place)
        return found

    def _find_live(self, place: Place) -> list[tuple[int, int]]:
        first, calls, idx = place
        if self.whole:
            return [(ALL_REGISTERS, ALL_SLOTS)] * (len(calls) + 1)
        starts = self.layout.subprogram_of
        stands = (*calls, idx)
        functions = [first, *(starts[at] for at in stands[1:])]
        assert isinstance(self.machine.liveness, StackLiveness)
        query = self.machine.liveness.query(idx, calls, functions)
        return [(self.machine.live_regs[at], query.alive(number)) for number, at in enumerate(stands)]


def explore(program: Program, longest: int, whole: bool) -> Explored:
    """The states of a program. TooLongError where there are more than `longest`, Refused and Unsupported as ever."""
    layout = prepare(program, profile("6.18"))
    machine = Machine(layout, None, 1, 2)
    machine.trail = seen = Seen(longest)
    if whole:
        machine.live_regs = [ALL_REGISTERS] * len(layout.code)
        machine.is_visited = _Within().is_visited
    machine.run()
    return Explored(layout, machine, seen.views, whole)


class _Within:
    """Pruning by states that lie in others whole, dead registers and all."""

    def __init__(self) -> None:
        self.kept: dict[Place, list[State]] = {}

    def is_visited(self, m: Machine, idx: int) -> bool:
        m.state.idx = idx
        kept = self.kept.setdefault(place_of(m.state, idx), [])
        if any(prune.states_equal(m, old, m.state, prune.RANGE_WITHIN) for old in kept[-8:]):
            return True
        kept.append(m.state.copy())
        return False
