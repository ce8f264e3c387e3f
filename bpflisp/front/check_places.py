"""Places: what `setf`, `incf` and `decf` assign to. The parts of a place are evaluated once, from left to right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bpflisp.front import hints, tree
from bpflisp.front.check import TOLD, Checker, core, require_writable
from bpflisp.front.check_arithmetic import binary, extend, head_of, swap
from bpflisp.front.check_binding import assign
from bpflisp.front.tree import Local, Tree
from bpflisp.front.types import NEVER, U64, ArrayOf, Never, Number, Pointer, Struct
from bpflisp.lean import dataclass, field, replace
from bpflisp.spec.isa import Op
from bpflisp.syntax.forms import NIL, Cons, Symbol, T, element_span, fail, text


@dataclass(slots=True)
class Place:
    """How to read a place and how to write it; `setup` runs once before either."""

    read: Callable[[], Tree]
    write: Callable[[Tree], Tree]
    setup: list[Tree] = field(default_factory=list)


PlaceMaker = Callable[[Checker, Cons, bool], Place]

PLACES: dict[str, PlaceMaker] = {}
"""Head of a place -> what makes it. The flag says that the place is read and written."""

COUNTERS: dict[str, Callable[[Checker, Cons, Tree], Tree]] = {}
"""Head of a place that counts in its own way -> what adds a value to it."""


def place(*names: str) -> Callable[[PlaceMaker], PlaceMaker]:
    """Decorator: forms of these names are places."""

    def register(maker: PlaceMaker) -> PlaceMaker:
        for name in names:
            PLACES[name.upper()] = maker
        return maker

    return register


def once(checker: Checker, value: Tree, setup: list[Tree], name: str = "address") -> Tree:
    """A value as a tree that may be used twice: bound to a hidden variable, unless it is a constant or a variable."""
    if isinstance(value, tree.Number | tree.Context | tree.MapAddress):
        return value
    local = Local(name, value.type)
    setup.append(tree.Assign(local=local, value=value, type=value.type, span=value.span))
    return tree.Read(local=local, type=value.type, span=value.span)


def memory(checker: Checker, address: Tree, off: int, kind: Number, swapped: bool, twice: bool, what: Cons) -> Place:
    """The place of a number in memory; `swapped` where it is kept in network order."""
    setup: list[Tree] = []
    require_writable(address, what)
    base = once(checker, address, setup) if twice else address

    def read() -> Tree:
        return loaded(checker, base, off, kind, swapped)

    def write(value: Tree) -> Tree:
        stored = swap(value, kind.bits) if swapped else value
        return tree.Store(address=base, off=off, size=kind.size, value=stored, type=value.type, span=checker.span)

    return Place(read, write, setup)


def loaded(checker: Checker, address: Tree, off: int, kind: Number, swapped: bool = False) -> Tree:
    """A number in memory."""
    load = tree.Load(address=address, off=off, size=kind.size, signed=kind.signed, type=kind, span=checker.span)
    if not swapped:
        return load
    node = tree.Swap(operand=load, bits=kind.bits, type=Number(kind.bits), span=checker.span)
    return extend(node, kind)


def pointer_to(address: Tree, off: int, kind: Number | ArrayOf | Struct) -> Tree:
    """The address of a member, or of an element."""
    node = binary(Op.ADD, address, tree.Number(value=off)) if off else address
    if isinstance(address.type, Pointer):
        struct = kind if isinstance(kind, Struct) else None
        moved = replace(address.type, struct=struct, size=kind.size, maybe_null=False)
        if isinstance(node.type, Pointer):
            moved = replace(moved, align=node.type.align)
        if node is address:
            node = tree.Progn(items=[address], span=address.span)
        node.type = moved
    return node


def _variable(checker: Checker, name: Symbol, cell: Cons) -> Place:
    local = checker.find(name)
    span = element_span(cell)
    if name in checker.unit.interpreter.constants or name in (NIL, T) or name.is_keyword:
        raise fail("constant-assigned", f"`{text(name)}` is a constant, and cannot be assigned to", span)
    if local is None and name.name in checker.unit.globals:
        from bpflisp.front import check_objects

        return check_objects.global_place(checker, checker.unit.globals[name.name], cell)
    if local is None and checker.is_lost(name):
        raise TOLD
    if local is None:
        known = sorted({text(each) for scope in checker.scopes for each in scope if each.interned})
        help = ("bound here: " + " ".join(known) + "; " if known else "") + f"(let (({text(name)} ...)) ...) binds it"
        raise fail("unknown-variable", f"`{text(name)}` is no variable that is bound here", span, help=help)
    found = local

    def read() -> Tree:
        found.reads += 1
        return tree.Read(local=found, type=found.type, span=checker.span)

    return Place(read, lambda value: assign(checker, found, value, span))


def find_place(checker: Checker, cell: Cons, twice: bool) -> Place:
    """The place that an argument names; macros in its head are expanded."""
    form = _expanded_place(checker, cell.car)
    if isinstance(form, Symbol):
        return _variable(checker, form, cell)
    if isinstance(form, Cons) and isinstance(form.car, Symbol):
        name = form.car.name
        maker = PLACES.get(name) or _defined_place(checker, name)
        if maker is not None:
            return maker(checker, form, twice)
        if form.car in checker.unit.interpreter.setfs:
            return _by_defsetf(checker, form)
        if checker.unit.is_broken(name):
            raise TOLD
    shown = text(cell.car, 60)
    help = hints.place(checker.unit, form)
    raise fail("bad-place", f"`{shown}` is no place that can be assigned to", element_span(cell), help=help)


def _by_defsetf(checker: Checker, form: Cons) -> Place:
    """A place that `defsetf` defines: writing is the form that it makes of the new value and the place's arguments."""
    assert isinstance(form.car, Symbol)
    interpreter = checker.unit.interpreter
    macro = interpreter.setfs[form.car]

    def write(value: Tree) -> Tree:
        name, local = interpreter.gensym("new"), Local("new", value.type)
        bind = tree.Assign(local=local, value=value, type=value.type, span=value.span)
        with checker.scope() as scope:
            scope[name] = local
            written = checker.form(interpreter.expand_with(macro, Cons(form.car, Cons(name, form.cdr), form.span)))
        return sequence(checker, [bind, written])

    return Place(lambda: checker.form(form), write)


