"""Globals and subprograms: reading, addressing, calling; each subprogram is checked when it is first called."""

from __future__ import annotations

from bpflisp.diagnostics import Span, warning
from bpflisp.front import tree
from bpflisp.front.check import CORE, TOLD, Checker, library
from bpflisp.front.check_arithmetic import binary, extend
from bpflisp.front.check_places import Place, loaded, memory, place, pointer_to
from bpflisp.front.objects import GlobalDecl, SubprogramDecl
from bpflisp.front.tree import Local, Tree
from bpflisp.front.types import U64, ArrayOf, Number, Pointer, Region, Struct
from bpflisp.front.unit import ProgramDecl, Unit
from bpflisp.spec.isa import Op
from bpflisp.syntax.forms import Cons, Symbol, element_span, fail, text

# Globals


def _address(checker: Checker, decl: GlobalDecl) -> Tree:
    return tree.DataAddress(symbol=decl.symbol, type=decl.pointer, span=checker.span)


def read(checker: Checker, decl: GlobalDecl) -> Tree:
    """A global by its name: the value of a number, the address of an array or a struct."""
    address = _address(checker, decl)
    return loaded(checker, address, 0, decl.type) if isinstance(decl.type, Number) else address


def global_place(checker: Checker, decl: GlobalDecl, cell: Cons) -> Place:
    """A global number as a place."""
    if decl.constant:
        raise fail("constant-assigned", f"`{text(cell.car)}` is a constant global", element_span(cell))
    if not isinstance(decl.type, Number):
        help = "(setf (aref NAME index) value), or an accessor of the struct"
        raise fail("bad-place", f"`{text(cell.car)}` is no number, and cannot be assigned as a whole", help=help)
    return memory(checker, _address(checker, decl), 0, decl.type, False, False, cell)


def _named_global(checker: Checker, cell: Cons) -> GlobalDecl:
    decl = checker.unit.globals.get(cell.car.name) if isinstance(cell.car, Symbol) else None
    if decl is None:
        known = " ".join(sorted(name.lower() for name in checker.unit.globals))
        problem = f"no global is named `{text(cell.car, 60)}`"
        raise fail("unknown-global", problem, element_span(cell), help=known and f"there is {known}")
    return decl


@library("addr-of")
def _addr_of(checker: Checker, form: Cons) -> Tree:
    """`(addr-of NAME)`: a global's address."""
    return _address(checker, _named_global(checker, checker.args(form, 1, 1)[0]))


def _element(checker: Checker, form: Cons) -> tuple[Tree, int, Number | ArrayOf | Struct, Cons]:
    """The address, offset and type of `(aref NAME index...)`."""
    name, *indices = checker.args(form, 2)
    decl = _named_global(checker, name)
    if not isinstance(decl.type, ArrayOf):
        raise fail("bad-place", f"`{text(name.car)}` is no array", element_span(name))
    if len(indices) > decl.type.dimensions:
        problem = f"`{text(name.car)}` has {decl.type.dimensions} dimension{'s' * (decl.type.dimensions > 1)}"
        raise fail("argument-count", problem, element_span(indices[-1]))
    address, off = _address(checker, decl), 0
    kind: Number | ArrayOf | Struct = decl.type
    for cell in indices:
        assert isinstance(kind, ArrayOf)
        index, size, count = checker.value(cell), kind.element.size, kind.count
        if isinstance(index, tree.Number):
            if index.value >= count:
                problem = f"`{text(name.car)}` has {count} elements, and none with index {index.value}"
                raise fail("array-index", problem, element_span(cell))
            off += index.value * size
        else:
            scaled = index if size == 1 else binary(Op.MUL, index, tree.Number(value=size))
            address = binary(Op.ADD, address, scaled)
        kind = kind.element
    return address, off, kind, name


@library("aref")
def _aref(checker: Checker, form: Cons) -> Tree:
    """`(aref NAME index...)`: an element of a global array: a number's value, else an address. The verifier has to see
    that an index is inside."""
    address, off, kind, _ = _element(checker, form)
    return loaded(checker, address, off, kind) if isinstance(kind, Number) else pointer_to(address, off, kind)


@place("aref")
def _aref_place(checker: Checker, form: Cons, twice: bool) -> Place:
    address, off, kind, name = _element(checker, form)
    if not isinstance(kind, Number):
        problem = f"an element of `{text(name.car)}` is no number, and cannot be assigned as a whole"
        raise fail("bad-place", problem, help="(setf (STRUCT-FIELD (aref NAME index)) value), or `memcpy`")
    return memory(checker, address, off, kind, False, twice, name)


