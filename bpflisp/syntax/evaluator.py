"""Common Lisp at compile time: what macros, constants and top-level code are evaluated by.

An interpreter of the language's core, with a budget: whatever is evaluated ends, at the latest with an error that
names the call. It reaches no file and no network. Functions are Python callables, so the library (`functions`) is
plain Python; special forms are in `special`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bpflisp.diagnostics import Diagnostic
from bpflisp.lean import dataclass, replace
from bpflisp.syntax import lambda_list
from bpflisp.syntax.forms import (
    NIL,
    Cons,
    FormError,
    Symbol,
    T,
    cells,
    fail,
    intern,
    span_of,
    text,
)
from bpflisp.syntax.lambda_list import LambdaList

FUEL = 500_000
"""How many evaluations one call of a macro, or one top-level form, may take."""

_LONG_TEXT = 64
"""Characters of a text that are made for the price of one evaluation."""

LAMBDA = intern("LAMBDA")
DECLARE = intern("DECLARE")


class Scope:
    """Lexical variables, functions and macros, and the scope around them."""

    __slots__ = ("blocks", "functions", "labels", "parent", "variables")

    def __init__(self, parent: Scope | None = None) -> None:
        self.parent = parent
        self.variables: dict[Symbol, object] = {}
        self.functions: dict[Symbol, object] = {}
        self.blocks: dict[Symbol, object] = {}
        self.labels: dict[object, int] | None = None


class Values(tuple[object, ...]):
    """Several values of one form; where one is expected, the first counts."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, eq=False)
class SymbolMacro:
    """What `symbol-macrolet` binds a name to: the form that it stands for."""

    form: object


class BlockExit(Exception):  # noqa: N818  (no error)
    """Leaves a block with a value."""

    def __init__(self, block: object, value: object) -> None:
        self.block = block
        self.value = value


class OutOfFuel(Exception):  # noqa: N818  (no error yet)
    """The budget is used up."""


@dataclass(slots=True, eq=False)
class Closure:
    """A function that was written in Lisp."""

    interpreter: Interpreter
    params: LambdaList
    body: object
    scope: Scope
    name: str = "lambda"

    def __call__(self, *args: object) -> object:
        """Apply it."""
        interpreter = self.interpreter
        scope = Scope(self.scope)
        block = object()
        scope.blocks[intern(self.name)] = block
        with interpreter.dynamic_bindings(scope) as bind:
            lambda_list.bind(self.params, list(args), bind, lambda form: interpreter.value(form, scope))
            try:
                return interpreter.progn(self.body, scope)
            except BlockExit as leaving:
                if leaving.block is not block:
                    raise
                return leaving.value


@dataclass(slots=True, eq=False)
class Macro:
    """A macro: from a call, the form that stands for it."""

    interpreter: Interpreter
    name: str
    params: LambdaList
    body: object
    scope: Scope

    def expand(self, form: Cons) -> object:
        """The form that a call stands for."""
        interpreter = self.interpreter
        scope = Scope(self.scope)
        block = object()
        scope.blocks[intern(self.name)] = block

        def bind(name: Symbol, value: object) -> None:
            scope.variables[name] = value

        if self.params.whole:
            bind(self.params.whole, form)
        inner = replace(self.params, whole=None)
        lambda_list.bind_pattern(inner, form.cdr, bind, lambda default: interpreter.value(default, scope))
        try:
            return first(interpreter.progn(self.body, scope))
        except BlockExit as leaving:
            if leaving.block is not block:
                raise
            return leaving.value


Special = Callable[["Interpreter", Cons, Scope], object]
PyMacro = Callable[[Cons], object]


def first(value: object) -> object:
    """The first of several values; nil where there is none."""
    if isinstance(value, Values):
        return value[0] if value else NIL
    return value


