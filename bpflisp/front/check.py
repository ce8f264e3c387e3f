"""The checker: forms to typed tree. Every type error is found here, all of a program in one run.

A form is looked at by the handler of its head (the modules `check_*` register them); macros are expanded on the way.
An error inside a form is told and becomes a node of type `UNKNOWN`, with which nothing further can be wrong, so that
the forms beside it are still checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bpflisp.diagnostics import Diagnostic, Span, warning
from bpflisp.front import hints, tree
from bpflisp.front.objects import SubprogramDecl
from bpflisp.front.tree import Local, Tree
from bpflisp.front.types import NEVER, SCALARS, U32, U64, UNKNOWN, Number, Pointer, Region, c_name
from bpflisp.front.unit import ProgramDecl, Unit
from bpflisp.lean import dataclass, field, replace
from bpflisp.syntax.forms import (
    NIL,
    UNQUOTE,
    UNQUOTE_SPLICING,
    Character,
    Cons,
    FormError,
    Symbol,
    T,
    cells,
    element_span,
    fail,
    intern,
    text,
)

_FAMILIES = {"XDP_": ("xdp",), "TC_ACT_": ("sched_cls", "sched_act")}
"""How constants begin -> the types of programs that return them."""

MAX_EXPANSIONS = 200
"""How deeply expansions may nest: a macro that expands into itself goes beyond any number."""

MAX_FORMS = 200_000
"""How many forms a program may have once its macros are expanded."""

Handler = Callable[["Checker", Cons], Tree]

CORE: dict[str, Handler] = {}
"""Forms of the language: they mean the same whatever macros the user defines."""

LIBRARY: dict[str, Handler] = {}
"""Forms that a user's macro or struct of the same name takes precedence over."""


def core(*names: str) -> Callable[[Handler], Handler]:
    """Decorator: this function checks the forms of these names."""
    return _register(CORE, names)


def library(*names: str) -> Callable[[Handler], Handler]:
    """Decorator: the same, for a name that a program may define otherwise."""
    return _register(LIBRARY, names)


def _register(table: dict[str, Handler], names: Sequence[str]) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        for name in names:
            table[name.upper()] = handler
        return handler

    return register


