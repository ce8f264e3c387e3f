"""What holds for some forms alone: `block`, `flet`, `labels`, `macrolet`, `symbol-macrolet`.

A local function is no subprogram: its body stands at each of its calls, with the variables that are bound where it is
written. So it may use and assign to what is around it, and may not call itself.
"""

from __future__ import annotations

from bpflisp.front import tree
from bpflisp.front.check import Checker, Handler, library
from bpflisp.front.check_arithmetic import head_of, is_zero
from bpflisp.front.check_binding import make_local, parameter, typed_by_declarations
from bpflisp.front.check_places import sequence
from bpflisp.front.tree import BlockMark, Local, Tree
from bpflisp.front.types import NEVER, Never, join
from bpflisp.lean import dataclass
from bpflisp.syntax.evaluator import Macro
from bpflisp.syntax.forms import NIL, Cons, Symbol, cells, element_span, elements, fail, text

# Blocks


@library("block")
def _block(checker: Checker, form: Cons) -> Tree:
    """`(block name form...)`: `(return-from name value)` leaves it. `(return value)` leaves the program, as ever."""
    cell = checker.args(form, 1)[0]
    if not isinstance(cell.car, Symbol):
        raise fail("bad-name", f"a block needs a name, not `{text(cell.car, 60)}`", element_span(cell))
    return in_block(checker, cell.car, form.cdr.cdr if isinstance(form.cdr, Cons) else NIL)


def in_block(checker: Checker, name: Symbol, body: object) -> Tree:
    """Forms in a block of that name."""
    mark = BlockMark(name.name, len(checker.cleanups))
    checker.blocks.append(mark)
    value = checker.progn(body)
    checker.blocks.pop()
    if mark.type is None:
        return value
    kind = join(value.type, mark.type, is_zero(value), mark.zero)
    return tree.Block(body=value, mark=mark, type=kind, span=checker.span)


@library("return-from")
def _return_from(checker: Checker, form: Cons) -> Tree:
    """`(return-from name [value])`."""
    args = checker.args(form, 1, 2)
    name = args[0].car.name if isinstance(args[0].car, Symbol) else ""
    mark = next((each for each in reversed(checker.blocks) if each.name == name), None)
    if mark is None:
        raise fail("bad-return", f"no block is named `{text(args[0].car, 60)}` here", element_span(args[0]))
    value = checker.value(args[1]) if len(args) > 1 else tree.Number(value=0, span=checker.span)
    if not isinstance(value.type, Never):
        zero = is_zero(value)
        mark.type = value.type if mark.type is None else join(mark.type, value.type, mark.zero, zero)
        mark.zero = zero
    cleanups = checker.cleanups[mark.cleanups :][::-1]
    return tree.Exit(mark=mark, value=value, cleanups=cleanups, type=NEVER, span=checker.span)


# Functions


@dataclass(slots=True, eq=False)
class _Function:
    """A local function: what is written, and what is known where it is written."""

    name: Symbol
    parameters: list[Cons]
    body: object
    scopes: list[dict[Symbol, Local]]
    loops: list[tree.LoopMark]
    blocks: list[BlockMark]
    functions: dict[Symbol, Handler]
    active: bool = False
    called: bool = False

    def __call__(self, checker: Checker, form: Cons) -> Tree:
        """A call: the arguments are bound in the caller's scope, and the body is looked at in the function's own."""
        self.called = True
        args = checker.args(form, len(self.parameters), len(self.parameters))
        if self.active:
            because = "the body of a local function stands at each of its calls"
            raise fail("recursion", f"`{text(self.name)}` calls itself", because=because)
        types, _, body = typed_by_declarations(checker, self.body)
        items: list[Tree] = []
        scope: dict[Symbol, Local] = {}
        for written, given in zip(self.parameters, args, strict=True):
            binding = parameter(checker, written)
            declared = binding.kind or types.get(binding.name)
            assigned = make_local(checker, binding, checker.value(given), declared)
            items.append(assigned)
            scope[binding.name] = assigned.local
        items.append(self._body(checker, scope, body))
        return sequence(checker, items)

    def _body(self, checker: Checker, parameters: dict[Symbol, Local], body: object) -> Tree:
        around = checker.scopes, checker.loops, checker.blocks, checker.functions
        checker.scopes, checker.loops = list(self.scopes), list(self.loops)
        checker.blocks, checker.functions = list(self.blocks), self.functions
        self.active = True
        try:
            with checker.scope() as scope:
                scope.update(parameters)
                return in_block(checker, self.name, body)
        finally:
            self.active = False
            checker.scopes, checker.loops, checker.blocks, checker.functions = around