class Interpreter:
    """The state of one compilation: global functions, macros, variables, constants."""

    def __init__(self) -> None:
        from bpflisp.syntax import functions, special
        from bpflisp.syntax.printing import STREAMS

        self.globals = Scope()
        self.functions: dict[Symbol, Callable[..., object]] = functions.library(self)
        self.macros: dict[Symbol, Macro] = {}
        self.macro_cells: dict[Symbol, Cons] = {}
        self.setfs: dict[Symbol, Macro] = {}
        self.symbol_macros: dict[Symbol, object] = {}
        self.symbol_macros_used = False
        self.types: dict[Symbol, object] = {}
        self.tags: list[object] = []
        self.writers: dict[Symbol, Callable[..., object]] = {}
        self.variables: dict[Symbol, object] = dict(STREAMS)
        self.dynamic: set[Symbol] = set(STREAMS)
        self.plists: dict[Symbol, object] = {}
        self.constants: set[Symbol] = set()
        self.own_constants: set[Symbol] = set()
        self.special: dict[Symbol, Special] = dict(special.table())
        self.fuel = FUEL
        self._budgets = 0
        self._gensyms = 0

    # Budget

    @contextmanager
    def budget(self, form: object) -> Iterator[None]:
        """What runs in here ends: the outermost call refills the fuel, and runaway ends in an error at its form."""
        if not self._budgets:
            self.fuel = FUEL
        self._budgets += 1
        try:
            yield
        except (OutOfFuel, RecursionError, MemoryError) as end:
            if self._budgets > 1 and isinstance(end, OutOfFuel):
                raise
            why = f"it took {FUEL} evaluations" if isinstance(end, OutOfFuel) else "it recurses too deeply"
            raise fail("runaway", "this does not come to an end at compile time", span_of(form), because=why) from None
        except BlockExit:
            raise fail("bad-return", "`return` leaves no block here", span_of(form)) from None
        finally:
            self._budgets -= 1

    def spend(self, evaluations: int) -> None:
        """Take so many evaluations off the budget."""
        self.fuel -= evaluations
        if self.fuel < 0:
            raise OutOfFuel

    def gensym(self, prefix: str = "G") -> Symbol:
        """A symbol that nothing else is."""
        self._gensyms += 1
        return Symbol(f"{prefix}{self._gensyms}")

    # Evaluation

    def toplevel(self, form: object) -> object:
        """Evaluate a form of its own, with a fresh budget."""
        with self.budget(form):
            return first(self.eval(form, self.globals))

    def value(self, form: object, scope: Scope) -> object:
        """The first value of a form."""
        value = self.eval(form, scope)
        return first(value) if type(value) is Values else value

    def eval(self, form: object, scope: Scope) -> object:
        """The value, or values, of a form."""
        self.fuel -= 1
        if self.fuel < 0:
            raise OutOfFuel
        if isinstance(form, Symbol):
            stands_for = self.symbol_macro(form, scope) if self.symbol_macros_used else None
            return self.variable(form, scope) if stands_for is None else self.eval(stands_for.car, scope)
        if not isinstance(form, Cons):
            return form
        try:
            return self._eval_list(form, scope)
        except FormError as problem:
            if problem.diagnostic.span is None and form.span is not None:
                problem.diagnostic = replace(problem.diagnostic, span=form.span)
            raise

    def symbol_macro(self, name: Symbol, scope: Scope | None) -> Cons | None:
        """A cell with the form that a symbol stands for; None where it is a variable."""
        while scope is not None:
            if name in scope.variables:
                found = scope.variables[name]
                return Cons(found.form, NIL) if isinstance(found, SymbolMacro) else None
            scope = scope.parent
        return Cons(self.symbol_macros[name], NIL) if name in self.symbol_macros else None

    def _eval_list(self, form: Cons, scope: Scope) -> object:
        head = form.car
        if isinstance(head, Symbol):
            local = _local_function(head, scope)
            if local is None:
                special = self.special.get(head)
                if special is not None:
                    return self._special(special, form, scope)
                local = self.macros.get(head)
            if isinstance(local, Macro):
                return self.eval(self.expand_with(local, form), scope)
            function = local if local is not None else self.functions.get(head)
            if function is None:
                from bpflisp.syntax.absent import undefined

                raise undefined(head)
        elif isinstance(head, Cons) and head.car is LAMBDA:
            function = self.closure(head.cdr, scope)
        else:
            raise fail("bad-call", f"`{text(head)}` cannot be called")
        assert callable(function)
        return self.call(function, self.arguments(form, scope), text(head, 60))

    def _special(self, special: Special, form: Cons, scope: Scope) -> object:
        """A special form; what it cannot take apart is an error of the form."""
        try:
            return special(self, form, scope)
        except (ValueError, TypeError, AttributeError, LookupError):
            raise fail("bad-form", f"`{text(form, 60)}` is not written as `{text(form.car)}` is", form.span) from None

    def arguments(self, form: Cons, scope: Scope) -> list[object]:
        """The values of a call's arguments, left to right."""
        return [self.value(cell.car, scope) for cell in cells(form.cdr)]

    def call(self, function: Callable[..., object], args: list[object], name: str) -> object:
        """Apply a function; what Python makes of wrong arguments becomes an error of the call."""
        if isinstance(function, Closure):
            return function(*args)
        try:
            result = function(*args)
            if isinstance(result, str) and len(result) > _LONG_TEXT:
                self.spend(len(result) // _LONG_TEXT)
            return result
        except ZeroDivisionError:
            raise fail("division-by-zero", f"`{name}` divides by zero") from None
        except (TypeError, ValueError, AttributeError, LookupError, OverflowError) as problem:
            shown = " ".join(text(arg, 40) for arg in args[:6])
            raise fail("bad-argument", f"`{name}` cannot be applied to `{shown}`", because=_plain(problem)) from None

    def variable(self, name: Symbol, scope: Scope | None) -> object:
        """What a variable or constant holds."""
        if name is NIL or name is T or name.is_keyword:
            return name
        while scope is not None:
            if name in scope.variables:
                return scope.variables[name]
            scope = scope.parent
        if name in self.variables:
            return self.variables[name]
        raise fail("unbound-variable", f"`{text(name)}` has no value at compile time")

    def assign(self, name: Symbol, value: object, scope: Scope | None) -> None:
        """Set the innermost variable of that name; a global one where there is none."""
        if name in self.constants or name is NIL or name is T or name.is_keyword:
            raise fail("constant-assigned", f"`{text(name)}` is a constant")
        while scope is not None:
            if name in scope.variables:
                scope.variables[name] = value
                return
            scope = scope.parent
        self.variables[name] = value

    def progn(self, body: object, scope: Scope) -> object:
        """The value of the last form; declarations are passed over."""
        value: object = NIL
        for cell in cells(body):
            if isinstance(cell.car, Cons) and cell.car.car is DECLARE:
                continue
            value = self.eval(cell.car, scope)
        return value

    @contextmanager
    def dynamic_bindings(self, scope: Scope) -> Iterator[lambda_list.Bind]:
        """A binder into `scope`, which binds a `defvar` variable dynamically, until the end of the context."""
        saved: list[tuple[Symbol, object]] = []

        def bind(name: Symbol, value: object) -> None:
            if name in self.constants or name is NIL or name is T or name.is_keyword:
                raise fail("constant-assigned", f"`{text(name)}` is a constant, and cannot be bound")
            if name in self.dynamic:
                saved.append((name, self.variables[name]))
                self.variables[name] = value
            else:
                scope.variables[name] = value

        try:
            yield bind
        finally:
            for name, value in reversed(saved):
                self.variables[name] = value

    # Functions and macros

    def closure(self, definition: object, scope: Scope, name: str = "lambda") -> Closure:
        """The function of `(params body...)`."""
        if not isinstance(definition, Cons):
            raise fail("bad-lambda-list", "a function needs a list of parameters")
        return Closure(self, lambda_list.parse(definition.car, nested=False), definition.cdr, scope, name)

    def macro(self, name: Symbol, definition: object, scope: Scope) -> Macro:
        """The macro of `(params body...)`."""
        if not isinstance(definition, Cons):
            raise fail("bad-lambda-list", f"the macro `{text(name)}` needs a list of parameters")
        return Macro(self, name.name, lambda_list.parse(definition.car, nested=True), definition.cdr, scope)

    def function(self, designator: object, scope: Scope | None = None) -> Callable[..., object]:
        """The function that a name, a lambda form or a function object stands for."""
        if isinstance(designator, Cons) and designator.car is LAMBDA:
            return self.closure(designator.cdr, scope or self.globals)
        if isinstance(designator, Symbol):
            found = (_local_function(designator, scope) if scope else None) or self.functions.get(designator)
            if found is None or isinstance(found, Macro):
                raise fail("undefined-function", f"no function is named `{text(designator)}`")
            designator = found
        if not callable(designator):
            raise fail("bad-call", f"`{text(designator)}` is no function")
        return designator

    def macro_of(self, head: object) -> Macro | None:
        """The global macro of that name."""
        return self.macros.get(head) if isinstance(head, Symbol) else None

    def expand_with(self, macro: Macro, form: Cons) -> object:
        """Expand a call once. An error is shown where it arose, and says in whose expansion."""
        with self.budget(form):
            try:
                return macro.expand(form)
            except FormError as problem:
                raise FormError(_in_expansion(problem, macro, form)) from None
            except RecursionError:
                why = "it recurses too deeply"
                name = macro.name.lower()
                raise fail("runaway", f"the macro `{name}` does not come to an end", form.span, because=why) from None

    def macroexpand_1(self, form: object) -> object:
        """The form, expanded once if it calls a global macro."""
        if isinstance(form, Cons):
            macro = self.macro_of(form.car)
            if macro:
                return self.expand_with(macro, form)
        return form


_AT_THE_CALL = ("user-error", "assertion")
"""What a macro says by `error` and `assert` is meant for who called it."""


def _in_expansion(problem: FormError, macro: Macro, form: Cons) -> Diagnostic:
    """The error, at the call where its own place is unknown; else where it arose, with the call as a reason."""
    diagnostic = problem.diagnostic
    if diagnostic.span is None or (diagnostic.code in _AT_THE_CALL and form.span is not None):
        return replace(diagnostic, span=form.span)
    if form.span is None:
        return diagnostic
    note = f"in expansion of `{macro.name.lower()}` at {form.span}"
    return replace(diagnostic, because=(*diagnostic.because, note))


def _local_function(name: Symbol, scope: Scope | None) -> object:
    while scope is not None:
        if name in scope.functions:
            return scope.functions[name]
        scope = scope.parent
    return None


def _plain(problem: Exception) -> str:
    """What Python says, without the names of our functions."""
    words = str(problem)
    return words.split("() ", 1)[-1] if "() " in words else words