@dataclass(slots=True)
class Checker:
    """Checks one function's body.

    `records`: the variables of the records that are held, and whether one is released by name somewhere. `binding`:
    what the `let` that is being read binds, and its initial values do not see. `lost`: what forms with an error would
    have bound.
    """

    unit: Unit
    program: ProgramDecl
    scopes: list[dict[Symbol, Local]] = field(default_factory=list)
    cleanups: list[Tree] = field(default_factory=list)
    records: dict[Local, bool] = field(default_factory=dict)
    loops: list[tree.LoopMark] = field(default_factory=list)
    blocks: list[tree.BlockMark] = field(default_factory=list)
    binding: Sequence[Symbol] = ()
    lost: set[Symbol] = field(default_factory=set)
    functions: dict[Symbol, Handler] = field(default_factory=dict)
    symbol_macros: dict[Symbol, tuple[int, object]] = field(default_factory=dict)
    span: Span | None = None
    expansions: list[tuple[str, Span | None]] = field(default_factory=list)
    subprogram: SubprogramDecl | None = None
    forms: int = 0
    failures: int = 0
    _own_span: bool = True

    # Expressions

    def body(self, forms: object) -> Tree:
        """A program's body: the value of its last form is returned."""
        self.span = self.program.span
        with self.scope():
            value = self.progn(forms)
        return tree.Return(value=value, type=NEVER, span=value.span or self.span)

    def subprogram_body(self, decl: SubprogramDecl, params: dict[Symbol, Local]) -> Tree:
        """A subprogram's body, which sees its parameters alone."""
        self.subprogram, self.span = decl, decl.span
        with self.scope() as scope:
            scope.update(params)
            value = self.progn(decl.body)
        decl.result = value.type
        return tree.Return(value=value, type=NEVER, span=value.span or self.span)

    def value(self, cell: Cons) -> Tree:
        """The expression in a cell; after an error, a node that stands for it."""
        outer, outer_own = self.span, self._own_span
        own = element_span(cell)
        self.span, self._own_span = own or outer, own is not None
        try:
            return self._expression(cell.car)
        except FormError as problem:
            self.failures += 1
            self._lose(cell.car)
            if problem is not TOLD:
                self._tell(self._placed(problem.diagnostic))
            return tree.Number(value=0, type=UNKNOWN, span=self.span)
        finally:
            self.span, self._own_span = outer, outer_own

    def _lose(self, form: object) -> None:
        """Remember what a form with an error would have bound: that it is not there is then no further error."""
        head = form.car if isinstance(form, Cons) else None
        if isinstance(head, Cons):
            self.lost.update(_symbols(head))
        elif isinstance(head, Symbol) and isinstance(form, Cons) and isinstance(form.cdr, Cons):
            if isinstance(form.cdr.car, Cons) and (head.name in _BINDERS or head.name not in CORE):
                self.lost.update(_symbols(form.cdr.car))

    def is_lost(self, name: Symbol) -> bool:
        """Whether a name comes of a form or a definition that has an error."""
        return name in self.lost or self.unit.is_broken(name.name)

    @contextmanager
    def at(self, cell: Cons) -> Iterator[None]:
        """What is made inside stands where the element of this cell was read, if it was."""
        outer = self.span
        self.span = element_span(cell) or outer
        try:
            yield
        finally:
            self.span = outer

    def form(self, form: object) -> Tree:
        """The same of a form that was made here, and stands in no cell."""
        return self.value(Cons(form, NIL))

    def _tell(self, diagnostic: Diagnostic) -> None:
        """Tell an error; one that a macro's form has at the place of another of its code has the same cause."""
        place, code = diagnostic.place, diagnostic.code
        same = any((each.place, each.code) == (place, code) for each in self.unit.found)
        if not (same and self.expansions and not self._own_span):
            self.unit.found.add(diagnostic)

    def _placed(self, diagnostic: Diagnostic) -> Diagnostic:
        """A diagnostic whose place is at least the nearest form that the user wrote."""
        if diagnostic.span is not None:
            return diagnostic
        because = diagnostic.because
        if self.expansions and not self._own_span:
            because = (*because, f"in expansion of {self._expanding()}")
        return replace(diagnostic, span=self.span, because=because)

    def _expanding(self) -> str:
        """The macros whose expansions are nested at the user's form, the innermost first."""
        names = [name for name, span in reversed(self.expansions) if span == self.expansions[-1][1]]
        shown = ", in that of ".join(f"`{name}`" for name in names[:4])
        return shown + (" and others" if len(names) > 4 else "")

    def _expression(self, form: object) -> Tree:
        self.forms += 1
        if self.forms > MAX_FORMS:
            raise fail("too-big", f"this program has more than {MAX_FORMS} forms when its macros are expanded")
        if isinstance(form, Cons):
            return self._call(form)
        if isinstance(form, Symbol):
            return self._symbol(form)
        return self._literal(form)

    def _literal(self, form: object) -> Tree:
        if isinstance(form, int):
            return self.number(form)
        if isinstance(form, str):
            raise fail(
                "string-value", "a string is no value here", help="strings are arguments of helpers that take text"
            )
        what = "a floating-point number" if isinstance(form, float) else "a fraction"
        what = "a character" if isinstance(form, Character) else what if not isinstance(form, list) else "a vector"
        raise fail("bad-literal", f"{what} is no value of a BPF program, which knows integers alone")

    def number(self, value: int) -> tree.Number:
        """A literal, which must fit into 64 bits."""
        if not -(1 << 63) <= value < 1 << 64:
            raise fail(
                "wide-literal",
                f"`{text(value, 60)}` is wider than 64 bits",
                because=f"it takes {value.bit_length() + (value < 0)} bits",
            )
        return tree.Number(value=value & ((1 << 64) - 1), type=U64, span=self.span)

    def _symbol(self, name: Symbol) -> Tree:
        if name is NIL:
            return self.number(0)
        if name in self.symbol_macros or name in self.unit.interpreter.symbol_macros:
            stands_for = self.symbol_macro(name)
            if stands_for is not None:
                return self._expanded_symbol(name, stands_for)
        local = self.find(name)
        if local is not None:
            local.reads += 1
            local.examined = True
            return tree.Read(local=local, type=local.type, span=self.span)
        constant = self.constant_named(name)
        if constant is not None:
            self._check_family(name)
            return self.number(constant)
        if name.name in self.unit.globals:
            from bpflisp.front import check_objects

            return check_objects.read(self, self.unit.globals[name.name])
        if name.name == "CTX":  # as in (get-stackid ctx stacks 0)
            return self.form(Cons(intern("CTX-PTR"), NIL))
        raise self._unbound(name)

    def _check_family(self, name: Symbol) -> None:
        """Warn of what programs of another type return: `XDP_PASS` is `TC_ACT_SHOT`."""
        kind = self.program.prog_type
        for start, kinds in _FAMILIES.items():
            if name.name.startswith(start) and self._own_span and kind not in kinds:
                problem = f"`{text(name)}` is for programs of type `{kinds[0]}`, and this is a `{kind}`"
                self.warn("wrong-constant", problem, because="the same number means something else here")

    def symbol_macro(self, name: Symbol) -> Cons | None:
        """A cell with the form that a symbol stands for, unless a variable of that name is nearer."""
        depth, form = self.symbol_macros.get(name, (0, None))
        if form is None:
            form = self.unit.interpreter.symbol_macros.get(name)
        hidden = form is None or any(name in scope for scope in self.scopes[depth:])
        return None if hidden else Cons(form, NIL)

    def _expanded_symbol(self, name: Symbol, cell: Cons) -> Tree:
        if len(self.expansions) >= MAX_EXPANSIONS:
            raise fail("runaway", f"the symbol macro `{text(name)}` does not come to an end")
        self.expansions.append((text(name), self.span))
        try:
            return self.value(cell)
        finally:
            self.expansions.pop()

    def _unbound(self, name: Symbol) -> FormError:
        """The error of a name without a value, which is told once in a program."""
        if self.is_lost(name):
            return TOLD
        self.lost.add(name)
        interpreter = self.unit.interpreter
        if name.is_keyword or name is T:
            help = hints.value(self.unit, name, ())
            return fail("bad-literal", f"`{text(name)}` is no value of a BPF program", help=help)
        if name in interpreter.variables:
            help = "`defconstant` makes a name that programs see"
            because = f"`{text(name)}` is a variable of compile time"
            return fail("unbound-variable", f"`{text(name)}` is not bound here", because=because, help=help)
        if name in self.binding:
            because = "the values of a `let` are all computed before any of its variables is bound"
            return fail(
                "unbound-variable",
                f"`{text(name)}` is not bound here",
                because=because,
                help="`let*` binds one after the other",
            )
        bound = {each for scope in self.scopes for each in scope if each.interned}
        help = hints.value(self.unit, name, bound, {*CORE, *LIBRARY})
        return fail("unbound-variable", f"`{text(name)}` is not bound here", help=help)

    def constant_named(self, name: Symbol) -> int | None:
        """What a constant stands for; an error if it is no integer."""
        interpreter = self.unit.interpreter
        if name not in interpreter.constants:
            return None
        value = interpreter.variables[name]
        if value is NIL:
            return 0
        if not isinstance(value, int):
            raise fail("bad-literal", f"the constant `{text(name)}` is `{text(value, 60)}`, and no integer")
        return value

    # Calls

    def _call(self, form: Cons) -> Tree:
        head = form.car
        if not isinstance(head, Symbol):
            raise fail("bad-call", f"`{text(head, 60)}` cannot be called", help="a form starts with a name")
        handler = CORE.get(head.name) or self.functions.get(head) or self._operation(head)
        if handler is None:
            if head in self.unit.interpreter.macros:
                return self._expanded(form, head)
            handler = self._subprogram_call(head) or LIBRARY.get(head.name)
        if handler is None:
            raise self._unknown(head)
        self._check_list(form)
        return handler(self, form)

    def _operation(self, head: Symbol) -> Handler | None:
        """A name that the file's structs define."""
        from bpflisp.front import check_headers, check_structs

        if head.name in self.unit.accessors:
            return check_structs.accessor
        if head.name in self.unit.headers:
            return check_headers.read
        if head.name in self.unit.makers:
            return check_structs.make
        return None

    def _subprogram_call(self, head: Symbol) -> Handler | None:
        from bpflisp.front import check_objects

        return check_objects.call if head.name in self.unit.subprograms else None

    def _expanded(self, form: Cons, head: Symbol) -> Tree:
        if len(self.expansions) >= MAX_EXPANSIONS:
            problem = f"the macro `{text(head)}` does not come to an end"
            start = next((span for name, span in self.expansions if name == text(head)), None)
            raise fail("runaway", problem, start, because=f"{MAX_EXPANSIONS} expansions are nested here")
        expansion = self.unit.interpreter.macroexpand_1(form)
        self.expansions.append((text(head), self.span))
        try:
            return self.value(Cons(expansion, NIL))
        finally:
            self.expansions.pop()

    def count_expansion(self, form: Cons) -> None:
        """Count a form that is expanded, so that a place that expands for ever ends too."""
        self.forms += 1
        if self.forms > MAX_FORMS:
            raise fail("runaway", f"the macro `{text(form.car)}` does not come to an end")

    def _unknown(self, head: Symbol) -> FormError:
        name = head.name
        if self.unit.is_broken(name):
            return TOLD
        from bpflisp.spec import kfuncs

        if kfuncs.by_name(c_name(name)) is not None:
            because = "it is a kernel function (kfunc), and those are not built yet"
            return fail("not-built", f"`{text(head)}` cannot be called", because=because)
        if name in self.unit.maps:
            return fail(
                "unknown-form", f"`{text(head)}` is a map, and no form", help=f"(getmap {text(head)} key) reads it"
            )
        if head in (UNQUOTE, UNQUOTE_SPLICING):
            help = "a backquote before the form around it makes a template of that"
            return fail("stray-comma", "a comma outside of a backquote", help=help)
        if head in self.unit.interpreter.functions or head in self.unit.interpreter.special:
            because = "programs are compiled to BPF, which has no Common Lisp at run time"
            help = hints.lisp_function(self.unit, head)
            return fail("lisp-function", f"`{text(head)}` works at compile time alone", because=because, help=help)
        help = hints.form(self.unit, head, [*CORE, *LIBRARY, *self.unit.accessors])
        if self.find(head) is not None:
            help = f"`{text(head)}` is a variable, and stands without parentheses"
        return fail("unknown-form", f"no form, macro or helper is named `{text(head)}`", help=help)

    @staticmethod
    def _check_list(form: Cons) -> None:
        end: object = NIL
        for cell in cells(form):
            end = cell.cdr
        if end is not NIL:
            raise fail("dotted-list", f"`{text(form, 60)}` ends in a dot", form.span)

    def args(self, form: Cons, least: int, most: int | None = None) -> list[Cons]:
        """The cells of a form's arguments, of which there must be so many."""
        found = list(cells(form.cdr))
        if len(found) < least or (most is not None and len(found) > most):
            wanted = f"{least}" if least == most else f"at least {least}" if most is None else f"{least} to {most}"
            plural = "" if wanted in ("1", "at least 1") else "s"
            raise fail("argument-count", f"`{text(form.car)}` takes {wanted} argument{plural}, not {len(found)}")
        return found

    def constant(self, cell: Cons, what: str) -> int:
        """An argument that must be a number when compiling; signed, as it was written."""
        return self.constant_of(self.value(cell), cell, what)

    @staticmethod
    def constant_of(node: Tree, cell: Cons, what: str) -> int:
        """The number that the node of a cell is; signed, as it was written."""
        if isinstance(node.type, type(UNKNOWN)):
            raise TOLD
        if not isinstance(node, tree.Number):
            raise fail(
                "not-constant",
                f"{what} must be known when compiling, and `{text(cell.car, 60)}` is not",
                element_span(cell),
                help="a number, a constant, or arithmetic on them",
            )
        return node.value - (1 << 64) if node.value >> 63 else node.value

    def keywords(self, rest: Sequence[Cons], form: Cons, *known: str) -> dict[str, Cons]:
        """Options at the end of a form: keyword -> the cell of its value."""
        options: dict[str, Cons] = {}
        if len(rest) % 2:
            raise fail("unknown-option", f"the options of `{text(form.car)}` do not come in pairs")
        for key, value in zip(rest[::2], rest[1::2], strict=True):
            name = key.car.name if isinstance(key.car, Symbol) else ""
            if name.lower() not in known:
                raise fail(
                    "unknown-option",
                    f"`{text(form.car)}` has no option `{text(key.car)}`",
                    element_span(key),
                    help="it has " + " ".join(known),
                )
            options[name.lower()] = value
        return options

    # Scopes

    def find(self, name: Symbol) -> Local | None:
        """The variable of that name."""
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return None

    @contextmanager
    def scope(self) -> Iterator[dict[Symbol, Local]]:
        """A scope for variables; one that nothing reads is warned of at its end."""
        scope: dict[Symbol, Local] = {}
        failures = self.failures
        self.scopes.append(scope)
        try:
            yield scope
        finally:
            self.scopes.pop()
        if self.failures > failures:
            return  # What was not read may be read where the error is.
        for name, local in scope.items():
            if not local.reads and local.span and not name.name.startswith("_"):
                problem = f"the variable `{text(name)}` is never read"
                self.unit.found.add(
                    warning("unused-variable", problem, local.span, help="a leading `_` says that this is meant")
                )

    def progn(self, forms: object) -> Tree:
        """Forms one after the other."""
        items: list[Tree] = []
        warned = False
        for cell in cells(forms):
            failures = self.failures
            node = self.value(cell)
            if items and isinstance(items[-1].type, type(NEVER)) and not warned and element_span(cell):
                self.unit.found.add(warning("unreachable", "this is never reached", element_span(cell)))
                warned = True
            if cell.cdr is not NIL and element_span(cell) and not warned and self.failures == failures:
                self._check_effect(node, cell)
            items.append(node)
        if len(items) == 1:
            return items[0]
        if not items:
            return self.number(0)
        never = any(isinstance(item.type, type(NEVER)) for item in items)
        return tree.Progn(items=items, type=NEVER if never else items[-1].type, span=self.span)

    def _check_effect(self, node: Tree, cell: Cons) -> None:
        """Warn of a form whose value goes nowhere, and that does nothing else."""
        if is_pure(node):
            problem = f"`{text(cell.car, 60)}` has no effect, and its value goes nowhere"
            help = "(return value) leaves the program with it"
            self.unit.found.add(warning("no-effect", problem, element_span(cell), help=help))

    # Warnings and shared checks

    def warn(self, code: str, problem: str, span: Span | None = None, *, because: str = "", help: str = "") -> None:
        """Tell of what is surely a mistake."""
        self.unit.found.add(self._placed(warning(code, problem, span, because=because, help=help)))

    def scalar_type(self, cell: Cons) -> Number:
        """The scalar type that a cell names."""
        from bpflisp.front.types import C_SPELLINGS

        name = cell.car.name if isinstance(cell.car, Symbol) else lisp_type(cell.car)
        kind = self.scalar_named(name)
        if kind is not None:
            return kind
        spelt = C_SPELLINGS.get(name.replace("-", "_"))
        help = f"`{text(cell.car)}` is written `{spelt}` here" if spelt else "u8 u16 u32 u64 i8 i16 i32 i64"
        raise fail("unknown-type", f"`{text(cell.car)}` is no scalar type", element_span(cell), help=help)

    def scalar_named(self, name: str) -> Number | None:
        """The scalar type of that name: an enum is a number of 32 bits."""
        return SCALARS.get(name) or (U32 if name in self.unit.enums else None)

    def address(self, cell: Cons, what: str) -> Tree:
        """An argument that is about to be read or written through."""
        local = self.find(cell.car) if isinstance(cell.car, Symbol) else None
        examined = local is not None and local.examined
        node = self.value(cell)
        if local is not None:
            # A variable that may be null, and was used for nothing but this yet, cannot have been tested.
            local.examined = examined
            if not examined and isinstance(local.type, Pointer) and local.type.maybe_null:
                raise _maybe_null(cell, what)
        require_memory(node, cell, what)
        return node


