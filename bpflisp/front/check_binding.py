"""Variables: `let`, `let*`, `declare`, `when-let`, `if-let`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bpflisp.diagnostics import Span
from bpflisp.front import tree
from bpflisp.front.check import CORE, Checker, core, library
from bpflisp.front.check_arithmetic import extend, is_zero
from bpflisp.front.tree import Local, Tree
from bpflisp.front.types import C_SPELLINGS, NEVER, U64, UNKNOWN, Never, Number, Pointer, join
from bpflisp.lean import dataclass, replace
from bpflisp.syntax.forms import NIL, Cons, Symbol, T, cells, element_span, elements, fail, intern, text

_DECLARE = intern("DECLARE")


@dataclass(slots=True)
class _Binding:
    """One binding as it is written: the name, the type if one is given, the cell of the initial value if there is."""

    name: Symbol
    kind: Number | None
    init: Cons | None
    span: Span | None
    written: bool


def parameter(checker: Checker, cell: Cons) -> _Binding:
    """A local function's parameter: `name` or `(name TYPE)`."""
    if isinstance(cell.car, Symbol):
        return _binding(checker, Cons(Cons(cell.car, NIL, None, cell.car_span), NIL), cell)
    binding = _binding(checker, cell, cell)
    if binding.init is not None:
        raise fail("bad-parameter", f"`{text(cell.car, 60)}` is not name, or (name TYPE)", element_span(cell))
    return binding


def _bindings(checker: Checker, cell: Cons) -> list[_Binding]:
    listed = cell.car
    if listed is not NIL and not isinstance(listed, Cons):
        raise fail(
            "bad-binding", f"`{text(listed)}` is no list of bindings", element_span(cell), help="((name value) ...)"
        )
    return [_binding(checker, each, cell) for each in cells(listed)]


def _binding(checker: Checker, cell: Cons, whole: Cons) -> _Binding:
    if not isinstance(cell.car, Cons):
        raise fail(
            "bad-binding",
            f"`{text(cell.car)}` is no binding: a binding is (name value)",
            element_span(cell) or element_span(whole),
            help=f"two parentheses: (let ({text(whole.car, 60)}) ...)" if isinstance(whole.car, Cons) else "",
        )
    elements(cell.car)  # refuses a dotted one
    parts = list(cells(cell.car))
    name = parts[0].car
    if not isinstance(name, Symbol) or name in (NIL, T) or name.is_keyword:
        raise fail(
            "bad-name", f"a variable needs a name, not `{text(name)}`", element_span(parts[0]) or element_span(cell)
        )
    if name in checker.unit.interpreter.constants:
        raise fail("bad-name", f"`{text(name)}` is a constant, and cannot be bound", element_span(parts[0]))
    if len(parts) > 3:
        raise fail("bad-binding", f"`{text(cell.car, 80)}` is not (name [type] [value])", element_span(cell))
    kind: Number | None = None
    rest = parts[1:]
    named = checker.scalar_named(rest[0].car.name) if rest and isinstance(rest[0].car, Symbol) else None
    if named is not None:
        kind, rest = named, rest[1:]
    elif len(rest) == 2 and name.name in CORE:
        problem = f"`{text(cell.car, 60)}` stands among the bindings"
        raise fail("bad-binding", problem, element_span(cell), help="a parenthesis that ends them is missing before it")
    elif len(rest) == 2:
        shown = text(rest[0].car, 40)
        spelt = C_SPELLINGS.get(shown.upper().replace("-", "_"))
        help = f"`{shown}` is written `{spelt}` here" if spelt else "a binding is (name [type] [value])"
        raise fail("unknown-type", f"`{shown}` is no scalar type", element_span(rest[0]), help=help)
    own = cell.car.span is not None
    span = element_span(parts[0]) or element_span(cell)
    return _Binding(name, kind, rest[0] if rest else None, span, own)


def typed_by_declarations(checker: Checker, body: object) -> tuple[dict[Symbol, Number], set[Symbol], object]:
    """Types and ignored names of the declarations at the head of a body, and the body after them."""
    types: dict[Symbol, Number] = {}
    ignored: set[Symbol] = set()
    while isinstance(body, Cons) and isinstance(body.car, Cons) and body.car.car is _DECLARE:
        for spec in cells(body.car.cdr):
            if isinstance(spec.car, Cons):
                _declaration(checker, spec.car, types, ignored)
        body = body.cdr
    return types, ignored, body


def _declaration(checker: Checker, spec: Cons, types: dict[Symbol, Number], ignored: set[Symbol]) -> None:
    words = list(cells(spec))
    head = spec.car.name if isinstance(spec.car, Symbol) else ""
    if head == "TYPE" and len(words) > 1:
        kind = checker.scalar_type(words[1])
        types.update({word.car: kind for word in words[2:] if isinstance(word.car, Symbol)})
    elif (named := checker.scalar_named(head)) is not None:
        types.update({word.car: named for word in words[1:] if isinstance(word.car, Symbol)})
    elif head in ("IGNORE", "IGNORABLE"):
        ignored.update(word.car for word in words[1:] if isinstance(word.car, Symbol))


def make_local(
    checker: Checker, binding: _Binding, value: Tree, declared: Number | None, ignored: bool = False
) -> tree.Assign:
    """The variable of a binding, and the assignment of its first value. The variable is not in scope yet."""
    local = Local(binding.name.name, value.type, declared, binding.span if binding.written and not ignored else None)
    return assign(checker, local, value, binding.span, first=True)