# Subprograms


def call(checker: Checker, form: Cons) -> Tree:
    """A call of a subprogram: as many arguments as it has parameters."""
    assert isinstance(form.car, Symbol)
    decl = checker.unit.subprograms[form.car.name]
    if decl.name in checker.unit.broken:
        raise TOLD
    args = checker.args(form, len(decl.params), len(decl.params))
    values = [_given(checker, cell, kind) for cell, (_, kind, _) in zip(args, decl.params, strict=True)]
    ensure_checked(checker.unit, decl, checker.program, checker.span)
    return tree.CallFunction(symbol=decl.symbol, args=values, type=_result(decl), span=checker.span)


def _result(decl: SubprogramDecl) -> Pointer | Number:
    return decl.result if isinstance(decl.result, Pointer | Number) else U64


def _given(checker: Checker, cell: Cons, kind: object) -> Tree:
    """An argument, as the parameter's type has it."""
    value = checker.value(cell)
    if isinstance(kind, Number):
        if isinstance(value.type, Pointer) and kind.bits < 64:
            raise fail("narrow-pointer", f"{value.type.name} does not fit into a {kind.name}", element_span(cell))
        return extend(value, kind) if isinstance(value.type, Number) else value
    if isinstance(kind, Pointer) and isinstance(value, tree.Number) and isinstance(value.type, Number):
        raise fail(
            "argument-kind", f"a pointer is expected here, not the number {text(cell.car, 40)}", element_span(cell)
        )
    if isinstance(kind, Pointer) and kind.region is Region.CONTEXT:
        if isinstance(value.type, Pointer) and value.type.region is not Region.CONTEXT:
            raise fail("argument-kind", f"the context is expected here, not {value.type.name}", element_span(cell))
    return value


def ensure_checked(unit: Unit, decl: SubprogramDecl, program: ProgramDecl, span: Span | None) -> None:
    """Check a subprogram for the type of program that calls it, once for each type."""
    if decl.checking:
        because = "the verifier follows no recursion"
        raise fail("recursion", f"`{decl.name.lower()}` calls itself", span, because=because)
    key = (program.prog_type, program.attach_type)
    if key in decl.checked_for:
        return
    decl.checked_for.add(key)
    decl.checking = True
    params: dict[Symbol, Local] = {}
    for name, kind, place_ in decl.params:
        assert isinstance(name, Symbol)
        declared = kind if isinstance(kind, Number) else None
        params[name] = Local(name.name, kind, declared, None if _is_context(kind) else place_)
    body = Checker(unit, program).subprogram_body(decl, params)
    decl.checking = False
    if decl.tree is None:
        decl.tree, decl.locals = body, list(params.values())
        decl.context_of = program.prog_type


def _is_context(kind: object) -> bool:
    return isinstance(kind, Pointer) and kind.region is Region.CONTEXT


def callback(checker: Checker, cell: Cons) -> Tree:
    """A subprogram that a helper is to call."""
    decl = checker.unit.subprograms.get(cell.car.name) if isinstance(cell.car, Symbol) else None
    if decl is None:
        problem = f"no subprogram is named `{text(cell.car, 60)}`"
        raise fail("unknown-subprogram", problem, element_span(cell), help="(defsubprog name (index context) ...)")
    ensure_checked(checker.unit, decl, checker.program, element_span(cell))
    return tree.FunctionAddress(symbol=decl.symbol, type=Pointer(Region.OTHER), span=checker.span)


def check_hidden(unit: Unit) -> None:
    """Warn of macros that no program sees: forms of the language mean the same whatever macros there are."""
    for name, cell in unit.interpreter.macro_cells.items():
        if name.name in CORE and element_span(cell) is not None:
            problem = f"the macro `{text(name)}` is never called by a program"
            because = f"`{text(name)}` is a form of the language, which cannot be redefined"
            unit.found.add(warning("never-called", problem, element_span(cell), because=because))


def check_uncalled(unit: Unit) -> None:
    """Check what nothing called, so that its errors are told too; a static one is then left out of the object."""
    program = next(iter(unit.programs.values()), None)
    for decl in unit.subprograms.values():
        if decl.tree is None and program is not None:
            ensure_checked(unit, decl, program, decl.span)
            if not decl.is_global:
                decl.tree = None
                unit.found.add(warning("never-called", f"nothing calls `{decl.name.lower()}`", decl.span))
