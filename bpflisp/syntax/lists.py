"""Lists and vectors at compile time."""

from __future__ import annotations

from typing import Any

from bpflisp.syntax.data import (
    MAX_ELEMENTS,
    Function,
    append,
    bounded,
    coerce,
    keywords_of,
    length,
    like,
    sequence,
    truth,
)
from bpflisp.syntax.forms import NIL, Cons, Symbol, cells, elements, lisp_list, text
from bpflisp.syntax.searching import options_of, search_window, window


def car(value: Any) -> Any:
    """The first element; nil of nil."""
    if value is NIL:
        return NIL
    if not isinstance(value, Cons):
        raise TypeError(f"`{text(value)}` is no list")
    return value.car


def cdr(value: Any) -> Any:
    """All but the first element; nil of nil."""
    if value is NIL:
        return NIL
    if not isinstance(value, Cons):
        raise TypeError(f"`{text(value)}` is no list")
    return value.cdr


def _path(steps: str) -> Function:
    def follow(value: Any) -> Any:
        for step in reversed(steps):
            value = car(value) if step == "A" else cdr(value)
        return value

    return follow


def nthcdr(count: int, items: Any) -> Any:
    """The list without its first elements."""
    for _ in range(min(count, MAX_ELEMENTS)):
        items = cdr(items)
    return items


def _copy_list(items: Any) -> Any:
    found = list(cells(items))
    return lisp_list([cell.car for cell in found], found[-1].cdr) if found else items


def _last(items: Any, count: int = 1) -> Any:
    found = list(cells(items))
    if count == 0 and found:
        return found[-1].cdr
    return found[-count] if len(found) >= count > 0 else items


def _subseq(items: Any, start: int, end: Any = NIL) -> Any:
    stop = None if end is NIL else end
    values = sequence(items)
    if not 0 <= start <= len(values) or (stop is not None and not start <= stop <= len(values)):
        raise ValueError(f"the sequence has {len(values)} elements")
    return items[start:stop] if isinstance(items, str) else like(items, values[start:stop])


def _elt(items: Any, index: int) -> Any:
    values = sequence(items)
    if not 0 <= index < len(values):
        raise LookupError(f"the sequence has {len(values)} elements")
    return values[index]


def _make_list(count: int, *rest: Any) -> object:
    bounded(count)
    return lisp_list([keywords_of(rest).get("INITIAL-ELEMENT", NIL)] * count)


def _make_array(count: Any, *rest: Any) -> object:
    options = keywords_of(rest)
    sizes = elements(count) if isinstance(count, Cons) else [count]
    if len(sizes) != 1 or not isinstance(sizes[0], int):
        raise ValueError(f"an array has one dimension here, not `{text(count)}`")
    bounded(sizes[0])
    vector = [options.get("INITIAL-ELEMENT", 0)] * sizes[0]
    if "INITIAL-CONTENTS" in options:
        vector = list(sequence(options["INITIAL-CONTENTS"]))
    fill = options.get("FILL-POINTER", NIL)
    return vector[:fill] if isinstance(fill, int) else vector


def _before(items: Any, rest: Any) -> list[Any]:
    found = []
    for cell in cells(items):
        if cell is rest:
            break
        found.append(cell.car)
    return found


def _tailp(rest: Any, items: Any) -> object:
    return truth(rest is NIL or any(cell is rest for cell in cells(items)))


def _vector_push(value: Any, vector: Any, *_: Any) -> object:
    if not isinstance(vector, list):
        raise TypeError(f"`{text(vector)}` is no vector")
    bounded(len(vector) + 1)
    vector.append(value)
    return len(vector) - 1


def _replace(target: Any, source: Any, *rest: Any) -> object:
    """Elements of the one into the places of the other."""
    options = options_of(rest, "START1", "END1", "START2", "END2")
    to, given = window(target, options, "1"), search_window(source, options, "2")
    if isinstance(target, str):
        raise TypeError("a string cannot be changed; `concatenate` makes a new one")
    places: list[Any] = list(cells(target)) if isinstance(target, Cons) else []
    for at, value in zip(range(to.start, to.end), given, strict=False):
        if places:
            places[at].car = value
        else:
            target[at] = value
    return target