def _defined_place(checker: Checker, name: str) -> PlaceMaker | None:
    """A place that the file's structs define, or that a header is."""
    from bpflisp.front import check_headers, check_structs

    if name in checker.unit.accessors:
        return check_structs.accessor_place
    known = name in checker.unit.headers or name in check_headers.ACCESSORS
    return check_headers.header_place if known else None


def _expanded_place(checker: Checker, form: object) -> object:
    while isinstance(form, Symbol) and (cell := checker.symbol_macro(form)) is not None:
        checker.count_expansion(cell)
        form = cell.car
    while (
        isinstance(form, Cons)
        and isinstance(form.car, Symbol)
        and form.car.name not in PLACES
        and form.car not in checker.unit.interpreter.setfs
        and form.car in checker.unit.interpreter.macros
    ):
        checker.count_expansion(form)
        form = checker.unit.interpreter.macroexpand_1(form)
    return form


@core("setf")
def _setf(checker: Checker, form: Cons) -> Tree:
    """`(setf place value ...)`, one after the other; its value is the last one stored."""
    args = checker.args(form, 0)
    if len(args) % 2:
        raise fail(
            "odd-setf",
            f"`setf` takes places and values in pairs, and the last place has no value: `{text(args[-1].car, 40)}`",
            because=f"there are {len(args)} arguments",
        )
    items: list[Tree] = []
    for target, init in zip(args[::2], args[1::2], strict=True):
        # Each pair is a statement of its own, with a line of its own.
        with checker.at(target):
            found = find_place(checker, target, False)
        value = checker.value(init)
        with checker.at(target):
            items += [*found.setup, found.write(value)]
    return sequence(checker, items)


def sequence(checker: Checker, items: Sequence[Tree]) -> Tree:
    """Trees one after the other."""
    if not items:
        return tree.Number(value=0, span=checker.span)
    never = any(isinstance(item.type, Never) for item in items)
    return tree.Progn(items=items, type=NEVER if never else items[-1].type, span=checker.span)


@core("incf", "decf")
def _incf(checker: Checker, form: Cons) -> Tree:
    """`(incf place [by 1])`; a map's value is counted in the map's own way."""
    args = checker.args(form, 1, 2)
    adding = head_of(form) == "INCF"
    target = _expanded_place(checker, args[0].car)
    head = target.car.name if isinstance(target, Cons) and isinstance(target.car, Symbol) else ""
    if head in COUNTERS:
        assert isinstance(target, Cons)
        return COUNTERS[head](checker, target, _delta(checker, args, adding))
    found = find_place(checker, args[0], True)
    old = found.read()
    step = checker.value(args[1]) if len(args) > 1 else tree.Number(value=1, type=U64, span=checker.span)
    new = binary(Op.ADD if adding else Op.SUB, old, step)
    return sequence(checker, [*found.setup, found.write(new)])


def _delta(checker: Checker, args: Sequence[Cons], adding: bool) -> Tree:
    step: Tree = tree.Number(value=1, type=U64, span=checker.span)
    if len(args) > 1:
        step = checker.value(args[1])
    return step if adding else binary(Op.SUB, tree.Number(value=0), step)
