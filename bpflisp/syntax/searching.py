"""Functions of Common Lisp that look for elements of sequences: `find`, `position`, `remove`, `search` and their kin.

Each takes the keywords that it has in Common Lisp: `:test`, `:test-not`, `:key`, `:start`, `:end`, `:from-end`,
`:count`. A keyword that a function does not have is refused, and not passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bpflisp.syntax.data import Function, eql, keywords_of, like, sequence, truth
from bpflisp.syntax.forms import NIL, Cons, Symbol, cells, elements, lisp_list, text

if TYPE_CHECKING:
    from bpflisp.syntax.evaluator import Interpreter

Holds = Callable[[Any], bool]
Same = Callable[[Any, Any], bool]

_WINDOW = ("KEY", "START", "END", "FROM-END")
_TESTS = ("TEST", "TEST-NOT", "KEY")


def options_of(rest: tuple[Any, ...], *known: str) -> dict[str, Any]:
    """The keyword arguments of a call; one that is not known is a TypeError. What is nil is as if not given."""
    given = keywords_of(rest)
    for name in given:
        if name not in known:
            there_are = " ".join(f":{each.lower()}" for each in dict.fromkeys(known))
            raise TypeError(f"there is no keyword `:{name.lower()}`; there are {there_are}")
    return {name: value for name, value in given.items() if value is not NIL}


@dataclass(slots=True)
class _Window:
    """The part of a sequence that a function looks at, in the order in which it looks."""

    values: list[Any]
    start: int
    end: int
    backwards: bool

    @property
    def places(self) -> Iterable[int]:
        places = range(self.start, self.end)
        return reversed(places) if self.backwards else places


def window(items: Any, options: dict[str, Any], suffix: str = "") -> _Window:
    """The elements that `:start` and `:end` leave of a sequence."""
    values = sequence(items)
    start, end = options.get(f"START{suffix}", 0), options.get(f"END{suffix}", len(values))
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start <= end <= len(values)):
        raise ValueError(f"{text(start)} to {text(end)} is no part of a sequence of {len(values)} elements")
    return _Window(values, start, end, "FROM-END" in options)


def search_window(items: Any, options: dict[str, Any], suffix: str) -> list[Any]:
    """The elements themselves."""
    found = window(items, options, suffix)
    return found.values[found.start : found.end]


class _Searching:
    """Functions that take functions: they need the interpreter to resolve names."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.interpreter = interpreter

    def _key(self, options: dict[str, Any]) -> Callable[[Any], Any]:
        if "KEY" not in options:
            return lambda item: item
        return self.interpreter.function(options["KEY"])

    def _same(self, options: dict[str, Any]) -> Same:
        """Whether an item is the same as an element, whose key is taken."""
        key = self._key(options)
        if "TEST-NOT" in options:
            differs = self.interpreter.function(options["TEST-NOT"])
            return lambda item, element: differs(item, key(element)) is NIL
        if "TEST" not in options:
            return lambda item, element: eql(item, key(element))
        test = self.interpreter.function(options["TEST"])
        return lambda item, element: test(item, key(element)) is not NIL

    def _item(self, item: Any, options: dict[str, Any]) -> Holds:
        same = self._same(options)
        return lambda element: same(item, element)

    def _if(self, test: Any, options: dict[str, Any], holds: bool = True) -> Holds:
        chosen, key = self.interpreter.function(test), self._key(options)
        return lambda element: (chosen(key(element)) is not NIL) is holds

    # The first that is found

    @staticmethod
    def _first(items: Any, options: dict[str, Any], holds: Holds) -> tuple[object, object]:
        part = window(items, options)
        at = next((at for at in part.places if holds(part.values[at])), None)
        return (NIL, NIL) if at is None else (part.values[at], at)

    def find(self, item: Any, items: Any, *rest: Any) -> object:
        options = options_of(rest, *_TESTS, *_WINDOW)
        return self._first(items, options, self._item(item, options))[0]

    def find_if(self, test: Any, items: Any, *rest: Any) -> object:
        options = options_of(rest, *_WINDOW)
        return self._first(items, options, self._if(test, options))[0]

    def find_if_not(self, test: Any, items: Any, *rest: Any) -> object:
        options = options_of(rest, *_WINDOW)
        return self._first(items, options, self._if(test, options, False))[0]

    def position(self, item: Any, items: Any, *rest: Any) -> object:
        options = options_of(rest, *_TESTS, *_WINDOW)
        return self._first(items, options, self._item(item, options))[1]

    def position_if(self, test: Any, items: Any, *rest: Any) -> object:
        options = options_of(rest, *_WINDOW)
        return self._first(items, options, self._if(test, options))[1]

    def position_if_not(self, test: Any, items: Any, *rest: Any) -> object:
        options = options_of(rest, *_WINDOW)
        return self._first(items, options, self._if(test, options, False))[1]

    # All that are found

    @staticmethod
    def _all(items: Any, options: dict[str, Any], holds: Holds) -> set[int]:
        """Where the elements are, `:count` of them at most."""
        part = window(items, options)
        found = [at for at in part.places if holds(part.values[at])]
        return set(found[: max(options["COUNT"], 0)] if "COUNT" in options else found)

    def count(self, item: Any, items: Any, *rest: Any) -> object:
        options = options_of(rest, *_TESTS, *_WINDOW)
        return len(self._all(items, options, self._item(item, options)))

    def count_if(self, test: Any, items: Any, *rest: Any) -> object:
        options = options_of(rest, *_WINDOW)
        return len(self._all(items, options, self._if(test, options)))

    def count_if_not(self, test: Any, items: Any, *rest: Any) -> object:
        options = options_of(rest, *_WINDOW)
        return len(self._all(items, options, self._if(test, options, False)))

    def _without(self, items: Any, options: dict[str, Any], holds: Holds) -> object:
        gone = self._all(items, options, holds)
        return like(items, [value for at, value in enumerate(sequence(items)) if at not in gone])

    def remove(self, item: Any, items: Any, *rest: Any) -> object:
        options = options_of(rest, *_TESTS, *_WINDOW, "COUNT")
        return self._without(items, options, self._item(item, options))

    def remove_if(self, test: Any, items: Any, *rest: Any) -> object:
        options = options_of(rest, *_WINDOW, "COUNT")
        return self._without(items, options, self._if(test, options))

    def remove_if_not(self, test: Any, items: Any, *rest: Any) -> object:
        options = options_of(rest, *_WINDOW, "COUNT")
        return self._without(items, options, self._if(test, options, False))

    def _with(self, new: Any, items: Any, options: dict[str, Any], holds: Holds) -> object:
        changed = self._all(items, options, holds)
        return like(items, [new if at in changed else value for at, value in enumerate(sequence(items))])

    def substitute(self, new: Any, old: Any, items: Any, *rest: Any) -> object:
        options = options_of(rest, *_TESTS, *_WINDOW, "COUNT")
        return self._with(new, items, options, self._item(old, options))

    def substitute_if(self, new: Any, test: Any, items: Any, *rest: Any) -> object:
        options = options_of(rest, *_WINDOW, "COUNT")
        return self._with(new, items, options, self._if(test, options))

    def remove_duplicates(self, items: Any, *rest: Any) -> object:
        """Of what is equal, the last stays; from the end, the first."""
        options = options_of(rest, *_TESTS, *_WINDOW)
        part, same, key = window(items, options), self._same(options), self._key(options)
        kept: list[int] = []
        order = range(part.start, part.end) if part.backwards else reversed(range(part.start, part.end))
        for at in order:
            if not any(same(key(part.values[at]), part.values[other]) for other in kept):
                kept.append(at)
        inside = set(kept) | set(range(part.start)) | set(range(part.end, len(part.values)))
        return like(items, [value for at, value in enumerate(part.values) if at in inside])

    # Lists

    def member(self, item: Any, items: Any, *rest: Any) -> object:
        same = self._item(item, options_of(rest, *_TESTS))
        return next((cell for cell in cells(items) if same(cell.car)), NIL)

    def member_if(self, test: Any, items: Any, *rest: Any) -> object:
        """The rest of the list from the first element that passes."""
        holds = self._if(test, options_of(rest, "KEY"))
        return next((cell for cell in cells(items) if holds(cell.car)), NIL)

    @staticmethod
    def _pair(pairs: Any, holds: Holds) -> object:
        return next((pair for pair in elements(pairs) if isinstance(pair, Cons) and holds(pair)), NIL)

    def assoc(self, item: Any, pairs: Any, *rest: Any) -> object:
        same = self._item(item, options_of(rest, *_TESTS))
        return self._pair(pairs, lambda pair: same(pair.car))

    def rassoc(self, item: Any, pairs: Any, *rest: Any) -> object:
        same = self._item(item, options_of(rest, *_TESTS))
        return self._pair(pairs, lambda pair: same(pair.cdr))

    def assoc_if(self, test: Any, pairs: Any, *rest: Any) -> object:
        """The first pair whose key passes."""
        holds = self._if(test, options_of(rest, "KEY"))
        return self._pair(pairs, lambda pair: holds(pair.car))

    def rassoc_if(self, test: Any, pairs: Any, *rest: Any) -> object:
        """The first pair whose value passes."""
        holds = self._if(test, options_of(rest, "KEY"))
        return self._pair(pairs, lambda pair: holds(pair.cdr))

    # Lists as sets

    def _within(self, rest: tuple[Any, ...]) -> Callable[[Any, list[Any]], bool]:
        options = options_of(rest, *_TESTS)
        same, key = self._same(options), self._key(options)
        return lambda item, others: any(same(key(item), other) for other in others)

    def adjoin(self, item: Any, items: Any, *rest: Any) -> object:
        return items if self._within(rest)(item, elements(items)) else Cons(item, items)

    def union(self, a: Any, b: Any, *rest: Any) -> object:
        within, items = self._within(rest), elements(a)
        return lisp_list(items + [item for item in elements(b) if not within(item, items)])

    def intersection(self, a: Any, b: Any, *rest: Any) -> object:
        within, others = self._within(rest), elements(b)
        return lisp_list(item for item in elements(a) if within(item, others))

    def set_difference(self, a: Any, b: Any, *rest: Any) -> object:
        within, others = self._within(rest), elements(b)
        return lisp_list(item for item in elements(a) if not within(item, others))

    def set_exclusive_or(self, a: Any, b: Any, *rest: Any) -> object:
        within, left, right = self._within(rest), elements(a), elements(b)
        only = [item for item in left if not within(item, right)]
        return lisp_list(only + [item for item in right if not within(item, left)])

    def subsetp(self, a: Any, b: Any, *rest: Any) -> object:
        within, others = self._within(rest), elements(b)
        return truth(all(within(item, others) for item in elements(a)))

    # Sequences in sequences

    def search(self, part: Any, whole: Any, *rest: Any) -> object:
        """Where the one begins in the other."""
        options = options_of(rest, *_TESTS, "START1", "END1", "START2", "END2", "FROM-END")
        part, whole = (each.name if isinstance(each, Symbol) and each is not NIL else each for each in (part, whole))
        wanted, same, key = search_window(part, options, "1"), self._same(options), self._key(options)
        inside = window(whole, options, "2")
        inside.end -= len(wanted) - 1
        keys = [key(item) for item in wanted]
        for at in inside.places:
            if all(same(item, other) for item, other in zip(keys, inside.values[at:], strict=False)):
                return at
        return NIL

    def mismatch(self, a: Any, b: Any, *rest: Any) -> object:
        """Where the one differs from the other."""
        options = options_of(rest, *_TESTS, "START1", "END1", "START2", "END2")
        same, key = self._same(options), self._key(options)
        left, right = search_window(a, options, "1"), search_window(b, options, "2")
        start = options.get("START1", 0)
        for at, (one, other) in enumerate(zip(left, right, strict=False)):
            if not same(key(one), other):
                return start + at
        return NIL if len(left) == len(right) else start + min(len(left), len(right))

    def subst(self, new: Any, old: Any, tree: Any, *rest: Any) -> Any:
        same = self._item(old, options_of(rest, *_TESTS))

        def changed(part: Any) -> Any:
            if same(part):
                return new
            return Cons(changed(part.car), changed(part.cdr)) if isinstance(part, Cons) else part

        return changed(tree)


_OTHER_NAMES = {
    "DELETE": "REMOVE", "DELETE-IF": "REMOVE-IF", "DELETE-IF-NOT": "REMOVE-IF-NOT", "NSUBSTITUTE": "SUBSTITUTE",
    "DELETE-DUPLICATES": "REMOVE-DUPLICATES", "NUNION": "UNION", "NINTERSECTION": "INTERSECTION", "NSUBST": "SUBST",
    "NSET-DIFFERENCE": "SET-DIFFERENCE",
}  # fmt: skip


def functions(interpreter: Interpreter) -> dict[str, Function]:
    """All of them, by upper-case name."""
    library = _Searching(interpreter)
    names = [name for name in vars(_Searching) if not name.startswith("_")]
    table: dict[str, Function] = {name.upper().replace("_", "-"): getattr(library, name) for name in names}
    return table | {other: table[name] for other, name in _OTHER_NAMES.items()}
