"""What a person is told: sources, spans in them, and diagnostics in one grammar for compiler, verifier and commands.

    file:line:col: error[code]: problem
      | the source line
      |      ^^^^
      = because: what made it so
      = help: what to do

Invariant: `code` is stable, lower case with hyphens; a test, a suppression or a report may rely on it. What is comes
before what should be.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

from bpflisp.lean import dataclass, field

MAX_SHOWN_LINE = 160
"""Characters of a source line that are shown; of a longer one, the part around the caret."""


class Severity(StrEnum):
    """How bad it is: `refused` is the verifier's word, the others are the compiler's."""

    ERROR = "error"
    REFUSED = "refused"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A text and the name that it is known by. Two sources are equal only if they are the same object."""

    name: str
    text: str
    _starts: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        starts = [0]
        at = self.text.find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = self.text.find("\n", at + 1)
        object.__setattr__(self, "_starts", starts)

    def position(self, offset: int) -> tuple[int, int]:
        """The line and column of a character, both counted from 1."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def offset(self, line: int, column: int) -> int:
        """The character at a line and column, both from 1; the inverse of `position`."""
        return self._starts[line - 1] + column - 1

    def line(self, number: int) -> str:
        """The text of a line, counted from 1, without its end; empty where there is no such line."""
        if not 1 <= number <= len(self._starts):
            return ""
        start = self._starts[number - 1]
        end = self._starts[number] - 1 if number < len(self._starts) else len(self.text)
        return self.text[start:end].rstrip("\r")


@dataclass(frozen=True, slots=True)
class Span:
    """The characters `start` up to, not including, `end` of a source."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        """The line of its first character, from 1."""
        return self.source.position(self.start)[0]

    @property
    def column(self) -> int:
        """The column of its first character, from 1."""
        return self.source.position(self.start)[1]

    @property
    def text(self) -> str:
        """The characters themselves."""
        return self.source.text[self.start : self.end]

    def __str__(self) -> str:
        line, column = self.source.position(self.start)
        return f"{self.source.name}:{line}:{column}"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing to tell a person.

    `span` is where it is shown; where there is none, `where` (a file name, a program) stands for it. `lines` are
    further lines of evidence under the source line, such as an instruction and its registers.
    """

    severity: Severity
    code: str
    problem: str
    span: Span | None = None
    because: Sequence[str] = ()
    help: Sequence[str] = ()
    where: str = ""
    lines: Sequence[str] = ()

    @property
    def place(self) -> str:
        """`file:line:col`, or what stands for it; empty where neither is known."""
        return str(self.span) if self.span else self.where

    @property
    def headline(self) -> str:
        """The first line alone: place, severity, code, problem."""
        place = f"{self.place}: " if self.place else ""
        return f"{place}{self.severity}[{self.code}]: {self.problem}"

    def render(self) -> str:
        """The whole of it, without a final newline."""
        shown = _source_lines(self.span) if self.span else []
        return "\n".join(
            [
                self.headline,
                *(f"  | {line}".rstrip() for line in [*shown, *self.lines]),
                *(f"  = because: {reason}" for reason in self.because),
                *(f"  = help: {advice}" for advice in self.help),
            ]
        )

    def __str__(self) -> str:
        return self.render()


def _source_lines(span: Span) -> list[str]:
    """The line that a span starts on, and a line of carets under the part of the span that is on it."""
    number, column = span.source.position(span.start)
    line = span.source.line(number).replace("\t", " ")
    first = min(column - 1, len(line))
    width = max(1, min(span.end - span.start, len(line) - first))
    if len(line) > MAX_SHOWN_LINE:
        cut = max(0, min(first - MAX_SHOWN_LINE // 4, len(line) - MAX_SHOWN_LINE))
        line, first = line[cut : cut + MAX_SHOWN_LINE], first - cut
        width = max(1, min(width, len(line) - first))
    return [line, " " * first + "^" * width]


def error(
    code: str, problem: str, span: Span | None = None, *, because: str = "", help: str = "", where: str = ""
) -> Diagnostic:
    """An error, of one reason and one advice at most; further ones by `dataclasses.replace`."""
    return Diagnostic(Severity.ERROR, code, problem, span, _given(because), _given(help), where)


def warning(code: str, problem: str, span: Span | None = None, *, because: str = "", help: str = "") -> Diagnostic:
    """A warning: the program is compiled, but is surely not what was meant."""
    return Diagnostic(Severity.WARNING, code, problem, span, _given(because), _given(help))


def _given(text: str) -> tuple[str, ...]:
    return (text,) if text else ()


class Diagnostics:
    """What one run has to tell, in the order of its finding; the same thing at the same place only once."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Diagnostic] = {}

    def add(self, diagnostic: Diagnostic) -> None:
        """Keep it, unless it has been said of the same place before."""
        self._found.setdefault((diagnostic.place, diagnostic.code, diagnostic.problem), diagnostic)

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Keep each of them."""
        for diagnostic in diagnostics:
            self.add(diagnostic)

    def __iter__(self) -> Iterator[Diagnostic]:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)

    @property
    def errors(self) -> list[Diagnostic]:
        """The errors alone."""
        return [d for d in self if d.severity is Severity.ERROR]

    @property
    def warnings(self) -> list[Diagnostic]:
        """The warnings alone."""
        return [d for d in self if d.severity is Severity.WARNING]

    def in_order(self) -> list[Diagnostic]:
        """All of them in the order of the text, so that a file is read from top to bottom."""
        return sorted(self, key=lambda d: (d.span.source.name, d.span.start) if d.span else ("", 0))

    def raise_errors(self) -> None:
        """Raise `CompileError` with all that was found, if an error is among it."""
        if self.errors:
            raise CompileError(self.in_order())


class CompileError(Exception):
    """A text that cannot be compiled. `diagnostics` are the errors and warnings, in the order of the text."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n\n".join(d.render() for d in self.diagnostics))

    @property
    def errors(self) -> list[Diagnostic]:
        """The errors alone."""
        return [d for d in self.diagnostics if d.severity is Severity.ERROR]
