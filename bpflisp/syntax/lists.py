"""Lists and vectors at compile time."""

from __future__ import annotations

from typing import Any

from bpflisp.syntax.data import (
    MAX_ELEMENTS,
    Function,
    append,
    bounded,
    coerce,
    equal,
    keywords_of,
    length,
    like,
    sequence,
)
from bpflisp.syntax.forms import NIL, Cons, Symbol, cells, elements, lisp_list, text


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


def _last(items: Any, count: int = 1) -> Any:
    found = list(cells(items))
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
    size = elements(count)[0] if isinstance(count, Cons) else count
    bounded(size)  # type: ignore[arg-type]
    if "INITIAL-CONTENTS" in options:
        return list(sequence(options["INITIAL-CONTENTS"]))
    return [options.get("INITIAL-ELEMENT", 0)] * size  # type: ignore[operator]


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


def _union(a: Any, b: Any, *_: Any) -> object:
    items = elements(a)
    return lisp_list(items + [item for item in elements(b) if not any(equal(item, other) for other in items)])


def _intersection(a: Any, b: Any, *_: Any) -> object:
    others = elements(b)
    return lisp_list(item for item in elements(a) if any(equal(item, other) for other in others))


def _set_difference(a: Any, b: Any, *_: Any) -> object:
    others = elements(b)
    return lisp_list(item for item in elements(a) if not any(equal(item, other) for other in others))


LISTS: dict[str, Function] = {
    "CONS": Cons, "LIST": lambda *items: lisp_list(items), "LIST*": _list_star, "APPEND": append, "NCONC": append,
    **{name: _path(name[1:-1]) for name in (
        "CAR", "CDR", "CAAR", "CADR", "CDAR", "CDDR", "CADDR", "CDDDR", "CADDDR", "CAADR", "CDADR", "CADAR", "CDDAR",
    )},
    "FIRST": car, "REST": cdr, "SECOND": _path("AD"), "THIRD": _path("ADD"), "FOURTH": _path("ADDD"),
    "FIFTH": _path("ADDDD"), "NTH": lambda n, items: car(nthcdr(n, items)), "NTHCDR": nthcdr,
    "LAST": _last, "BUTLAST": lambda items, n=1: lisp_list(elements(items)[: -n or None]),
    "REVERSE": lambda items: items[::-1] if isinstance(items, str) else like(items, sequence(items)[::-1]),
    "NREVERSE": lambda items: items[::-1] if isinstance(items, str) else like(items, sequence(items)[::-1]),
    "LENGTH": length, "LIST-LENGTH": length, "SUBSEQ": _subseq, "ELT": _elt, "AREF": _elt, "SVREF": _elt,
    "CHAR": _elt, "MAKE-LIST": _make_list, "MAKE-ARRAY": _make_array, "VECTOR": lambda *items: list(items),
    "GETF": _getf, "COPY-LIST": lambda items: lisp_list(elements(items)), "COPY-TREE": _copy_tree,
    "COPY-SEQ": lambda items: items if isinstance(items, str) else like(items, sequence(items)),
    "CONCATENATE": _concatenate, "COERCE": coerce, "UNION": _union, "INTERSECTION": _intersection,
    "SET-DIFFERENCE": _set_difference, "ACONS": lambda k, v, items: Cons(Cons(k, v), items),
    "PAIRLIS": lambda ks, vs: lisp_list(Cons(k, v) for k, v in zip(elements(ks), elements(vs), strict=True)),
}  # fmt: skip
