"""What prints at compile time: into an output that `with-output-to-string` makes. Compiling has no other output, so
what goes to another stream is not written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bpflisp.syntax.data import Function, Output, keywords_of, string_of
from bpflisp.syntax.forms import NIL, Character, T, fail, intern, text

if TYPE_CHECKING:
    from bpflisp.syntax.evaluator import Interpreter

STANDARD_OUTPUT = intern("*STANDARD-OUTPUT*")
STREAMS = {STANDARD_OUTPUT: T} | {
    intern(f"*{name}*"): intern(f":{name}") for name in ("ERROR-OUTPUT", "TRACE-OUTPUT", "DEBUG-IO", "TERMINAL-IO")
}
"""The variables that are streams at first: none of them is written to."""


def _formatted(control: Any, args: list[Any]) -> str:
    from bpflisp.syntax.format import format_text  # most sources print nothing

    return format_text(control, args)


class _Printer:
    """Functions that write to a stream: one that is given, or what `*standard-output*` is bound to."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.interpreter = interpreter

    def _write(self, stream: Any, written: str) -> None:
        if stream is NIL or stream is T:
            stream = self.interpreter.variables.get(STANDARD_OUTPUT)
        if isinstance(stream, Output):
            stream.write(written)

    def format(self, destination: Any, control: Any, *args: Any) -> object:
        """To a string where the destination is nil."""
        written = _formatted(control, list(args))
        if destination is NIL:
            return written
        self._write(destination, written)
        return NIL

    def princ(self, value: Any, stream: Any = NIL) -> object:
        """For people to read: strings without quotes."""
        self._write(stream, _formatted("~a", [value]))
        return value

    def prin1(self, value: Any, stream: Any = NIL) -> object:
        """As it would be read."""
        self._write(stream, _formatted("~s", [value]))
        return value

    def print(self, value: Any, stream: Any = NIL) -> object:
        """The same on a line of its own, with a space after it."""
        self._write(stream, _formatted("~%~s ", [value]))
        return value

    def write_string(self, value: Any, stream: Any = NIL, *rest: Any) -> object:
        """A string, or the part of it from `:start` to `:end`."""
        options = keywords_of(rest)
        end = options.get("END", NIL)
        self._write(stream, string_of(value)[options.get("START", 0) : None if end is NIL else end])
        return value

    def write_line(self, value: Any, stream: Any = NIL, *rest: Any) -> object:
        """The same, and the end of the line."""
        self.write_string(value, stream, *rest)
        self._write(stream, "\n")
        return value

    def write_char(self, value: Any, stream: Any = NIL) -> object:
        """One character."""
        if not isinstance(value, Character):
            raise fail("bad-argument", f"`write-char` writes a character, not `{text(value, 40)}`")
        self._write(stream, value.char)
        return value

    def terpri(self, stream: Any = NIL) -> object:
        """The end of a line."""
        self._write(stream, "\n")
        return NIL


def printing(interpreter: Interpreter) -> dict[str, Function]:
    """All of them, by upper-case name."""
    printer = _Printer(interpreter)
    names = [name for name in vars(_Printer) if not name.startswith("_")]
    return {name.upper().replace("_", "-"): getattr(printer, name) for name in names}
