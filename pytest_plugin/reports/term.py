"""Coverage for a terminal: a line for each program, what did not run, the sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_plugin.reports.sources import locator, ranges, shown
from simulator.coverage import Coverage, ProgramCoverage, Share

_HEAD = ("program", "insns", "run", "cover", "branches", "not run")


def lines(coverage: Coverage, root: Path) -> list[str]:
    """The table."""
    rows: list[tuple[str, ...]] = [_HEAD]
    locate = locator(root)
    for program in coverage.programs:
        path = shown(program.path, root) if program.path else ""
        name = program.program.name or program.program.type
        missing = _missing(program, locate)
        rows.append(_row(f"{path}::{name}" if path else name, program.instructions(), program.outcomes(), missing))
    rows.append(_row("total", coverage.instructions(), coverage.outcomes(), ""))
    widths = [max(len(row[at]) for row in rows) for at in range(5)]
    return ["  ".join([row[0].ljust(widths[0]), *_right(row, widths), row[5]]).rstrip() for row in rows]


def _row(name: str, insns: Share, outcomes: Share, missing: str) -> tuple[str, ...]:
    # Rounded down, so that 100 % is all of it.
    return name, str(insns.of), str(insns.hit), f"{int(insns.percent)}%", f"{outcomes.hit}/{outcomes.of}", missing


def _right(row: tuple[str, ...], widths: list[int]) -> Iterator[str]:
    return (cell.rjust(width) for cell, width in zip(row[1:5], widths[1:], strict=True))


def _missing(program: ProgramCoverage, locate: Callable[[ProgramCoverage, str], str]) -> str:
    """The source lines that did not run, by file; after them those of which a part did; slots where the object has no
    line information."""
    executed, ran = program.executed, program.lines()
    slots = [at for at, insn in enumerate(program.program.code) if insn is not None and not executed[at]]
    found: dict[tuple[str, bool], set[int]] = {}
    for line in (program.line_of[at] for at in slots):
        if line is None or not line.line:
            return f"insns {ranges(slots)}"
        found.setdefault((line.file, ran[line.file, line.line] > 0), set()).add(line.line)
    parts = sorted(found.items(), key=lambda part: (part[0][1], part[0][0]))
    return "; ".join(
        f"{'in part ' if partly else ''}{locate(program, file)}:{ranges(sorted(numbers))}"
        for (file, partly), numbers in parts
    )
