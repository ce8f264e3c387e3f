"""Blocks as nested ifs and loops.

Forward flow becomes ifs: where the two sides of a branch meet again the rest follows the if, and where they do not,
a short tail is written twice. A loop becomes `for _ in fuel`. Where neither works (a jump out of two loops, a loop
with two entries, too long a tail, too deep a nest) the target becomes a head: the function is then one loop that
looks at `pc`, and a jump there sets it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from simulator.engines.source.blocks import Block

_MAX_INDENT = 60
_MAX_LOOPS = 12
_TRIES = 12
_EXIT = -1

Emit = Callable[[int], None]


class _NeedsHeadError(Exception):
    def __init__(self, slot: int) -> None:
        super().__init__(slot)
        self.slot = slot


@dataclass(slots=True)
class Loop:
    """A natural loop: `leave` is the block that a break gets to; `escapes` says that a jump to a head leaves it."""

    header: int
    body: set[int]
    leave: int | None
    escapes: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where text is being written: what falling off its end gets to, and the loop around it."""

    follow: int | None = None
    loop: Loop | None = None
    depth: int = 0
    open: frozenset[int] = frozenset()


@dataclass(slots=True)
class Graph:
    """The order of blocks (reverse postorder) and what dominates what, forwards and backwards."""

    order: list[int]
    before: dict[int, list[int]]
    dominator: dict[int, int]
    postdominator: dict[int, int]
    loops: dict[int, set[int]] = field(default_factory=dict)
    tangled: set[int] = field(default_factory=set)


def graph_of(start: int, following: Mapping[int, list[int]]) -> Graph:
    """The graph of the blocks that can be reached from `start`."""
    order = _reverse_postorder(start, following)
    before: dict[int, list[int]] = {at: [] for at in order}
    for at in order:
        for to in dict.fromkeys(following[at]):
            before[to].append(at)
    dominator = _dominators(order, before)
    graph = Graph(order, before, dominator, _postdominators(order, following))
    position = {at: index for index, at in enumerate(order)}
    for at in order:
        for to in following[at]:
            if position[to] > position[at]:
                continue
            if _dominates(to, at, dominator):
                graph.loops.setdefault(to, {to}).update(_natural_loop(to, at, before))
            else:
                graph.tangled.add(to)
    return graph


def _reverse_postorder(start: int, following: Mapping[int, list[int]]) -> list[int]:
    seen, order = {start}, []
    stack = [(start, iter(following[start]))]
    while stack:
        at, rest = stack[-1]
        for to in rest:
            if to not in seen:
                seen.add(to)
                stack.append((to, iter(following[to])))
                break
        else:
            order.append(at)
            stack.pop()
    return order[::-1]


def _dominators(order: list[int], before: Mapping[int, list[int]]) -> dict[int, int]:
    """Immediate dominators: the iterative algorithm of Cooper, Harvey and Kennedy."""
    position = {at: index for index, at in enumerate(order)}
    found = {order[0]: order[0]}
    changed = True
    while changed:
        changed = False
        for at in order[1:]:
            known = [one for one in before[at] if one in found]
            if not known:
                continue
            best = known[0]
            for other in known[1:]:
                best = _meet(best, other, found, position)
            if found.get(at) != best:
                found[at], changed = best, True
    return found


def _meet(a: int, b: int, found: Mapping[int, int], position: Mapping[int, int]) -> int:
    while a != b:
        while position[a] > position[b]:
            a = found[a]
        while position[b] > position[a]:
            b = found[b]
    return a


def _postdominators(order: list[int], following: Mapping[int, list[int]]) -> dict[int, int]:
    """Immediate postdominators; _EXIT is what follows every way out. A block that no way out can be reached from has
    none."""
    backwards: dict[int, list[int]] = {at: [] for at in order}
    backwards[_EXIT] = [at for at in order if not following[at]]
    for at in order:
        for to in following[at]:
            backwards[to].append(at)
    reached = _reverse_postorder(_EXIT, backwards)
    known = set(reached)
    after = {at: [to for to in (following[at] or [_EXIT]) if to in known] for at in reached if at != _EXIT}
    after[_EXIT] = []
    return _dominators(reached, after)


def _dominates(a: int, b: int, dominator: Mapping[int, int]) -> bool:
    while b != a:
        above = dominator[b]
        if above == b:
            return False
        b = above
    return True


def _natural_loop(header: int, latch: int, before: Mapping[int, list[int]]) -> set[int]:
    body, work = {header, latch}, [latch] if latch != header else []
    while work:
        for one in before[work.pop()]:
            if one not in body:
                body.add(one)
                work.append(one)
    return body