def _getf(plist: Any, key: Any, default: Any = NIL) -> Any:
    items = elements(plist)
    return next((value for name, value in zip(items[::2], items[1::2], strict=False) if name is key), default)


def _list_star(*items: Any) -> object:
    return lisp_list(items[:-1], items[-1])


def _copy_tree(value: Any) -> Any:
    return Cons(_copy_tree(value.car), _copy_tree(value.cdr)) if isinstance(value, Cons) else value


def _concatenate(kind: Any, *parts: Any) -> object:
    bounded(sum(length(part) for part in parts))
    if all(isinstance(part, str) for part in parts) and isinstance(kind, Symbol) and kind.name == "STRING":
        return "".join(parts)
    return coerce(lisp_list(item for part in parts for item in sequence(part)), kind)


LISTS: dict[str, Function] = {
    "CONS": Cons, "LIST": lambda *items: lisp_list(items), "LIST*": _list_star, "APPEND": append, "NCONC": append,
    **{name: _path(name[1:-1]) for name in (
        "CAR", "CDR", "CAAR", "CADR", "CDAR", "CDDR", "CADDR", "CDDDR", "CADDDR", "CAADR", "CDADR", "CADAR", "CDDAR",
        "CAAAR", "CDAAR",
    )},
    "FIRST": car, "REST": cdr, "SECOND": _path("AD"), "THIRD": _path("ADD"), "FOURTH": _path("ADDD"),
    "FIFTH": _path("ADDDD"), "SIXTH": _path("ADDDDD"), "SEVENTH": _path("ADDDDDD"), "EIGHTH": _path("ADDDDDDD"),
    "NINTH": _path("ADDDDDDDD"), "TENTH": _path("ADDDDDDDDD"),
    "REVAPPEND": lambda a, b: lisp_list(elements(a)[::-1], b), "NRECONC": lambda a, b: lisp_list(elements(a)[::-1], b),
    "LDIFF": lambda items, rest: lisp_list(_before(items, rest)), "TAILP": _tailp,
    "VECTOR-PUSH-EXTEND": _vector_push, "VECTOR-PUSH": _vector_push, "VECTOR-POP": lambda vector: vector.pop(),
    "ARRAY-DIMENSION": lambda vector, _: length(vector), "ARRAY-TOTAL-SIZE": length, "FILL-POINTER": length,
    "ARRAY-DIMENSIONS": lambda vector: lisp_list([length(vector)]), "REPLACE": _replace,
    "NTH": lambda n, items: car(nthcdr(n, items)), "NTHCDR": nthcdr,
    "LAST": _last, "BUTLAST": lambda items, n=1: lisp_list(elements(items)[: -n or None]),
    "REVERSE": lambda items: items[::-1] if isinstance(items, str) else like(items, sequence(items)[::-1]),
    "NREVERSE": lambda items: items[::-1] if isinstance(items, str) else like(items, sequence(items)[::-1]),
    "LENGTH": length, "LIST-LENGTH": length, "SUBSEQ": _subseq, "ELT": _elt, "AREF": _elt, "SVREF": _elt,
    "CHAR": _elt, "SCHAR": _elt, "VECTOR": lambda *items: list(items),
    "MAKE-LIST": _make_list, "MAKE-ARRAY": _make_array,
    "GETF": _getf, "COPY-LIST": _copy_list, "COPY-TREE": _copy_tree,
    "COPY-SEQ": lambda items: items if isinstance(items, str) else like(items, sequence(items)),
    "CONCATENATE": _concatenate, "COERCE": coerce, "ACONS": lambda k, v, items: Cons(Cons(k, v), items),
    "PAIRLIS": lambda ks, vs: lisp_list(Cons(k, v) for k, v in zip(elements(ks), elements(vs), strict=True)),
}  # fmt: skip
