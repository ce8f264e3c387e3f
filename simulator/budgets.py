"""What verifying a program costs, line by line, and budgets that hold it down.

A kernel gives up after a million processed instructions, and loads slowly long before. A budget is a file under version
control with what each program needed when it was written; `Budget.overrun` says what grew since.

Invariant: a budget is written the same for the same programs, sorted, so that its changes can be reviewed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from simulator.program import Program

VERSION: Final = 1
"""Of the form of a budget's file."""


SHOWN_LINES: Final = 8
"""How many lines of the source a report of an overrun shows."""


class BudgetError(Exception):
    """A budget cannot be read; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Instructions processed in a line of the source; of an object without lines, in an instruction.

    `file` is "" where the object has no lines, and then `line` is the slot.
    """

    file: str
    line: int
    text: str
    processed: int

    @property
    def place(self) -> str:
        """The line, as file:line, or "insn N"."""
        return f"{self.file}:{self.line}" if self.file else f"insn {self.line}"


@dataclass(frozen=True, slots=True)
class Effort:
    """What one kernel's verification of a program costs, in processed instructions, the costliest lines first."""

    processed: int
    lines: Sequence[Spent]


@dataclass(frozen=True, slots=True)
class Overrun:
    """A program that needs more than its budget: what is allowed, what it needs, and how its lines changed.

    `grown` has the lines that need more than when the budget was written, with the difference, the largest first.
    """

    allowed: int
    effort: Effort
    grown: Sequence[tuple[Spent, int]] = ()

    @property
    def text(self) -> str:
        """The overrun in a sentence."""
        more = self.effort.processed - self.allowed
        share = f", {more / self.allowed:.1%}" if self.allowed else ""
        return f"{self.effort.processed} instructions processed, {more} more than the budget of {self.allowed}{share}"

    @property
    def told(self) -> list[str]:
        """The lines that grew, or where none did the lines that cost most, as a report shows them."""
        rows = [(f"+{more}", spent) for spent, more in self.grown[:SHOWN_LINES]]
        title = "lines that grew" if rows else "lines that cost most"
        rows = rows or [(str(spent.processed), spent) for spent in self.effort.lines[:SHOWN_LINES]]
        return [f"  | {title}", *(f"  | {count:>8}  {spent.place}: {spent.text}" for count, spent in rows)]


def effort(program: Program, kernel: str = "6.18", kernel_btf: Any = None, cpus: int = 2) -> Effort:
    """Where the verifier of a kernel spends its instructions on a program; arguments as those of `verify`."""
    from bpflisp.spec.btf import read_btf
    from bpflisp.spec.kernels import profile
    from simulator.verifier.effort import visits

    typed = read_btf(kernel_btf) if kernel_btf is not None else None
    counts = visits(program, profile(kernel), typed, cpus)
    spent = _by_line(program, counts) if program.line_info else _by_insn(program, counts)
    return Effort(sum(counts), tuple(sorted(spent, key=lambda one: (-one.processed, one.file, one.line))))


def _by_line(program: Program, counts: Sequence[int]) -> list[Spent]:
    found: dict[tuple[str, int], Spent] = {}
    entries = sorted(program.line_info, key=lambda one: one.insn)
    ends = [*(one.insn for one in entries[1:]), len(counts)]
    for entry, end in zip(entries, ends, strict=True):
        file = entry.file.rsplit("/", 1)[-1]
        before = found.get((file, entry.line))
        processed = sum(counts[entry.insn : end]) + (before.processed if before is not None else 0)
        if processed:
            found[file, entry.line] = Spent(file, entry.line, entry.text.strip(), processed)
    return list(found.values())


def _by_insn(program: Program, counts: Sequence[int]) -> list[Spent]:
    from bpflisp.spec.text import insn_text

    return [
        Spent("", slot, insn_text(insn), counts[slot])
        for slot, insn in enumerate(program.code)
        if insn is not None and counts[slot]
    ]


