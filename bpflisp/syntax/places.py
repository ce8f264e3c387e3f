"""Places: what `setf`, `incf`, `push` and their kin can assign to at compile time. Subforms are evaluated once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bpflisp.syntax.evaluator import Interpreter, Scope
from bpflisp.syntax.forms import NIL, Cons, Symbol, cells, fail, intern, lisp_list, text
from bpflisp.syntax.special import arguments, special

Place = tuple[Callable[[], Any], Callable[[Any], None]]
"""How to read it, and how to write it."""


def place(interpreter: Interpreter, form: object, scope: Scope) -> Place:
    """The place that a form names."""
    if isinstance(form, Symbol):
        name = form
        return lambda: interpreter.variable(name, scope), lambda value: interpreter.assign(name, value, scope)
    if isinstance(form, Cons) and isinstance(form.car, Symbol):
        if form.car in interpreter.macros:
            return place(interpreter, interpreter.macroexpand_1(form), scope)
        make = _PLACES.get(form.car.name)
        if make is not None:
            return make(*interpreter.arguments(form, scope))
        if form.car is intern("SYMBOL-VALUE"):
            return place(interpreter, interpreter.value(arguments(form, 1, 1)[0], scope), scope)
    raise fail("bad-place", f"`{text(form)}` is no place that can be assigned to at compile time")


def _cell(value: Any, steps: str = "") -> Any:
    for step in reversed(steps):
        value = value.car if step == "a" else value.cdr
    if not isinstance(value, Cons):
        raise fail("not-a-list", f"`{text(value)}` has no part to assign to")
    return value


def _car(value: Any, steps: str = "") -> Place:
    cell = _cell(value, steps)
    return lambda: cell.car, lambda new: setattr(cell, "car", new)


def _cdr(value: Any, steps: str = "") -> Place:
    cell = _cell(value, steps)
    return lambda: cell.cdr, lambda new: setattr(cell, "cdr", new)


def _nth(index: Any, value: Any) -> Place:
    return _car(value, "d" * index)


def _gethash(key: Any, table: Any, default: Any = NIL) -> Place:
    return lambda: table.get(key, default), lambda new: table.set(key, new)


def _aref(vector: Any, index: Any) -> Place:
    if isinstance(vector, Cons):
        return _nth(index, vector)
    if not isinstance(vector, list) or not 0 <= index < len(vector):
        raise fail("bad-index", f"`{text(vector)}` has no element {text(index)}")
    return lambda: vector[index], lambda new: vector.__setitem__(index, new)


_PLACES: dict[str, Callable[..., Place]] = {
    "CAR": _car,
    "FIRST": _car,
    "CDR": _cdr,
    "REST": _cdr,
    "CADR": lambda value: _car(value, "d"),
    "SECOND": lambda value: _car(value, "d"),
    "CDDR": lambda value: _cdr(value, "d"),
    "CAAR": lambda value: _car(value, "a"),
    "CDAR": lambda value: _cdr(value, "a"),
    "THIRD": lambda value: _car(value, "dd"),
    "CADDR": lambda value: _car(value, "dd"),
    "NTH": _nth,
    "GETHASH": _gethash,
    "AREF": _aref,
    "ELT": _aref,
    "SVREF": _aref,
}


@special("setf", "psetf")
def _setf(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    items = arguments(form, 0)
    if len(items) % 2:
        raise fail("odd-setf", f"`{text(form.car)}` takes places and values in pairs", form.span)
    if form.car is intern("PSETF"):
        places = [place(interpreter, target, scope) for target in items[::2]]
        for (_, write), new in zip(places, [interpreter.value(init, scope) for init in items[1::2]], strict=True):
            write(new)
        return NIL
    value: object = NIL
    for target, init in zip(items[::2], items[1::2], strict=True):
        if isinstance(target, Cons) and target.car is intern("GETF"):
            value = _set_property(interpreter, target, init, scope)
            continue
        _, write = place(interpreter, target, scope)
        value = interpreter.value(init, scope)
        write(value)
    return value


def _set_property(interpreter: Interpreter, target: Cons, init: object, scope: Scope) -> object:
    list_form, key_form, *_ = arguments(target, 2, 3)
    read, write = place(interpreter, list_form, scope)
    key, value = interpreter.value(key_form, scope), interpreter.value(init, scope)
    plist = read()
    found = list(cells(plist))
    for cell in found[::2]:
        if cell.car is key and isinstance(cell.cdr, Cons):
            cell.cdr.car = value
            return value
    write(lisp_list([key, value], plist))
    return value


@special("rotatef", "shiftf")
def _rotatef(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    """Each place gets the value of the next; the last that of the first, or of `shiftf` the last argument's."""
    targets = arguments(form, 1)
    shifting = form.car is intern("SHIFTF")
    last = targets.pop() if shifting else NIL
    places = [place(interpreter, target, scope) for target in targets]
    values = [read() for read, _ in places]
    values.append(interpreter.value(last, scope) if shifting else values[0])
    for (_, write), value in zip(places, values[1:], strict=True):
        write(value)
    return values[0] if shifting else NIL


@special("defsetf")
def _defsetf(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    """`(defsetf access update)`, `(defsetf access (parameter...) (new-value) body...)`: how `setf` writes a place."""
    name, *rest = arguments(form, 2)
    if not isinstance(name, Symbol):
        raise fail("bad-name", f"`defsetf` needs a name, not `{text(name)}`", form.span)
    if isinstance(rest[0], Symbol) and rest[0] is not NIL:
        new, parts = interpreter.gensym("new"), interpreter.gensym("parts")
        call = lisp_list([intern("APPEND"), lisp_list([intern("LIST"), _quoted(rest[0])]), parts,
                          lisp_list([intern("LIST"), new])])  # fmt: skip
        params: object = Cons(new, parts)
        body: object = lisp_list([call])
    else:
        if len(rest) < 3 or not isinstance(rest[1], Cons):
            raise fail("bad-definition", "(defsetf name (parameter...) (new-value) body...)", form.span)
        params, body = Cons(rest[1].car, rest[0]), lisp_list(rest[2:])
    interpreter.setfs[name] = interpreter.macro(name, Cons(params, body), scope)
    return name


def _quoted(form: object) -> object:
    return lisp_list([intern("QUOTE"), form])


@special("incf", "decf")
def _incf(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    target, *delta = arguments(form, 1, 2)
    read, write = place(interpreter, target, scope)
    step: Any = interpreter.value(delta[0], scope) if delta else 1
    old = read()
    if not isinstance(old, int | float) or not isinstance(step, int | float):
        raise fail("bad-argument", f"`{text(old)}` cannot be counted up by `{text(step)}`", form.span)
    new = old + step if form.car is intern("INCF") else old - step
    write(new)
    return new


@special("push", "pushnew")
def _push(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    from bpflisp.syntax.data import equal

    item_form, target, *_ = arguments(form, 2)
    item = interpreter.value(item_form, scope)
    read, write = place(interpreter, target, scope)
    old = read()
    if form.car is intern("PUSHNEW") and any(equal(item, cell.car) for cell in cells(old)):
        return old
    new = Cons(item, old)
    write(new)
    return new


@special("pop")
def _pop(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    read, write = place(interpreter, arguments(form, 1, 1)[0], scope)
    old = read()
    if not isinstance(old, Cons):
        return NIL
    write(old.cdr)
    return old.car