_BINDERS = ("LET", "LET*", "DOTIMES", "LAMBDA")
"""Core forms whose first argument binds."""


def _symbols(form: object) -> Iterator[Symbol]:
    """All names in a form."""
    todo = [form]
    while todo:
        each = todo.pop()
        if isinstance(each, Symbol):
            yield each
        elif isinstance(each, Cons):
            todo += [each.car, each.cdr]


def is_pure(node: Tree) -> bool:
    """Whether a node does nothing but give a value."""
    match node:
        case tree.Number() | tree.Read() | tree.ContextLoad() | tree.Context() | tree.DataAddress():
            return True
        case tree.Binary(left=left, right=right) | tree.Compare(left=left, right=right):
            return is_pure(left) and is_pure(right)
        case tree.Not(operand=operand) | tree.Extend(operand=operand) | tree.Swap(operand=operand):
            return is_pure(operand)
        case tree.Load(address=address):
            return is_pure(address)
        case tree.Logic(items=items):
            return all(map(is_pure, items))
        case tree.If(test=test, then=then, other=other):
            return is_pure(test) and is_pure(then) and is_pure(other)
    return False


def lisp_type(form: object) -> str:
    """`(unsigned-byte 8)` and `(signed-byte 32)` by the name that they have here; "" of anything else."""
    parts = text(form, 40).strip("()").split() if isinstance(form, Cons) else []
    letter = {"unsigned-byte": "U", "signed-byte": "I"}.get(parts[0] if len(parts) == 2 else "")
    return f"{letter}{parts[1]}" if letter else ""


