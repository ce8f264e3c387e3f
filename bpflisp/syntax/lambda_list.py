"""Lambda lists: how the arguments of a function, a macro or a destructuring bind become variables.

`&optional`, `&key` with defaults, their supplied-p variables, `&rest`, `&body`, `&aux`, `&allow-other-keys`, `&whole`,
`&environment` (always nil), nested lists and dotted ends where a macro may have them.
"""

from __future__ import annotations

from collections.abc import Callable

from bpflisp.diagnostics import Span
from bpflisp.lean import dataclass, field
from bpflisp.syntax.forms import NIL, Cons, Symbol, T, cells, element_span, fail, intern, lisp_list, text


@dataclass(slots=True)
class Parameter:
    """One optional, keyword or auxiliary parameter: its pattern, its default form, its supplied-p variable."""

    pattern: object
    default: object = NIL
    supplied: Symbol | None = None
    keyword: Symbol | None = None


@dataclass(slots=True)
class LambdaList:
    """A lambda list taken apart. A pattern is a symbol, or a nested LambdaList."""

    required: list[object] = field(default_factory=list)
    optional: list[Parameter] = field(default_factory=list)
    rest: object = None
    keys: list[Parameter] = field(default_factory=list)
    has_keys: bool = False
    allow_other_keys: bool = False
    aux: list[Parameter] = field(default_factory=list)
    whole: Symbol | None = None
    environment: Symbol | None = None
    shown: str = "()"


_MARKERS = ("&OPTIONAL", "&REST", "&BODY", "&KEY", "&AUX", "&ALLOW-OTHER-KEYS", "&WHOLE", "&ENVIRONMENT")
_ALLOW = intern(":ALLOW-OTHER-KEYS")


def parse(form: object, *, nested: bool) -> LambdaList:
    """Take a lambda list apart; `nested` lists and dotted ends are allowed to macros and `destructuring-bind`."""
    result = LambdaList(shown=text(form))
    if isinstance(form, Symbol) and form is not NIL:
        if not nested:
            raise fail("bad-lambda-list", f"a list of parameters is expected, not `{text(form)}`")
        result.rest = form
        return result
    if form is not NIL and not isinstance(form, Cons):
        raise fail("bad-lambda-list", f"a list of parameters is expected, not `{text(form)}`")
    mode = ""
    end: object = NIL
    for cell in cells(form):
        end = cell.cdr
        name = cell.car.name if isinstance(cell.car, Symbol) else ""
        if name.startswith("&"):
            mode = _marker(result, name, element_span(cell))
        else:
            mode = _parameter(result, mode, cell.car, nested, element_span(cell))
    if end is not NIL:
        if not (nested and isinstance(end, Symbol)):
            raise fail("bad-lambda-list", f"`{text(form)}` ends in a dot, which a function's parameters may not")
        result.rest = end
    return result


def _marker(result: LambdaList, name: str, span: Span | None) -> str:
    if name not in _MARKERS:
        raise fail("bad-lambda-list", f"`{name.lower()}` is not known in a list of parameters", span)
    if name == "&KEY":
        result.has_keys = True
    if name == "&ALLOW-OTHER-KEYS":
        result.allow_other_keys = True
    return "&REST" if name == "&BODY" else name


def _parameter(result: LambdaList, mode: str, item: object, nested: bool, span: Span | None) -> str:
    """Add one parameter; gives the mode of the next."""
    match mode:
        case "":
            result.required.append(_pattern(item, nested, span))
        case "&OPTIONAL":
            result.optional.append(_defaulted(item, nested, span))
        case "&KEY":
            result.keys.append(_keyword(item, nested, span))
        case "&AUX":
            result.aux.append(_defaulted(item, nested, span))
        case "&REST":
            result.rest = _pattern(item, nested, span)
            return "after &REST"
        case "&WHOLE" | "&ENVIRONMENT":
            if not isinstance(item, Symbol):
                raise fail("bad-lambda-list", f"`{mode.lower()}` needs a name, not `{text(item)}`", span)
            if mode == "&WHOLE":
                result.whole = item
            else:
                result.environment = item
            return ""
        case _:
            raise fail("bad-lambda-list", f"`{text(item)}` may not stand here in a list of parameters", span)
    return mode


def _pattern(item: object, nested: bool, span: Span | None) -> object:
    if isinstance(item, Symbol) and item is not T and (item is not NIL or nested) and not item.is_keyword:
        return parse(NIL, nested=True) if item is NIL else item
    if nested and isinstance(item, Cons):
        return parse(item, nested=True)
    raise fail("bad-lambda-list", f"a parameter needs a name, not `{text(item)}`", span)