@library("flet", "labels")
def _flet(checker: Checker, form: Cons) -> Tree:
    """`(flet ((name (parameter...) body...)...) form...)`; with `labels` they may call each other, though no circle."""
    outer = checker.functions
    inner = dict(outer)
    made: list[tuple[_Function, Cons]] = []
    known = inner if head_of(form) == "LABELS" else outer
    for cell in cells(checker.args(form, 1)[0].car):
        name, rest = _definition(cell)
        body = rest.cdr.cdr if isinstance(rest.cdr, Cons) and isinstance(rest.cdr.car, str) else rest.cdr
        parameters = list(cells(rest.car))
        for parameter_cell in parameters:
            parameter(checker, parameter_cell)
        around = list(checker.scopes), list(checker.loops), list(checker.blocks)
        function = _Function(name, parameters, body, *around, known)
        inner[name] = function
        made.append((function, cell))
    checker.functions = inner
    try:
        value = checker.progn(form.cdr.cdr if isinstance(form.cdr, Cons) else NIL)
    finally:
        checker.functions = outer
    for function, cell in made:
        if not function.called:
            checker.warn("never-called", f"nothing calls `{text(function.name)}`", element_span(cell))
    return value


def _definition(cell: Cons) -> tuple[Symbol, Cons]:
    """The name of `(name (parameter...) body...)`, and what follows it."""
    definition = cell.car
    name = definition.car if isinstance(definition, Cons) else definition
    well = isinstance(definition, Cons) and isinstance(definition.cdr, Cons)
    if not isinstance(definition, Cons) or not well or not isinstance(name, Symbol) or name is NIL or name.is_keyword:
        problem = f"`{text(definition, 60)}` is not (name (parameter...) body...)"
        raise fail("bad-definition", problem, element_span(cell))
    assert isinstance(definition.cdr, Cons)
    return name, definition.cdr


# Macros


@library("macrolet")
def _macrolet(checker: Checker, form: Cons) -> Tree:
    """`(macrolet ((name (parameter...) body...)...) form...)`: macros for these forms alone."""
    interpreter = checker.unit.interpreter
    known = dict(interpreter.macros)
    local: dict[Symbol, Macro] = {}
    for cell in cells(checker.args(form, 1)[0].car):
        name, rest = _definition(cell)
        local[name] = interpreter.macro(name, rest, interpreter.globals)
    interpreter.macros.update(local)
    try:
        return checker.progn(form.cdr.cdr if isinstance(form.cdr, Cons) else NIL)
    finally:
        interpreter.macros.clear()
        interpreter.macros.update(known)


@library("symbol-macrolet")
def _symbol_macrolet(checker: Checker, form: Cons) -> Tree:
    """`(symbol-macrolet ((name form)...) form...)`: a name that stands for a form, read or assigned to."""
    outer = checker.symbol_macros
    inner = dict(outer)
    for cell in cells(checker.args(form, 1)[0].car):
        parts = elements(cell.car) if isinstance(cell.car, Cons) else []
        if len(parts) != 2 or not isinstance(parts[0], Symbol) or parts[0] is NIL or parts[0].is_keyword:
            raise fail("bad-binding", f"`{text(cell.car, 60)}` is not (name form)", element_span(cell))
        inner[parts[0]] = (len(checker.scopes), parts[1])
    checker.symbol_macros = inner
    try:
        return checker.progn(form.cdr.cdr if isinstance(form.cdr, Cons) else NIL)
    finally:
        checker.symbol_macros = outer