TOLD = fail("told", "this has been told")
"""Raised where an error has been told already: the form around it is given up in silence."""


def require_memory(node: Tree, cell: Cons, what: str) -> None:
    """Refuse what cannot be an address that is read or written here: null, a number, a narrow value."""
    kind, shown = node.type, text(cell.car, 60)
    if isinstance(kind, Pointer):
        if kind.maybe_null and not isinstance(node, tree.Read):
            raise _maybe_null(cell, what)
        if kind.region in (Region.PACKET_END, Region.MAP):
            raise fail(
                "bad-pointer", f"`{shown}` is {kind.name}, through which nothing can be {what}", element_span(cell)
            )
    elif isinstance(node, tree.Number) and not isinstance(kind, type(UNKNOWN)):
        raise fail("bad-pointer", f"`{shown}` is a number, and no address", element_span(cell))
    elif isinstance(kind, Number) and kind.bits < 64:
        problem = f"`{shown}` is a {kind.name}, too narrow for an address"
        raise fail("narrow-pointer", problem, element_span(cell), because="an address has 64 bits")


def require_writable(node: Tree, cell: Cons) -> None:
    """Refuse to write where the kernel lets nobody write."""
    kind = node.type
    if isinstance(node, tree.Context):
        help = "(setf (ctx FIELD) value) writes a field that may be written"
        raise fail("read-only-memory", "the context is not written through its address", element_span(cell), help=help)
    if isinstance(kind, Pointer) and kind.region in (Region.KERNEL, Region.DATA):
        problem = f"`{text(cell.car, 60)}` is {kind.name}, which cannot be written"
        raise fail("read-only-memory", problem, element_span(cell))


def _maybe_null(cell: Cons, what: str) -> FormError:
    form = cell.car
    head = text(form.car) if isinstance(form, Cons) else text(form)
    because = "it gives null where there is nothing"
    if head.startswith("map-lookup") or head == "getmap":
        name = text(form.cdr.car) if isinstance(form, Cons) and isinstance(form.cdr, Cons) else "it"
        because = f"a key need not be in the map `{name}`"
    if not isinstance(form, Cons):
        problem = f"`{head}` may be null here, and null cannot be {what}"
        return fail(
            "maybe-null", problem, element_span(cell), because="nothing tests it before", help=f"(when {head} ...)"
        )
    return fail(
        "maybe-null",
        f"`{head}` may return null here, and null cannot be {what}",
        element_span(cell),
        because=because,
        help=f"test it first: (when-let ((v {text(form, 60)})) ...)",
    )


def check_program(unit: Unit, program: ProgramDecl) -> Tree:
    """The typed tree of a program; its errors and warnings are in `unit.found`."""
    from bpflisp.front import check_all

    check_all.load()
    return Checker(unit, program).body(program.body)