def _defaulted(item: object, nested: bool, span: Span | None) -> Parameter:
    if not isinstance(item, Cons):
        return Parameter(_pattern(item, nested, span))
    parts = [cell.car for cell in cells(item)]
    supplied = parts[2] if len(parts) > 2 else None
    if len(parts) > 3 or not (supplied is None or isinstance(supplied, Symbol)):
        raise fail("bad-lambda-list", f"`{text(item)}` is not (name default supplied-p)", span)
    return Parameter(_pattern(parts[0], nested, span), parts[1] if len(parts) > 1 else NIL, supplied)


def _keyword(item: object, nested: bool, span: Span | None) -> Parameter:
    keyword: Symbol | None = None
    if isinstance(item, Cons) and isinstance(item.car, Cons):
        names = [cell.car for cell in cells(item.car)]
        if len(names) != 2 or not isinstance(names[0], Symbol):
            raise fail("bad-lambda-list", f"`{text(item)}` is not ((:keyword name) default)", span)
        keyword = names[0]
        item = Cons(names[1], item.cdr)
    parameter = _defaulted(item, nested, span)
    if keyword is None and isinstance(parameter.pattern, Symbol):
        keyword = intern(":" + parameter.pattern.name)
    parameter.keyword = keyword
    return parameter


Bind = Callable[[Symbol, object], None]
Evaluate = Callable[[object], object]


def bind(params: LambdaList, args: list[object], bind: Bind, evaluate: Evaluate, tail: object = NIL) -> None:
    """Give each parameter its argument by `bind`; defaults are evaluated by `evaluate`, in order.

    `tail` is what the arguments end in, other than nil only in a macro's dotted call.
    """
    given = len(args)
    needed = len(params.required)
    variadic = params.rest is not None or params.has_keys
    if given < needed or (given > needed + len(params.optional) and not variadic):
        raise fail("argument-count", f"{given} argument{'s' * (given != 1)} given to {params.shown}")
    if tail is not NIL and params.rest is None:
        raise fail("argument-count", f"the arguments end in `. {text(tail)}`, which {params.shown} does not take")
    for pattern, value in zip(params.required, args, strict=False):
        bind_pattern(pattern, value, bind, evaluate)
    at = needed
    for parameter in params.optional:
        present = at < given
        _bind_parameter(parameter, args[at] if present else None, present, bind, evaluate)
        at += present
    if params.environment:
        bind(params.environment, NIL)
    if params.rest is not None:
        bind_pattern(params.rest, lisp_list(args[at:], tail), bind, evaluate)
    if params.has_keys:
        _bind_keys(params, args[at:], bind, evaluate)
    for parameter in params.aux:
        _bind_parameter(parameter, None, False, bind, evaluate)


def _bind_keys(params: LambdaList, args: list[object], bind: Bind, evaluate: Evaluate) -> None:
    if len(args) % 2:
        raise fail("argument-count", f"the keyword arguments `{text(lisp_list(args))}` do not come in pairs")
    given: dict[object, object] = {}
    for key, value in zip(args[::2], args[1::2], strict=True):
        if not isinstance(key, Symbol):
            raise fail("unknown-keyword", f"a keyword is expected, not `{text(key)}`, by {params.shown}")
        given.setdefault(key, value)
    known = [parameter.keyword for parameter in params.keys]
    allow = params.allow_other_keys or given.get(_ALLOW, NIL) is not NIL
    for key in given:
        if key not in known and key is not _ALLOW and not allow:
            raise fail(
                "unknown-keyword",
                f"`{text(key)}` is not among the keywords of {params.shown}",
                help="known are: " + " ".join(text(k) for k in known),
            )
    for parameter in params.keys:
        present = parameter.keyword in given
        _bind_parameter(parameter, given.get(parameter.keyword), present, bind, evaluate)


def _bind_parameter(parameter: Parameter, value: object, present: bool, bind: Bind, evaluate: Evaluate) -> None:
    bind_pattern(parameter.pattern, value if present else evaluate(parameter.default), bind, evaluate)
    if parameter.supplied:
        bind(parameter.supplied, T if present else NIL)


def bind_pattern(pattern: object, value: object, bind_one: Bind, evaluate: Evaluate) -> None:
    """Bind a symbol to a value, or a nested lambda list to the elements of a list."""
    if isinstance(pattern, Symbol):
        bind_one(pattern, value)
        return
    assert isinstance(pattern, LambdaList)
    if value is not NIL and not isinstance(value, Cons):
        raise fail("not-a-list", f"`{text(value)}` is given where {pattern.shown} expects a list")
    if pattern.whole:
        bind_one(pattern.whole, value)
    items: list[object] = []
    tail: object = NIL
    for cell in cells(value):
        items.append(cell.car)
        tail = cell.cdr
    bind(pattern, items, bind_one, evaluate, tail)