class Writer:
    """What writes text for the shape: the function's own instructions, and the lines around them."""

    def line(self, text: str) -> None:
        """One line at the current indentation."""
        raise NotImplementedError

    def shift(self, by: int) -> None:
        """Changes the indentation."""
        raise NotImplementedError

    def straight(self, at: int, source: int | None) -> None:
        """The instructions of a block but its last jump; with an exit, the return. `source` is the block that alone
        leads to this text, None where several ways do."""
        raise NotImplementedError

    def condition(self, at: int, negated: bool) -> str:
        """The condition of the branch that ends a block."""
        raise NotImplementedError

    def mark(self) -> int:
        """How many lines there are."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forgets everything written."""
        raise NotImplementedError


class Shaper:
    """Writes one function."""

    def __init__(self, start: int, blocks: Mapping[int, Block], reachable: set[int], writer: Writer) -> None:
        self._start, self._writer = start, writer
        self._next = {at: [to for to in blocks[at].next if to in reachable] for at in reachable}
        self._size = {at: len(blocks[at].insns) + 1 for at in reachable}
        self._graph = graph_of(start, self._next)
        self._heads: list[int] = []
        self._here = 0
        self._written: dict[int, int] = {}
        self._budget = 0
        self._source: int | None = None
        self.uses_fuel = False

    def write(self) -> None:
        """The whole function."""
        heads = {self._start} | self._graph.tangled if self._graph.tangled else set()
        for attempt in range(_TRIES * 50):
            self._heads = sorted(heads, key=lambda at: (at != self._start, at))
            self._written, self._budget = {}, 2 * sum(self._size.values()) + 100
            self._writer.reset()
            try:
                self._whole()
            except _NeedsHeadError as needed:
                heads |= {self._start, needed.slot}
                if attempt >= _TRIES:
                    heads |= self._joins()
                continue
            return
        raise AssertionError("every join is a head, and still the function has no shape")

    def _joins(self) -> set[int]:
        """Every block with several ways in, and every loop's header: with these as heads any function has a shape."""
        return {at for at, before in self._graph.before.items() if len(before) > 1} | set(self._graph.loops)

    def _whole(self) -> None:
        writer = self._writer
        self.uses_fuel = bool(self._heads)
        if not self._heads:
            self._emit(self._start, Place())
            return
        writer.line("pc = 0")
        writer.line("for _ in fuel:")
        writer.shift(1)
        self._ladder(0, len(self._heads))
        writer.shift(-1)
        writer.line("else:")
        writer.line("    out_of_fuel()")

    def _ladder(self, low: int, high: int) -> None:
        writer = self._writer
        if high - low == 1:
            self._here = low
            self._suite(lambda: self._emit_head(self._heads[low]))
            return
        middle = (low + high) // 2 if high - low > 3 else low + 1
        writer.line(f"if pc < {middle}:")
        writer.shift(1)
        self._ladder(low, middle)
        writer.shift(-1)
        writer.line("else:")
        writer.shift(1)
        self._ladder(middle, high)
        writer.shift(-1)

    def _emit_head(self, at: int) -> bool:
        self._source = None
        return self._emit(at, Place(), inside=True)

    def _suite(self, emit: Callable[[], bool]) -> bool:
        """Writes what `emit` does, or `pass`; whether it may fall off its end."""
        before = self._writer.mark()
        falls = emit()
        if self._writer.mark() == before:
            self._writer.line("pass")
        return falls

    def _arm(self, to: int, place: Place, source: int) -> bool:
        self._writer.shift(1)
        falls = self._suite(lambda: self._goto_and_emit(to, place, source))
        self._writer.shift(-1)
        return falls

    def _goto_and_emit(self, to: int, place: Place, source: int) -> bool:
        falls, following = self._goto(to, Place(place.follow, place.loop, place.depth + 1, place.open), source)
        if following is None:
            return falls
        return self._emit(following, Place(place.follow, place.loop, place.depth + 1, place.open))

    def _emit(self, at: int, place: Place, inside: bool = False) -> bool:
        """Writes a block and what comes after it; whether the text may fall off its end, to `place.follow`."""
        following: int | None = at
        falls = False
        while following is not None:
            at, source = following, self._source
            self._source = None
            self._written[at] = self._written.get(at, 0) + 1
            self._budget -= self._size[at]
            if at in self._graph.loops and not inside and at not in self._heads:
                falls, following = self._loop(at, place)
            else:
                self._writer.straight(at, source)
                falls, following = self._leave(at, place)
            inside = False
        return falls

    def _loop(self, at: int, place: Place) -> tuple[bool, int | None]:
        body = self._graph.loops[at]
        loop = Loop(at, body, self._leave_of(at, body))
        loops = place.open | {at}
        if len(loops) > _MAX_LOOPS:
            raise _NeedsHeadError(at)
        if place.loop is not None and place.loop.leave is not None:
            loops |= {place.loop.leave}
        self.uses_fuel = True
        self._writer.line("for _ in fuel:")
        self._writer.shift(1)
        self._source = None
        self._emit(at, Place(None, loop, place.depth + 1, loops), inside=True)
        self._writer.shift(-1)
        self._writer.line("else:")
        self._writer.line("    out_of_fuel()")
        if loop.escapes:
            self._writer.line(f"if pc != {self._here}: {'break' if place.loop else 'continue'}")
            if place.loop:
                place.loop.escapes = True
        if loop.leave is None:
            return False, None
        return self._goto(loop.leave, place)

    def _leave_of(self, header: int, body: set[int]) -> int | None:
        """The block after a loop: where every way out of it meets, or else the largest of its ways out."""
        at = self._graph.postdominator.get(header, _EXIT)
        while at in body:
            at = self._graph.postdominator.get(at, _EXIT)
        if at != _EXIT:
            return at
        exits = {to for one in body for to in self._next[one] if to not in body}
        return max(exits, key=lambda to: (len(self._next[to]), self._size[to], -to)) if exits else None

    def _leave(self, at: int, place: Place) -> tuple[bool, int | None]:
        """The jump that ends a block."""
        following = self._next[at]
        if not following:
            return False, None
        if len(following) == 1 or following[0] == following[1]:
            return self._goto(following[0], place, at)
        taken, fall = following
        meeting = self._meeting(at, place)
        if meeting is not None:
            inner = Place(meeting, place.loop, place.depth, place.open)
            self._both(at, taken, fall, inner, meeting)
            return self._goto(meeting, place)
        self._writer.line(f"if {self._writer.condition(at, False)}:")
        if not self._arm(taken, place, at):
            return self._goto(fall, place, at)
        self._writer.line("else:")
        self._arm(fall, place, at)
        return True, None

    def _both(self, at: int, taken: int, fall: int, place: Place, meeting: int) -> None:
        """An if whose sides meet again."""
        if taken == meeting:
            self._writer.line(f"if {self._writer.condition(at, True)}:")
            self._arm(fall, place, at)
            return
        self._writer.line(f"if {self._writer.condition(at, False)}:")
        self._arm(taken, place, at)
        if fall != meeting:
            self._writer.line("else:")
            self._arm(fall, place, at)

    def _meeting(self, at: int, place: Place) -> int | None:
        """The block where both sides of the branch meet, if the text may go on there after the if."""
        meeting = self._graph.postdominator.get(at, _EXIT)
        if meeting == _EXIT or meeting == place.follow or meeting in self._heads or meeting in place.open:
            return None
        if place.loop is not None:
            if meeting not in place.loop.body or meeting == place.loop.header:
                return None
        return meeting

    def _goto(self, to: int, place: Place, source: int | None = None) -> tuple[bool, int | None]:
        """Gets to a block: by text, or by writing it here. Whether the text falls off its end; what to write next.

        `source` is the block that is left, None where several ways come together here.
        """
        loop = place.loop
        self._source = source
        if to == place.follow:
            return True, None
        if loop is not None and to == loop.header:
            self._writer.line("continue")
            return False, None
        if loop is not None and to == loop.leave:
            self._writer.line("break")
            return False, None
        if to in self._heads:
            return self._goto_head(to, loop)
        crowded = place.depth > _MAX_INDENT or (self._written.get(to) and self._budget < 0)
        if to in place.open or crowded:
            raise _NeedsHeadError(to)
        return False, to

    def _goto_head(self, to: int, loop: Loop | None) -> tuple[bool, int | None]:
        number = self._heads.index(to)
        if loop is None:
            self._writer.line(f"pc = {number}")
            self._writer.line("continue")
            return False, None
        if number == self._here:
            # After the loop `pc` could not tell this jump from the loop's own end.
            raise _NeedsHeadError(loop.header)
        loop.escapes = True
        self._writer.line(f"pc = {number}")
        self._writer.line("break")
        return False, None