def assign(checker: Checker, local: Local, value: Tree, span: Span | None, first: bool = False) -> tree.Assign:
    """Give a variable a value, as its declared type has it; what is known of the variable follows."""
    if isinstance(value.type, Never):
        local.type = U64
        return tree.Assign(local=local, value=value, type=NEVER, span=checker.span)
    kind = local.declared
    if kind is not None and isinstance(value.type, Pointer) and kind.bits < 64:
        problem = f"{value.type.name} does not fit into `{local.name.lower()}`, a {kind.name}"
        raise fail("narrow-pointer", problem, span)
    if kind is not None and not isinstance(value.type, Pointer):
        _check_literal(checker, local, value, span)
        value = extend(value, kind)
    new = kind if kind is not None and isinstance(value.type, Number) else value.type
    local.type = new if first else join(local.type, new, False, is_zero(value))
    local.assigned = local.assigned or not first
    return tree.Assign(local=local, value=value, type=local.type, span=checker.span)


def _check_literal(checker: Checker, local: Local, value: Tree, span: Span | None) -> None:
    kind = local.declared
    if kind is None or not isinstance(value, tree.Number) or value.type is UNKNOWN:
        return
    number = value.value - (1 << 64) if value.value >> 63 else value.value
    if kind.bits < 64 and not kind.holds(number):
        checker.warn("truncated", f"{value.value} does not fit into `{local.name.lower()}`, a {kind.name}", span)


def _initial(checker: Checker, binding: _Binding, unseen: Sequence[Symbol] = ()) -> Tree:
    """What a variable is bound to first; `unseen` is what the same form binds before it."""
    if binding.init is None:
        return tree.Number(value=0, span=checker.span)
    outer, checker.binding = checker.binding, unseen
    try:
        return checker.value(binding.init)
    finally:
        checker.binding = outer


@core("let", "let*")
def _let(checker: Checker, form: Cons) -> Tree:
    args = checker.args(form, 1)
    bindings = _bindings(checker, args[0])
    types, ignored, body = typed_by_declarations(checker, form.cdr.cdr if isinstance(form.cdr, Cons) else NIL)
    items: list[Tree] = []
    assert isinstance(form.car, Symbol)
    sequential = form.car.name == "LET*"
    with checker.scope() as outer:
        made: list[tuple[Symbol, Local]] = []
        for binding in bindings:
            declared = binding.kind or types.get(binding.name)
            value = _initial(checker, binding, () if sequential else [name for name, _ in made])
            item = make_local(checker, binding, value, declared, binding.name in ignored)
            items.append(item)
            made.append((binding.name, item.local))
            if sequential:
                _enter(checker, outer, binding.name, item.local)
        if not sequential:
            for name, local in made:
                if name in outer:
                    raise fail(
                        "duplicate", f"`{text(name)}` is bound twice in one `let`", local.span, help="`let*` may"
                    )
                outer[name] = local
        result = checker.progn(body)
    return _sequence(checker, [*items, result])


def _enter(checker: Checker, scope: dict[Symbol, Local], name: Symbol, local: Local) -> None:
    """Make a variable known; one of the same name before it in a `let*` is no longer seen, and not warned of."""
    if name in scope and not scope[name].reads and scope[name].span:
        checker.warn("unused-variable", f"the variable `{text(name)}` is never read", scope[name].span)
    scope[name] = local


def _sequence(checker: Checker, items: Sequence[Tree]) -> Tree:
    never = any(isinstance(item.type, Never) for item in items)
    return tree.Progn(items=items, type=NEVER if never else items[-1].type, span=checker.span)


@library("when-let", "when-let*")
def _when_let(checker: Checker, form: Cons) -> Tree:
    """Nested: each variable is bound, and tested, before the next."""
    args = checker.args(form, 1)
    assert isinstance(form.cdr, Cons)
    types, ignored, body = typed_by_declarations(checker, form.cdr.cdr)
    bindings = _bindings(checker, args[0])
    for binding in bindings:
        binding.kind = binding.kind or types.get(binding.name)
        binding.written = binding.written and binding.name not in ignored
    return _tested(checker, bindings, lambda: checker.progn(body), None)


@library("if-let")
def _if_let(checker: Checker, form: Cons) -> Tree:
    """One binding, `(name [type] value)` or that in a list; the other form does not see it."""
    args = checker.args(form, 2, 3)
    listed = args[0].car
    single = isinstance(listed, Cons) and not isinstance(listed.car, Cons)
    bindings = [_binding(checker, args[0], args[0])] if single else _bindings(checker, args[0])
    if len(bindings) != 1:
        raise fail("bad-binding", f"`if-let` takes one binding, not {len(bindings)}", element_span(args[0]))
    return _tested(checker, bindings, lambda: checker.value(args[1]), args[2] if len(args) > 2 else None)


def _tested(checker: Checker, bindings: Sequence[_Binding], body: Callable[[], Tree], other: Cons | None) -> Tree:
    """Where every binding is not 0, the body, else 0; of a single binding, else the other form."""
    if not bindings:
        return body()
    binding, *rest = bindings
    with checker.scope() as scope:
        item = make_local(checker, binding, _initial(checker, binding), binding.kind)
        local = item.local
        test = tree.Read(local=local, type=local.type, span=binding.span)
        if isinstance(local.type, Pointer):
            local.type = replace(local.type, maybe_null=False)
        scope[binding.name] = local
        inner = _tested(checker, rest, body, None)
    alternative = checker.value(other) if other else tree.Number(value=0, span=checker.span)
    kind = join(inner.type, alternative.type, is_zero(inner), is_zero(alternative))
    chosen = tree.If(test=test, then=inner, other=alternative, type=kind, span=checker.span)
    return _sequence(checker, [item, chosen])
