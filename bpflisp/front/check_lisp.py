"""What the reader of Common Lisp expects, and the book leaves out: `setq`, `1+`, `min`, `prog1` and so on.

They mean what they do there, as far as a word of 64 bits has it: numbers are compared unsigned, truth is 1 or 0. A
program that defines such a name as a macro or subprogram of its own means its own.
"""

from __future__ import annotations

from bpflisp.front import tree
from bpflisp.front.check import Checker, library
from bpflisp.front.check_arithmetic import binary, compare, head_of, with_span
from bpflisp.front.check_control import choose
from bpflisp.front.check_places import find_place, once, sequence
from bpflisp.front.tree import Tree
from bpflisp.front.types import Never
from bpflisp.spec.isa import Op
from bpflisp.syntax.forms import Cons, Symbol, element_span, fail, intern, text


def _number(value: int) -> Tree:
    return tree.Number(value=value & ((1 << 64) - 1))


def _only(checker: Checker, form: Cons) -> Tree:
    return checker.value(checker.args(form, 1, 1)[0])


@library("1+", "1-")
def _step(checker: Checker, form: Cons) -> Tree:
    op = Op.ADD if head_of(form) == "1+" else Op.SUB
    return with_span(checker, binary(op, _only(checker, form), _number(1)))


@library("lognot")
def _lognot(checker: Checker, form: Cons) -> Tree:
    return with_span(checker, binary(Op.XOR, _only(checker, form), _number(-1)))


@library("zerop", "null")
def _zerop(checker: Checker, form: Cons) -> Tree:
    return compare(Op.EQ, _only(checker, form), _number(0), checker)


@library("evenp", "oddp")
def _evenp(checker: Checker, form: Cons) -> Tree:
    bit = binary(Op.AND, _only(checker, form), _number(1))
    return bit if head_of(form) == "ODDP" else compare(Op.EQ, bit, _number(0), checker)


@library("logtest")
def _logtest(checker: Checker, form: Cons) -> Tree:
    """Whether two numbers have a bit in common."""
    left, right = (checker.value(cell) for cell in checker.args(form, 2, 2))
    return compare(Op.NE, binary(Op.AND, left, right), _number(0), checker)


@library("logbitp")
def _logbitp(checker: Checker, form: Cons) -> Tree:
    """`(logbitp index number)`: one bit; the index is below 64."""
    index, number = (checker.value(cell) for cell in checker.args(form, 2, 2))
    return with_span(checker, binary(Op.AND, binary(Op.RSH, number, index), _number(1)))


_SAME = {"EQ": "=", "EQL": "=", "REM": "MOD", "SETQ": "SETF"}


@library(*_SAME)
def _same(checker: Checker, form: Cons) -> Tree:
    """Another name of a form: of numbers and variables they are the same."""
    if head_of(form) == "SETQ":
        for cell in checker.args(form, 0)[::2]:
            if not isinstance(cell.car, Symbol):
                problem = f"`setq` assigns to variables, and `{text(cell.car, 60)}` is none"
                raise fail("bad-place", problem, element_span(cell), help="`setf` takes any place")
    return checker.form(Cons(intern(_SAME[head_of(form)]), form.cdr, form.span))


@library("min", "max")
def _min(checker: Checker, form: Cons) -> Tree:
    """The least or greatest, compared unsigned as `<` does."""
    op = Op.LE if head_of(form) == "MIN" else Op.GE
    first, *rest = [checker.value(cell) for cell in checker.args(form, 1)]
    items: list[Tree] = []
    best = first
    for value in rest:
        left, right = once(checker, best, items, "left"), once(checker, value, items, "right")
        best = choose(checker, compare(op, left, right, checker), left, right)
    return sequence(checker, [*items, best])


@library("prog1")
def _prog1(checker: Checker, form: Cons) -> Tree:
    """The value of the first form, kept over the others."""
    first, *rest = checker.args(form, 1)
    items: list[Tree] = []
    kept = once(checker, checker.value(first), items, "kept")
    items += [checker.value(cell) for cell in rest]
    return sequence(checker, [*items, kept])


@library("psetf", "psetq")
def _psetf(checker: Checker, form: Cons) -> Tree:
    """As `setf`, but every value is computed before any place is written. Its value is 0."""
    args = checker.args(form, 0)
    if len(args) % 2:
        raise fail("odd-setf", f"`{text(form.car)}` takes places and values in pairs")
    places, items = [], []
    for target, init in zip(args[::2], args[1::2], strict=True):
        place = find_place(checker, target, True)
        items += place.setup
        places.append((place, _bound(checker.value(init), items)))
    items += [place.write(value) for place, value in places]
    return sequence(checker, [*items, _number(0)])


def _bound(value: Tree, items: list[Tree]) -> Tree:
    """A value kept in a hidden variable from here on."""
    if isinstance(value.type, Never):
        items.append(value)
        return _number(0)
    local = tree.Local("value", value.type)
    items.append(tree.Assign(local=local, value=value, type=value.type, span=value.span))
    return tree.Read(local=local, type=value.type, span=value.span)


@library("rotatef")
def _rotatef(checker: Checker, form: Cons) -> Tree:
    """Each place gets the value of the next, the last that of the first. Its value is 0."""
    places = [find_place(checker, cell, True) for cell in checker.args(form, 0)]
    items = [item for place in places for item in place.setup]
    values = [_bound(place.read(), items) for place in places]
    items += [place.write(value) for place, value in zip(places, [*values[1:], *values[:1]], strict=True)]
    return sequence(checker, [*items, _number(0)])
