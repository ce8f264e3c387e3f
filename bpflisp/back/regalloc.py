"""Register allocation by graph colouring, after Briggs: coalesce, simplify, colour, and spill what is left over.

r0 to r5 lose their values at calls: a call writes them, so whatever is alive across one conflicts with them and gets
r6 to r9. A value that a constant, a map, an address makes is not spilled but made again before each use. The result
has machine registers alone; `audit.py` proves it independently.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from bpflisp.back.interference import Interference, build
from bpflisp.back.liveness import members
from bpflisp.back.machine import ALLOCATABLE, FIRST_VIRTUAL, BackError, MFunction, MInsn
from bpflisp.back.rename import rename
from bpflisp.back.slots import share_spills
from bpflisp.ir.ssa import Position, Slot
from bpflisp.lean import dataclass, replace
from bpflisp.spec.isa import FRAME_POINTER, LD_IMM64_OPCODE, LDX, MODE_MEM, SIZE_BITS, STX, Kind

COLOURS = len(ALLOCATABLE)
LOAD64 = LDX | MODE_MEM | SIZE_BITS[8]
STORE64 = STX | MODE_MEM | SIZE_BITS[8]
_ROUNDS = 30


def allocate(function: MFunction, coalesce: bool = True) -> None:
    """Give every virtual register a machine register, or a stack slot; in place. `coalesce` merges the ends of copies.

    Raises BackError where that does not come to an end, which says that an instruction needs too many registers.
    """
    temporaries: set[int] = set()
    spills: set[Slot] = set()
    for _ in range(_ROUNDS):
        graph = build(function)
        graph.weight |= _costs_of_makers(function)
        colours, spilled = _Colouring(graph, temporaries).run(coalesce)
        if not spilled:
            rename(function, colours)
            _drop_idle_copies(function)
            share_spills(function, frozenset(spills))
            return
        made, slots = _spill(function, spilled, len(spills))
        temporaries |= made
        spills |= slots
    raise BackError(f"{function.name}: no allocation of registers found", None)


def _drop_idle_copies(function: MFunction) -> None:
    for block in function.blocks:
        block.body = [insn for insn in block.body if not (insn.is_copy and insn.dst == insn.src)]


class _Colouring:
    """One attempt on one graph."""

    def __init__(self, graph: Interference, temporaries: set[int]) -> None:
        self.graph = graph
        self.conflicts = dict(graph.conflicts)
        self.temporaries = temporaries
        self.alias: dict[int, int] = {}
        self.crowded = 0
        for register in self.conflicts:
            self._note_crowded(register)

    def run(self, coalesce: bool) -> tuple[dict[int, int], list[int]]:
        """(virtual register -> machine register, registers to spill); the first is whole where the second is empty."""
        if coalesce:
            self._coalesce()
        order = self._simplify()
        colours, spilled = self._select(order)
        for register in self.alias:
            root = self._root(register)
            if root in colours:
                colours[register] = colours[root]
        return colours, spilled

    def _root(self, register: int) -> int:
        while register in self.alias:
            register = self.alias[register]
        return register

    # Coalescing

    def _coalesce(self) -> None:
        """Merge the ends of copies as long as a safe merge is found, the hottest first."""
        copies = sorted(self.graph.copies, key=lambda copy: -copy[2])
        progress = True
        while progress:
            progress = False
            for a, b, _ in copies:
                a, b = self._root(a), self._root(b)
                if a == b or (a < FIRST_VIRTUAL and b < FIRST_VIRTUAL) or self.conflicts[a] >> b & 1:
                    continue
                if b < FIRST_VIRTUAL:
                    a, b = b, a
                if self._safe(a, b):
                    self._merge(a, b)
                    progress = True

    def _safe(self, a: int, b: int) -> bool:
        """Whether merging b into a cannot make a colourable graph uncolourable.

        George's test for a machine register, or Briggs's for two virtual ones.
        """
        if a < FIRST_VIRTUAL:
            return not self.conflicts[b] & self.crowded & ~self.conflicts[a]
        return ((self.conflicts[a] | self.conflicts[b]) & self.crowded).bit_count() < COLOURS

    def _note_crowded(self, register: int) -> None:
        """Keep the set of registers that have so many neighbours that they may be left without a colour; machine
        registers, which have one, count among them."""
        if register < FIRST_VIRTUAL or self.conflicts[register].bit_count() >= COLOURS:
            self.crowded |= 1 << register
        else:
            self.crowded &= ~(1 << register)

    def _merge(self, a: int, b: int) -> None:
        self.alias[b] = a
        neighbours = self.conflicts.pop(b)
        self.conflicts[a] |= neighbours
        for t in members(neighbours):
            self.conflicts[t] = self.conflicts[t] & ~(1 << b) | 1 << a
            self._note_crowded(t)
        self._note_crowded(a)
        self.graph.weight[a] = self.graph.weight.get(a, 0.0) + self.graph.weight.get(b, 0.0)
        if b in self.temporaries:
            self.temporaries.add(a)

    # Simplifying and colouring

    def _simplify(self) -> list[int]:
        """The registers in the order in which they leave the graph: easy ones, else the cheapest to spill."""
        left = {r for r in self.conflicts if r >= FIRST_VIRTUAL}
        degree = {r: self.conflicts[r].bit_count() for r in left}
        easy = [r for r in left if degree[r] < COLOURS]
        heapify(easy)
        order = []
        while left:
            chosen = heappop(easy) if easy else min(left, key=lambda r: self._spill_cost(r, degree[r]))
            if chosen not in left:
                continue
            order.append(chosen)
            left.discard(chosen)
            for other in members(self.conflicts[chosen]):
                if other in left:
                    degree[other] -= 1
                    if degree[other] == COLOURS - 1:
                        heappush(easy, other)
        return order

    def _spill_cost(self, register: int, degree: int) -> tuple[bool, float, int]:
        return register in self.temporaries, self.graph.weight.get(register, 0.0) / max(degree, 1), register

    def _select(self, order: list[int]) -> tuple[dict[int, int], list[int]]:
        colours = {r: r for r in ALLOCATABLE}
        spilled = []
        wishes = self._wishes()
        for register in reversed(order):
            taken = {colours[t] for t in members(self.conflicts[register]) if t in colours}
            free = [r for r in ALLOCATABLE if r not in taken]
            if not free:
                spilled.append(register)
                continue
            wished = [colours[t] for t in wishes.get(register, ()) if colours.get(t) in free]
            colours[register] = wished[0] if wished else free[0]
        return colours, spilled

    def _wishes(self) -> dict[int, list[int]]:
        """For each register those that a copy still connects it with."""
        wishes: dict[int, list[int]] = {}
        for a, b, _ in self.graph.copies:
            a, b = self._root(a), self._root(b)
            wishes.setdefault(a, []).append(b)
            wishes.setdefault(b, []).append(a)
        return wishes


# Spilling


@dataclass(frozen=True, slots=True)
class _Home:
    """Where a spilled register is when it is in none: made again by an instruction, or in a slot."""

    slot: Slot
    maker: MInsn | None

    def fetch(self, into: int, position: Position | None) -> MInsn:
        if self.maker is not None:
            return replace(self.maker, dst=into, position=position, number=0)
        return MInsn(LOAD64, into, FRAME_POINTER, slot=self.slot, position=position)


def _spill(function: MFunction, registers: list[int], count: int) -> tuple[set[int], set[Slot]]:
    """Keep registers in memory, or make them again, around every instruction that names them.

    Gives the short-lived registers that stand for them, and the slots. `count` numbers slots from there on.
    """
    makers = _makers(function, set(registers))
    homes = {
        register: _Home(Slot(8, 8, f"spill{count + index:04}"), makers.get(register))
        for index, register in enumerate(registers)
    }
    made: set[int] = set()
    for block in function.blocks:
        body: list[MInsn] = []
        for insn in block.instructions():
            _spill_around(function, insn, homes, body, made)
        if block.end:
            body.pop()
        block.body = body
    return made, {home.slot for home in homes.values()}


def _makers(function: MFunction, registers: set[int]) -> dict[int, MInsn]:
    """For each register that one instruction alone writes, which gives the same value anywhere, that instruction."""
    defining: dict[int, list[MInsn]] = {}
    for insn in function.instructions():
        for register in insn.defs():
            if register in registers:
                defining.setdefault(register, []).append(insn)
    return {r: found[0] for r, found in defining.items() if len(found) == 1 and _can_be_made_again(found[0])}


def _costs_of_makers(function: MFunction) -> dict[int, float]:
    """What it costs, in slots, to make again before each use a register that can be, and not to keep it.

    A copy of it is replaced by what makes it, any other use gets that before it, and the one that is kept goes.
    """
    makers = _makers(function, {register for insn in function.instructions() for register in insn.defs()})
    costs: dict[int, float] = {}
    for block in function.blocks:
        frequency = 10.0 ** min(block.depth, 6)
        for insn in block.instructions():
            for register in insn.uses():
                if register in makers:
                    more = _slots(makers[register]) - insn.is_copy
                    costs[register] = costs.get(register, 0.0) + frequency * more
            for register in insn.defs():
                if register in makers:
                    costs[register] = costs.get(register, 0.0) - frequency * _slots(insn)
    return costs


def _slots(maker: MInsn) -> int:
    return 2 if maker.is_lea or maker.opcode == LD_IMM64_OPCODE else 1


def _can_be_made_again(insn: MInsn) -> bool:
    """Whether it reads no register and no memory."""
    return not insn.raw and insn.row.kind in (Kind.ALU, Kind.LOAD_IMM64) and not insn.uses()


def _spill_around(function: MFunction, insn: MInsn, homes: dict[int, _Home], body: list[MInsn], made: set[int]) -> None:
    """Append an instruction, with what fetches its spilled operands before it and what stores its result after it."""
    uses, defs = insn.uses(), insn.defs()
    stores: list[MInsn] = []
    for register in dict.fromkeys((*uses, *defs)):
        home = homes.get(register)
        if home is None:
            continue
        if home.maker is insn:
            return
        temporary = function.register()
        made.add(temporary)
        if register in uses:
            body.append(home.fetch(temporary, insn.position))
        if register in defs:
            stores.append(MInsn(STORE64, FRAME_POINTER, temporary, slot=home.slot, position=insn.position))
        _rename_in(insn, register, temporary)
    body.append(insn)
    body += stores


def _rename_in(insn: MInsn, old: int, new: int) -> None:
    """Write `new` for the virtual register `old` in the instruction's fields."""
    if insn.dst == old:
        insn.dst = new
    if insn.src == old:
        insn.src = new
