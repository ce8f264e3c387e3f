"""What helps where a name is not known: how C and Common Lisp say a thing, and how it is said here."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

from bpflisp.front.unit import Unit
from bpflisp.syntax.evaluator import Closure
from bpflisp.syntax.forms import QUOTE, Cons, Symbol, text

_LOOPS = "(dotimes (i 10) ...), (while test ...) and (dolist (x (1 2 3)) ...) repeat"
_PRINTS = '(trace-printk "x is %d" x) writes to the trace log'
_BINDS = "(let ((name value)) ...) binds a variable, `defglobal` at top level one that outlives the program"
_DEFINES = "`defsubprog` at top level defines a function of programs, (flet ((name (x) ...)) ...) one for some forms"
_MEMBER = "(STRUCT-FIELD pointer) reads a member"

FORMS = {
    "==": "(= a b) compares", "!=": "(/= a b) compares", "<>": "(/= a b) compares", "NEQ": "(/= a b) compares",
    "&&": "(and a b)", "!": "(not a)", "%": "(mod a b)", "&": "(logand a b)", "^": "(logxor a b)", "~": "(lognot a)",
    "++": "(incf a)", "--": "(decf a)", "+=": "(incf a b)", "-=": "(decf a b)", "|=": "(setf a (logior a b))",
    "->": _MEMBER, ".": _MEMBER, "SLOT-VALUE": _MEMBER, ":=": "(setf name value)", "SET": "(setf name value)",
    "FOR": _LOOPS, "FOREACH": _LOOPS, "DO": _LOOPS, "DO*": _LOOPS, "LOOP": _LOOPS, "UNTIL": _LOOPS,
    "MAPCAR": _LOOPS, "MAPC": _LOOPS,
    "PRINT": _PRINTS, "PRINTF": _PRINTS, "PRINTK": _PRINTS, "BPF-PRINTK": _PRINTS, "FORMAT": _PRINTS,
    "PRINC": _PRINTS, "WRITE-LINE": _PRINTS, "WRITE-STRING": _PRINTS,
    "DEFVAR": _BINDS, "DEFPARAMETER": _BINDS, "DEFCONSTANT": "`defconstant` stands at top level",
    "DEFUN": _DEFINES, "DEFMAP": "`defmap` stands at top level", "DEFSTRUCT": "`defstruct` stands at top level",
    "DEFMACRO": "`defmacro` stands at top level; (macrolet ((name (x) ...)) ...) holds for some forms",
    "SWITCH": "(case x (1 ...) ((2 3) ...) (t ...))", "ELSE": "(if test then else), or a last clause (t ...) of `cond`",
    "GETHASH": "(getmap MAP key) reads a map", "REMHASH": "(remmap MAP key) deletes",
    "MAP-GET": "(getmap MAP key) reads a map", "MAP-SET": "(setf (getmap MAP key) value) writes a map",
    "MALLOC": "(struct-alloc BYTES) has bytes on the stack", "MAKE-ARRAY": "(struct-alloc BYTES) is on the stack",
    "SIZE-OF": "(sizeof NAME)", "PTR": "(load TYPE pointer offset) reads", "REF": "(stack-addr name) is its address",
    "BPF-CORE-READ": "(core-load TYPE pointer OFFSET STRUCT FIELD)", "RETURN-VALUE": "(return value)",
}  # fmt: skip
"""A form that is none here -> what is written in its place."""

_TYPES = ("U8", "U16", "U32", "U64", "I8", "I16", "I32", "I64")
_VALUES = {"TRUE": "1 is true", "FALSE": "0 is false", "T": "1 is true", "ELSE": "(t ...) is the last clause",
           "DEFAULT": "(t ...) is the last clause", "NONE": "0 is null"}  # fmt: skip

_NUMBER = r"(0X(?=[0-9A-F])|0B(?=[01])|(?=[0-9]))((?<=0X)[0-9A-F_]+|(?<=0B)[01_]+|[0-9][0-9_]*)[UL]*\Z"
_BASES = {"0X": "#x", "0B": "#b", "": ""}


def form(unit: Unit, head: Symbol, known: Iterable[str]) -> str:
    """What helps where a form of that name is unknown."""
    name = head.name
    if name in _TYPES:
        return f"(cast {text(head)} x) makes a {text(head)} of x, (name {text(head)} x) is a binding of that type"
    if name in unit.structs:
        return f"`{text(head)}` is a struct: (make-{text(head)}) has one on the stack"
    if head in unit.interpreter.constants:
        return f"`{text(head)}` is a constant, and stands without parentheses"
    hint = FORMS.get(name) or FORMS.get(name.replace("_", "-"))
    return hint or _of_struct(unit, name) or nearest(name, known)


def lisp_function(unit: Unit, head: Symbol) -> str:
    """What helps where Common Lisp is called in a program."""
    if isinstance(unit.interpreter.functions.get(head), Closure):
        return f"`defsubprog` defines a function that programs call, and `defmacro` what {text(head)} may be as a macro"
    return FORMS.get(head.name) or "use it in a macro, or in `#.(...)`"


def value(unit: Unit, name: Symbol, bound: Iterable[Symbol], forms: Container[str] = ()) -> str:
    """What helps where a name has no value; `bound` are the variables there are, `forms` what can be called."""
    shown = text(name)
    if name.name in forms or name in unit.interpreter.macros:
        return f"`{shown}` is a form: ({shown} ...) calls it"
    if name.name in unit.maps:
        return f"`{shown}` is a map: (getmap {shown} key) reads it"
    if name.name in unit.structs:
        return f"`{shown}` is a struct: (make-{shown}) has one on the stack"
    if name.name in _VALUES:
        return _VALUES[name.name]
    number = re.match(_NUMBER, name.name)
    if number is not None:
        digits = number[2].replace("_", "").lower()
        return f"the number is written {_BASES[number[1]]}{digits} here"
    if "." in name.name or "->" in name.name:
        return _MEMBER
    spelt = name.name.replace("-", "_")
    constants = unit.interpreter.constants
    for meant in (spelt, f"+{name.name}+", name.name.strip("+")):
        if any(meant == each.name for each in constants):
            return f"did you mean `{meant.lower()}`?"
    near = nearest(name.name, [each.name for each in constants])
    variables = " ".join(sorted(text(each) for each in bound))
    return f"bound here: {variables}" if variables else near


def place(unit: Unit, form: object) -> str:
    """What helps where a form is no place."""
    if isinstance(form, Cons) and isinstance(form.car, Symbol):
        return _of_struct(unit, form.car.name)
    return ""


def a_map(unit: Unit, form: object) -> str:
    """What helps where a map is expected and something else stands."""
    known = " ".join(sorted(each.lower() for each in unit.maps))
    inner = form
    if isinstance(form, Cons) and form.car is QUOTE and isinstance(form.cdr, Cons):
        inner = form.cdr.car
    bare = (
        inner.name.removeprefix(":") if isinstance(inner, Symbol) else inner.upper() if isinstance(inner, str) else ""
    )
    if bare in unit.maps:
        return f"a map is named as it is: {bare.lower()}"
    return known and f"there is {known}"


def _of_struct(unit: Unit, name: str) -> str:
    """The members of the struct that an accessor's name begins with, as it is spelt."""
    found = [each for each in unit.structs if name.removeprefix("MAKE-").startswith(f"{each}-")]
    if not found:
        return ""
    struct = max(found, key=len)
    near = nearest(name, unit.accessors)
    members = " ".join(each.lower() for each in unit.structs[struct].fields)
    return near or f"`{struct.lower()}` has {members}"


def nearest(name: str, known: Iterable[str]) -> str:
    """The names that are spelt nearly so, as a question."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), 3, 0.75)
    return "did you mean " + " or ".join(f"`{each.lower()}`" for each in near) + "?" if near else ""
