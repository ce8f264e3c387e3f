"""Register allocation by graph colouring, after Briggs: coalesce, simplify, colour, and spill what is left over.

r0 to r5 lose their values at calls: a call writes them, so whatever is alive across one conflicts with them and gets
r6 to r9. A value that a constant, a map, an address makes is not spilled but made again before each use. The result
has machine registers alone; `audit.py` proves it independently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush

from bpflisp.back.interference import Copy, Interference, build, update
from bpflisp.back.liveness import Step, Steps, bits, members
from bpflisp.back.machine import ALLOCATABLE, FIRST_VIRTUAL, BackError, MBlock, MFunction, MInsn
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
    graph = build(function)
    makers: dict[int, MInsn] = {}
    _note_makers(graph, function.blocks, -1 << FIRST_VIRTUAL, makers)
    for _ in range(_ROUNDS):
        colours, spilled = _Colouring(graph, temporaries).run(coalesce)
        if not spilled:
            rename(function, colours)
            _drop_idle_copies(function)
            share_spills(function, frozenset(spills))
            return
        homes = {
            register: _Home(Slot(8, 8, f"spill{len(spills) + index:04}"), makers.get(register))
            for index, register in enumerate(spilled)
        }
        changed, made = _spill(function, graph.steps, homes)
        temporaries |= made
        spills |= {home.slot for home in homes.values()}
        update(graph, changed, spilled, made)
        _note_makers(graph, changed, bits(made), makers)
    raise BackError(f"{function.name}: no allocation of registers found", None)


def _drop_idle_copies(function: MFunction) -> None:
    for block in function.blocks:
        block.body = [insn for insn in block.body if not (insn.is_copy and insn.dst == insn.src)]


class _Colouring:
    """One attempt on one graph."""

    def __init__(self, graph: Interference, temporaries: set[int]) -> None:
        self.copies = graph.copies
        self.conflicts = dict(graph.conflicts)
        self.weight = dict(graph.weight)
        self.temporaries = temporaries
        self.alias: dict[int, int] = {}
        self.crowded = bits(r for r, others in self.conflicts.items() if _is_crowded(r, others))
        """The registers that have so many neighbours that they may be left without a colour; machine registers, which
        have one, count among them."""

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
        while (merged := self.alias.get(register)) is not None:
            register = merged
        return register

    # Coalescing

    def _coalesce(self) -> None:
        """Merge the ends of copies as long as a safe merge is found, the hottest first."""
        copies = sorted(self.copies, key=lambda copy: -copy[2])
        progress = True
        while progress:
            progress = False
            left: list[Copy] = []
            for copy in copies:
                a, b = self._root(copy[0]), self._root(copy[1])
                # What is one, or in conflict, stays so.
                if a == b or (a < FIRST_VIRTUAL and b < FIRST_VIRTUAL) or self.conflicts[a] >> b & 1:
                    continue
                if b < FIRST_VIRTUAL:
                    a, b = b, a
                if self._safe(a, b):
                    self._merge(a, b)
                    progress = True
                else:
                    left.append(copy)
            copies = left

    def _safe(self, a: int, b: int) -> bool:
        """Whether merging b into a cannot make a colourable graph uncolourable.

        George's test for a machine register, or Briggs's for two virtual ones.
        """
        if a < FIRST_VIRTUAL:
            return not self.conflicts[b] & self.crowded & ~self.conflicts[a]
        return ((self.conflicts[a] | self.conflicts[b]) & self.crowded).bit_count() < COLOURS

    def _merge(self, a: int, b: int) -> None:
        self.alias[b] = a
        conflicts = self.conflicts
        neighbours = conflicts.pop(b)
        common = neighbours & conflicts[a]
        conflicts[a] |= neighbours
        without, bit = ~(1 << b), 1 << a
        for t in members(neighbours):
            conflicts[t] = conflicts[t] & without | bit
        # The neighbours of both have one less than before, and the others as many.
        for t in members(common & self.crowded):
            if not _is_crowded(t, conflicts[t]):
                self.crowded ^= 1 << t
        if _is_crowded(a, conflicts[a]):
            self.crowded |= bit
        self.weight[a] = self.weight.get(a, 0.0) + self.weight.get(b, 0.0)
        if b in self.temporaries:
            self.temporaries.add(a)

    # Simplifying and colouring

    def _simplify(self) -> list[int]:
        """The registers in the order in which they leave the graph: easy ones, else the cheapest to spill."""
        conflicts = self.conflicts
        degree = {r: others.bit_count() for r, others in conflicts.items() if r >= FIRST_VIRTUAL}
        easy = [r for r, count in degree.items() if count < COLOURS]
        heapify(easy)
        left = bits(degree)
        order = []
        while degree:
            chosen = heappop(easy) if easy else self._cheapest(degree)
            order.append(chosen)
            del degree[chosen]
            left ^= 1 << chosen
            for other in members(conflicts[chosen] & left):
                degree[other] -= 1
                if degree[other] == COLOURS - 1:
                    heappush(easy, other)
        return order

    def _cheapest(self, degree: Mapping[int, int]) -> int:
        """Which to spill of registers with so many neighbours each; what stands for a spilled one only if all do."""
        candidates = degree.keys() - self.temporaries or degree
        weight = self.weight
        return min([(weight.get(r, 0.0) / degree[r], r) for r in candidates])[1]

    def _select(self, order: list[int]) -> tuple[dict[int, int], list[int]]:
        colours = {r: r for r in ALLOCATABLE}
        having = {r: 1 << r for r in ALLOCATABLE}
        spilled = []
        wishes = self._wishes()
        for register in reversed(order):
            conflicts = self.conflicts[register]
            wished = [colours[t] for t in wishes.get(register, ()) if t in colours]
            colour = next((c for c in (*wished, *ALLOCATABLE) if not conflicts & having[c]), None)
            if colour is None:
                spilled.append(register)
                continue
            colours[register] = colour
            having[colour] |= 1 << register
        return colours, spilled

    def _wishes(self) -> dict[int, list[int]]:
        """For each register those that a copy still connects it with."""
        wishes: dict[int, list[int]] = {}
        for copy in self.copies:
            a, b = self._root(copy[0]), self._root(copy[1])
            if a != b:
                wishes.setdefault(a, []).append(b)
                wishes.setdefault(b, []).append(a)
        return wishes


def _is_crowded(register: int, conflicts: int) -> bool:
    return register < FIRST_VIRTUAL or conflicts.bit_count() >= COLOURS


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


def _spill(function: MFunction, steps: Steps, homes: Mapping[int, _Home]) -> tuple[list[MBlock], set[int]]:
    """Keep registers in memory, or make them again, around every instruction that names them.

    Gives the blocks that changed, and the short-lived registers that stand there for what was spilled.
    """
    spilled = bits(homes)
    changed: list[MBlock] = []
    made: set[int] = set()
    for block in function.blocks:
        if not any((read | written) & spilled for _, _, _, read, written in steps[block]):
            continue
        changed.append(block)
        body: list[MInsn] = []
        for step in steps[block]:
            if (step[3] | step[4]) & spilled:
                _spill_around(function, step, homes, body, made)
            else:
                body.append(step[0])
        if block.end:
            body.pop()
        block.body = body
    return changed, made


def _note_makers(graph: Interference, blocks: Iterable[MBlock], registers: int, makers: dict[int, MInsn]) -> None:
    """Find what makes registers of a set again, and what it costs, in slots, to do so before each use, not to keep it.

    That can be where one instruction alone writes the register, which gives the same value anywhere. A copy of it is
    replaced by what makes it, any other use gets that before it, and the one that is kept goes.
    """
    defining: dict[int, MInsn | None] = {}
    for block in blocks:
        for insn, _, defs, _, written in graph.steps[block]:
            if written & registers:
                for register in defs:
                    defining[register] = None if register in defining else insn
    found = {r: insn for r, insn in defining.items() if insn and registers >> r & 1 and _can_be_made_again(insn)}
    makers |= found
    among = bits(found)
    costs: dict[int, float] = {}
    for block in blocks:
        frequency = 10.0 ** min(block.depth, 6)
        for insn, uses, defs, read, written in graph.steps[block]:
            if not (read | written) & among:
                continue
            for register in uses:
                if register in found:
                    more = _slots(found[register]) - insn.is_copy
                    costs[register] = costs.get(register, 0.0) + frequency * more
            for register in defs:
                if register in found:
                    costs[register] = costs.get(register, 0.0) - frequency * _slots(insn)
    graph.weight |= costs


def _slots(maker: MInsn) -> int:
    return 2 if maker.is_lea or maker.opcode == LD_IMM64_OPCODE else 1


def _can_be_made_again(insn: MInsn) -> bool:
    """Whether it reads no register and no memory."""
    return not insn.raw and insn.row.kind in (Kind.ALU, Kind.LOAD_IMM64) and not insn.uses()


def _spill_around(
    function: MFunction, step: Step, homes: Mapping[int, _Home], body: list[MInsn], made: set[int]
) -> None:
    """Append an instruction, with what fetches its spilled operands before it and what stores its result after it."""
    insn, uses, defs, _, _ = step
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