@dataclass
class Budget:
    """What programs may cost: `programs` maps file, program and kernel to the effort when it was written.

    Files are named from the budget's own folder, with slashes.
    """

    path: Path
    programs: dict[str, dict[str, dict[str, Effort]]] = field(default_factory=dict)

    @staticmethod
    def read(path: str | Path) -> Budget:
        """The budget in a file. Raises BudgetError, and OSError where there is none."""
        found = Budget(Path(path))
        try:
            data = json.loads(found.path.read_text(encoding="utf-8"))
            if data["version"] != VERSION:
                raise BudgetError(f"{path}: a budget of version {data['version']}, and {VERSION} is known")
            for file, programs in data["programs"].items():
                found.programs[file] = {
                    name: {kernel: _read_effort(row) for kernel, row in kernels.items()}
                    for name, kernels in programs.items()
                }
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise BudgetError(f"{path}: no budget: {type(problem).__name__}: {problem}") from None
        return found

    def allowed(self, file: str | Path, program: str, kernel: str) -> Effort | None:
        """What a program may cost; None where the budget does not have it."""
        return self.programs.get(self._name(file), {}).get(program, {}).get(kernel)

    def overrun(self, file: str | Path, program: str, kernel: str, needs: Effort) -> Overrun | None:
        """How a program exceeds its budget; None where it does not, or has none."""
        allowed = self.allowed(file, program, kernel)
        if allowed is None or needs.processed <= allowed.processed:
            return None
        return Overrun(allowed.processed, needs, tuple(_grown(allowed.lines, needs.lines)))

    def note(self, file: str | Path, program: str, kernel: str, needs: Effort) -> None:
        """Makes this the budget of a program."""
        self.programs.setdefault(self._name(file), {}).setdefault(program, {})[kernel] = needs

    def keep_only(self, file: str | Path, programs: Iterable[str]) -> None:
        """Forgets the programs of a file that it no longer has."""
        known, left = self.programs.get(self._name(file), {}), set(programs)
        for name in [name for name in known if name not in left]:
            del known[name]

    def write(self) -> None:
        """Writes the file. Raises OSError."""
        rows = {
            file: {
                name: {kernel: _effort_row(kernels[kernel]) for kernel in sorted(kernels)}
                for name, kernels in sorted(programs.items())
            }
            for file, programs in sorted(self.programs.items())
            if programs
        }
        text = json.dumps({"version": VERSION, "programs": rows}, indent=1) + "\n"
        self.path.write_text(text, encoding="utf-8")

    def _name(self, file: str | Path) -> str:
        return Path(os.path.relpath(file, self.path.parent)).as_posix()


def _effort_row(cost: Effort) -> dict[str, Any]:
    ordered = sorted(cost.lines, key=lambda one: (one.file, one.line))
    return {"processed": cost.processed, "lines": [[one.file, one.line, one.processed, one.text] for one in ordered]}


def _read_effort(row: Mapping[str, Any]) -> Effort:
    lines = [Spent(str(file), int(line), str(text), int(processed)) for file, line, processed, text in row["lines"]]
    return Effort(int(row["processed"]), lines)


def _grown(before: Sequence[Spent], now: Sequence[Spent]) -> list[tuple[Spent, int]]:
    """The lines that cost more than before. Lines are known by their text: their numbers move as code is edited."""
    old: dict[tuple[str, str], int] = {}
    for one in before:
        old[one.file, one.text] = old.get((one.file, one.text), 0) + one.processed
    new: dict[tuple[str, str], tuple[Spent, int]] = {}
    for one in now:
        first, count = new.get((one.file, one.text), (one, 0))
        new[one.file, one.text] = (first, count + one.processed)
    grown = [(first, count - old.get(key, 0)) for key, (first, count) in new.items() if count > old.get(key, 0)]
    return sorted(grown, key=lambda pair: (-pair[1], pair[0].file, pair[0].line))
