"""Places: what `setf`, `incf`, `push` and their kin can assign to at compile time. Subforms are evaluated once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from bpflisp.syntax.data import eql
from bpflisp.syntax.evaluator import Interpreter, Scope
from bpflisp.syntax.forms import NIL, Cons, Symbol, T, cells, elements, fail, intern, lisp_list, text
from bpflisp.syntax.special import arguments, special

Place = tuple[Callable[[], Any], Callable[[Any], None]]
"""How to read it, and how to write it."""


def place(interpreter: Interpreter, form: object, scope: Scope) -> Place:
    """The place that a form names."""
    if isinstance(form, Symbol):
        stands_for = interpreter.symbol_macro(form, scope)
        if stands_for is not None:
            return place(interpreter, stands_for.car, scope)
        name = form
        return lambda: interpreter.variable(name, scope), lambda value: interpreter.assign(name, value, scope)
    if isinstance(form, Cons) and isinstance(form.car, Symbol):
        if form.car in interpreter.macros:
            return place(interpreter, interpreter.macroexpand_1(form), scope)
        if form.car in interpreter.setfs:
            return _by_defsetf(interpreter, form, scope)
        if form.car in interpreter.writers:
            return _by_writer(interpreter, form, scope)
        if form.car in (intern("LDB"), intern("LOGBITP")):
            return _bits(interpreter, form, scope)
        if form.car is intern("GETF"):
            return _property(interpreter, form, scope)
        if form.car is intern("GET"):
            return _symbol_property(interpreter, form, scope)
        make = _PLACES.get(form.car.name) or _path(form.car.name)
        if make is not None:
            return make(*interpreter.arguments(form, scope))
        if form.car is intern("SYMBOL-VALUE"):
            return place(interpreter, interpreter.value(arguments(form, 1, 1)[0], scope), scope)
    raise fail("bad-place", f"`{text(form)}` is no place that can be assigned to at compile time")


def _by_defsetf(interpreter: Interpreter, form: Cons, scope: Scope) -> Place:
    """A place that `defsetf` defines: writing it is the form that it makes of the new value and the arguments."""
    assert isinstance(form.car, Symbol)
    macro = interpreter.setfs[form.car]
    args = [lisp_list([intern("QUOTE"), value]) for value in interpreter.arguments(form, scope)]

    def write(new: Any) -> None:
        quoted = lisp_list([intern("QUOTE"), new])
        call = Cons(form.car, Cons(quoted, lisp_list(args)), form.span)
        interpreter.eval(interpreter.expand_with(macro, call), scope)

    return lambda: interpreter.value(Cons(form.car, lisp_list(args)), scope), write


def _by_writer(interpreter: Interpreter, form: Cons, scope: Scope) -> Place:
    """A place with a function `(setf name)`."""
    assert isinstance(form.car, Symbol)
    writer, args = interpreter.writers[form.car], interpreter.arguments(form, scope)

    def write(new: Any) -> None:
        interpreter.call(writer, [new, *args], text(form.car))

    return lambda: interpreter.call(interpreter.function(form.car, scope), args, text(form.car)), write


def _bits(interpreter: Interpreter, form: Cons, scope: Scope) -> Place:
    """`(ldb (byte size position) place)`: the place gets the number with these bits exchanged."""
    byte_form, target = arguments(form, 2, 2)
    byte = interpreter.value(byte_form, scope)
    if form.car is intern("LOGBITP"):
        byte = Cons(1, byte)
    read, write = place(interpreter, target, scope)
    assert isinstance(byte, Cons)
    ldb, dpb = (interpreter.functions[intern(name)] for name in ("LDB", "DPB"))
    return lambda: ldb(byte, read()), lambda new: write(dpb(_as_bits(new), byte, read()))


def _as_bits(value: Any) -> int:
    return value if isinstance(value, int) else int(value is not NIL)


def _fill_pointer(vector: Any) -> Place:
    def write(new: Any) -> None:
        del vector[new:]

    return lambda: len(vector), write


def _subseq(vector: Any, start: int, end: Any = NIL) -> Place:
    from bpflisp.syntax.lists import LISTS

    options = () if end is NIL else (intern(":END1"), end)

    def write(new: Any) -> None:
        LISTS["REPLACE"](vector, new, intern(":START1"), start, *options)

    return lambda: LISTS["SUBSEQ"](vector, start, end), write


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


def _path(name: str) -> Callable[..., Place] | None:
    """The place of a `cadr` or the like: which part, of what the steps before it lead to."""
    found = re.match(_STEPS, name)
    if found is None:
        return None
    part, steps = _car if found[1] == "A" else _cdr, found[2].lower()
    return lambda value: part(value, steps)


_STEPS = r"C([AD])([AD]{1,3})R\Z"


def _nth(index: Any, value: Any) -> Place:
    if index < 0:
        raise fail("bad-index", f"a list has no element {text(index)}")
    return _car(value, "d" * index)


def _property(interpreter: Interpreter, form: Cons, scope: Scope) -> Place:
    """`(getf place key [default])`: a new key comes first."""
    list_form, key_form, *rest = arguments(form, 2, 3)
    read, write = place(interpreter, list_form, scope)
    key = interpreter.value(key_form, scope)
    default = interpreter.value(rest[0], scope) if rest else NIL
    return _in_plist(read, write, key, default)


def _in_plist(read: Callable[[], Any], write: Callable[[Any], None], key: Any, default: Any) -> Place:
    def find() -> Cons | None:
        for cell in list(cells(read()))[::2]:
            if eql(cell.car, key) and isinstance(cell.cdr, Cons):
                return cell.cdr
        return None

    def get() -> Any:
        found = find()
        return default if found is None else found.car

    def put(new: Any) -> None:
        found = find()
        if found is None:
            write(lisp_list([key, new], read()))
        else:
            found.car = new

    return get, put


def _symbol_property(interpreter: Interpreter, form: Cons, scope: Scope) -> Place:
    """`(get symbol key [default])`."""
    name, key, *rest = interpreter.arguments(form, scope)
    if not isinstance(name, Symbol):
        raise fail("bad-argument", f"`{text(name)}` is no symbol, and has no properties")
    plists = interpreter.plists
    return _in_plist(
        lambda: plists.get(name, NIL), lambda new: plists.__setitem__(name, new), key, rest[0] if rest else NIL
    )


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
    "SECOND": lambda value: _car(value, "d"),
    "THIRD": lambda value: _car(value, "dd"),
    "FOURTH": lambda value: _car(value, "ddd"),
    "FIFTH": lambda value: _car(value, "dddd"),
    "NTH": _nth,
    "GETHASH": _gethash,
    "AREF": _aref,
    "ELT": _aref,
    "SVREF": _aref,
    "FILL-POINTER": _fill_pointer,
    "SUBSEQ": _subseq,
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
        _, write = place(interpreter, target, scope)
        value = interpreter.value(init, scope)
        write(value)
    return value


@special("remf")
def _remf(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    """Takes a key and its value out of a property list; whether it was there."""
    list_form, key_form = arguments(form, 2, 2)
    read, write = place(interpreter, list_form, scope)
    key, items = interpreter.value(key_form, scope), elements(read())
    at = next((at for at in range(0, len(items) - 1, 2) if eql(items[at], key)), None)
    if at is None:
        return NIL
    write(lisp_list(items[:at] + items[at + 2 :]))
    return T


@special("rotatef", "shiftf")
def _rotatef(interpreter: Interpreter, form: Cons, scope: Scope) -> object:
    """Each place gets the value of the next; the last that of the first, or of `shiftf` the last argument's."""
    targets = arguments(form, 0)
    shifting = form.car is intern("SHIFTF")
    if not targets:
        return NIL
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
    item_form, target, *rest = arguments(form, 2)
    item = interpreter.value(item_form, scope)
    read, write = place(interpreter, target, scope)
    if form.car is intern("PUSHNEW"):
        options = [interpreter.value(each, scope) for each in rest]
        new = interpreter.call(interpreter.functions[intern("ADJOIN")], [item, read(), *options], "pushnew")
    else:
        new = Cons(item, read())
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
