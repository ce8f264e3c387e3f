"""The host's part of a file, which loads, attaches and reads: it is passed over, and a warning says so.

The book's sessions (`with-bpf-session`) hold maps and programs (`bpf:map`, `bpf:prog`) among forms of the host, and
other files end in `compile-to-elf` and in calls of the loader. Here a file is compiled and not run: the object holds
the maps and programs, and whoever loads it does the host's part.
"""

from __future__ import annotations

from collections.abc import Iterator

from bpflisp.diagnostics import warning
from bpflisp.front.unit import Unit
from bpflisp.syntax.forms import NIL, Cons, Symbol, cells, intern, span_of, text

_SESSION = "WITH-BPF-SESSION"
_LOADER = frozenset({
    "COMPILE-TO-ELF", "COMPILE-FILE*", "DISASSEMBLE-CU", "IR-DUMP", "RESET-COMPILATION-STATE", "WITH-BPF-OBJECT",
    "OPEN-BPF-OBJECT", "LOAD-BPF-OBJECT", "CLOSE-BPF-OBJECT", "OPEN-OBJECT", "LOAD-PROGRAM", "ATTACH-KPROBE",
    "ATTACH-UPROBE", "ATTACH-TRACEPOINT", "ATTACH-XDP", "ATTACH-TC", "ATTACH-CGROUP", "ATTACH-OBJ-KPROBE",
    "ATTACH-OBJ-UPROBE", "ATTACH-OBJ-TRACEPOINT", "ATTACH-OBJ-XDP", "ATTACH-OBJ-TC", "ATTACH-OBJ-CGROUP",
    "ATTACH-LSM", "ATTACH-FENTRY", "ATTACH-KPROBE-MULTI", "ATTACH-SK-LOOKUP", "ATTACH-PERF-TIMER", "ATTACH-PROFILE",
    "TC-ADD-CLSACT", "TC-ATTACH", "PROG-TEST-RUN", "OPEN-RING-CONSUMER", "OPEN-DECODING-RING-CONSUMER",
    "WITH-RINGBUF-CONSUMER", "WITH-DECODING-RING-CONSUMER", "RING-POLL", "CLOSE-RING-CONSUMER",
})  # fmt: skip
_HOST = _LOADER | {_SESSION}
"""What begins a form of the host: of the compiler as a library, or of its loader."""
_DECLARES = {"MAP": "DEFMAP", "PROG": "DEFPROG"}
_DEFINING = ("DEFMACRO", "DEFPROG", "DEFSUBPROG")


def take(unit: Unit, form: object) -> bool:
    """Whether a top-level form is the host's: holds a session or a call of the loader, or calls a function that does.
    The maps and programs of its sessions are then defined."""
    if not isinstance(form, Cons) or _head(form) in _DEFINING:
        return False
    if _head(form) in unit.host_functions:
        return True
    found = [each for each in _host_forms(form) if not _is_defined(unit, each)]
    if not found:
        return False
    if _head(form) == "PROGN":
        for cell in cells(form.cdr):
            if not take(unit, cell.car):
                unit.interpreter.toplevel(cell.car)
        return True
    if _head(form) == "DEFUN" and isinstance(form.cdr, Cons) and isinstance(form.cdr.car, Symbol):
        unit.host_functions.add(form.cdr.car.name)
    sessions = [each for each in found if _head(each) == _SESSION]
    for session in sessions:
        _define(unit, session)
    if not sessions:
        _tell(unit, f"`{text(found[0].car)}` is the host's, and is not compiled", found[0])
    return True


def _is_defined(unit: Unit, form: Cons) -> bool:
    """Whether the file itself defines what the loader's form is named."""
    return form.car in unit.interpreter.functions or form.car in unit.interpreter.macros


def _head(form: object) -> str:
    return form.car.name if isinstance(form, Cons) and isinstance(form.car, Symbol) else ""


def _host_forms(form: Cons) -> Iterator[Cons]:
    """The forms of the host in a form, the outermost only."""
    todo: list[object] = [form]
    while todo:
        each = todo.pop()
        if isinstance(each, Cons):
            if _head(each) in _HOST:
                yield each
            else:
                todo += [cell.car for cell in cells(each)][::-1]


def _define(unit: Unit, session: Cons) -> None:
    for cell in cells(session.cdr):
        form = cell.car
        name = _DECLARES.get(_head(form))
        # `(map 'list ...)` is Common Lisp's: a map of BPF has a name and options.
        if name and isinstance(form, Cons) and isinstance(form.cdr, Cons) and _is_name(form.cdr.car):
            unit.interpreter.toplevel(Cons(intern(name), form.cdr, form.span, form.car_span))
    _tell(unit, "the host's part of `with-bpf-session` is not compiled", session)


def _tell(unit: Unit, problem: str, form: Cons) -> None:
    because = "the object holds the maps and programs; to attach and read them is up to who loads it"
    unit.found.add(warning("host-part", problem, span_of(form), because=because))


def _is_name(form: object) -> bool:
    return isinstance(form, Symbol) and form is not NIL and not form.is_keyword
