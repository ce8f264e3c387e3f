"""`with-bpf-session`: the part of it that is BPF is compiled, the rest belongs to the host and is passed over.

The book's sessions hold maps and programs (`bpf:map`, `bpf:prog`) among forms of the host, which attach and read them
when the Lisp file is run. Here a file is compiled and not run: the object holds the maps and programs, and whoever
loads it does the host's part. One warning says so.
"""

from __future__ import annotations

from collections.abc import Iterator

from bpflisp.diagnostics import warning
from bpflisp.front.unit import Unit
from bpflisp.syntax.forms import NIL, Cons, Symbol, cells, intern, span_of

_SESSION = "WITH-BPF-SESSION"
_DECLARES = {"MAP": "DEFMAP", "PROG": "DEFPROG"}
_DEFINING = ("DEFMACRO", "DEFPROG", "DEFSUBPROG")


def take(unit: Unit, form: object) -> bool:
    """Whether a top-level form is the host's: holds a session, or calls a function that does. Its maps and programs
    are then defined."""
    if not isinstance(form, Cons) or _head(form) in _DEFINING:
        return False
    if _head(form) in unit.host_functions:
        return True
    sessions = list(_sessions(form))
    if not sessions:
        return False
    if _head(form) == "DEFUN" and isinstance(form.cdr, Cons) and isinstance(form.cdr.car, Symbol):
        unit.host_functions.add(form.cdr.car.name)
    for session in sessions:
        _define(unit, session)
    return True


def _head(form: object) -> str:
    return form.car.name if isinstance(form, Cons) and isinstance(form.car, Symbol) else ""


def _sessions(form: Cons) -> Iterator[Cons]:
    """The sessions in a form, the outermost only."""
    todo: list[object] = [form]
    while todo:
        each = todo.pop()
        if isinstance(each, Cons):
            if _head(each) == _SESSION:
                yield each
            else:
                todo += [cell.car for cell in cells(each)]


def _define(unit: Unit, session: Cons) -> None:
    for cell in cells(session.cdr):
        form = cell.car
        name = _DECLARES.get(_head(form))
        # `(map 'list ...)` is Common Lisp's: a map of BPF has a name and options.
        if name and isinstance(form, Cons) and isinstance(form.cdr, Cons) and _is_name(form.cdr.car):
            unit.interpreter.toplevel(Cons(intern(name), form.cdr, form.span, form.car_span))
    because = "the object holds its maps and programs; to attach and read them is up to who loads it"
    problem = "the host's part of `with-bpf-session` is not compiled"
    unit.found.add(warning("host-part", problem, span_of(session), because=because))


def _is_name(form: object) -> bool:
    return isinstance(form, Symbol) and form is not NIL and not form.is_keyword
