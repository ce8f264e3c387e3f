"""What runs executed of unmodified programs: by instruction, by source line, by branch.

    with measuring() as coverage:
        fw(packet)
    coverage.programs[0].executed[3]

Invariant: nothing is added to a program. The engines `python` and `reference` count; a run on another one is not seen.
Where one source line was compiled into several places, it ran as often as the one that ran most.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

from bpflisp.spec.isa import Kind
from simulator.engines.counting import CountingPython, CountingReference, Counts
from simulator.engines.engine import Engine
from simulator.observers import observing
from simulator.program import LineInfo, MapDef, Object, Program
from simulator.run import standing_in
from simulator.verdict import Verdict

MEASURED = ("python", "reference")
"""The engines that count."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A conditional jump: its slot, its source line, and how often it was taken and fell through."""

    slot: int
    line: LineInfo | None
    taken: int
    fallen: int


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many."""

    hit: int
    of: int

    @property
    def percent(self) -> float:
        """100 where there is nothing to hit."""
        return 100.0 * self.hit / self.of if self.of else 100.0

    def __add__(self, other: Share) -> Share:
        return Share(self.hit + other.hit, self.of + other.of)


class ProgramCoverage:
    """What was executed of one program. `functions` names those of its slots where a function starts."""

    def __init__(self, program: Program, path: str = "", functions: Mapping[int, str] | None = None) -> None:
        self.program, self.path = program, path
        self.functions = dict(functions) if functions is not None else _functions(program)
        self.counts = Counts(len(program.code))

    @property
    def executed(self) -> Sequence[int]:
        """How often each slot was executed; 0 for the second half of a 64-bit load."""
        return self.counts.executed

    @cached_property
    def line_of(self) -> Sequence[LineInfo | None]:
        """The source line of each slot."""
        found: list[LineInfo | None] = [None] * len(self.program.code)
        for line in self.program.line_info:
            if 0 <= line.insn < len(found):
                found[line.insn] = line
        for slot in range(1, len(found)):
            found[slot] = found[slot] or found[slot - 1]
        return found

    def branches(self) -> Iterator[Branch]:
        """The conditional jumps."""
        outcomes = self.counts.outcomes
        for slot, insn in enumerate(self.program.code):
            if insn is not None and insn.row.kind is Kind.BRANCH:
                yield Branch(slot, self.line_of[slot], outcomes[2 * slot + 1], outcomes[2 * slot])

    def instructions(self) -> Share:
        """How many instructions ran at least once."""
        executed = self.executed
        slots = [slot for slot, insn in enumerate(self.program.code) if insn is not None]
        return Share(sum(executed[slot] > 0 for slot in slots), len(slots))

    def outcomes(self) -> Share:
        """How many outcomes of branches were seen, of two each."""
        seen = [(branch.taken > 0) + (branch.fallen > 0) for branch in self.branches()]
        return Share(sum(seen), 2 * len(seen))

    def lines(self) -> dict[tuple[str, int], int]:
        """How often each source line ran, by file and number."""
        executed, most = self.executed, dict[tuple[str, int], int]()
        for slot, line in enumerate(self.line_of):
            if line is not None and line.line and self.program.code[slot] is not None:
                place = line.file, line.line
                most[place] = max(most.get(place, 0), executed[slot])
        return most


@dataclass
class SourceCoverage:
    """What was executed of one source file: lines by number, branches by line, functions by name with their line."""

    file: str
    lines: dict[int, int] = field(default_factory=dict)
    branches: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """For each line its branches: how often taken, how often not."""
    functions: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Name -> first line, how often entered."""
    texts: dict[int, str] = field(default_factory=dict)
    """The text of lines as the object keeps it."""


class Coverage:
    """Of each program what was executed; programs that are the same in several objects are one."""

    def __init__(self) -> None:
        self._found: dict[str, ProgramCoverage] = {}
        self._judged: dict[str, bool] = {}
        self._met: dict[int, tuple[Program, Counts]] = {}

    @property
    def programs(self) -> Sequence[ProgramCoverage]:
        """Every program that was met, by path and name; but for those that verifiers refused and that never ran."""
        shown = [found for key, found in self._found.items() if self._judged.get(key, True) or any(found.executed)]
        return sorted(shown, key=lambda found: (found.path, found.program.name))

    def __bool__(self) -> bool:
        return bool(self.programs)

    def loaded(self, obj: Object) -> None:
        """What is loaded and never called counts as not executed."""
        for program in obj.programs.values():
            self.add(program)

    def judged(self, program: Program, verdict: Verdict) -> None:
        """Remembers whether any kernel takes a program."""
        key = _key(program)
        self._judged[key] = verdict.accepted or self._judged.get(key, False)

    def add(self, program: Program) -> ProgramCoverage:
        """Makes a program known, and the others of its object: what never runs counts as not executed."""
        for sibling in (program, *program.siblings.values()):
            key = _key(sibling)
            if key not in self._found:
                self._found[key] = ProgramCoverage(sibling, sibling.origin)
        return self._found[_key(program)]

    def counts_of(self, program: Program) -> Counts:
        """Where a program's runs are counted."""
        met = self._met.get(id(program))
        if met is None:
            # It holds on to the program, so that the id stays its own.
            met = self._met[id(program)] = program, self.add(program).counts
        return met[1]

    def instructions(self) -> Share:
        """Over all programs."""
        return sum((found.instructions() for found in self.programs), Share(0, 0))

    def outcomes(self) -> Share:
        """Over all programs."""
        return sum((found.outcomes() for found in self.programs), Share(0, 0))

    def sources(self, locate: Callable[[ProgramCoverage, str], str] | None = None) -> list[SourceCoverage]:
        """By source file. Counts of a line are added up over programs.

        `locate` gives a file of a program its name in the result: those of one name are one.
        """
        found: dict[str, SourceCoverage] = {}
        for program in self.programs:
            own: dict[str, SourceCoverage] = {}
            for (file, line), count in program.lines().items():
                if file not in own:
                    name = locate(program, file) if locate is not None else file
                    own[file] = found.setdefault(name, SourceCoverage(name))
                own[file].lines[line] = own[file].lines.get(line, 0) + count
            _add_details(own, program)
        return [found[file] for file in sorted(found)]

    def to_json(self) -> str:
        """All of it as text, to be merged elsewhere."""
        records = [_as_record(found) for found in self._found.values()]
        return json.dumps({"programs": records, "judged": self._judged})

    def merge_json(self, text: str) -> None:
        """Adds what `to_json` gave, in this process or another one."""
        read = json.loads(text)
        for key, accepted in read["judged"].items():
            self._judged[key] = accepted or self._judged.get(key, False)
        for record in read["programs"]:
            program = _from_record(record)
            key = _key(program)
            if key not in self._found:
                self._found[key] = ProgramCoverage(
                    program, record["path"], {int(slot): name for slot, name in record["functions"].items()}
                )
            self._found[key].counts.add(record["executed"], record["outcomes"])


@contextmanager
def measuring(coverage: Coverage | None = None) -> Iterator[Coverage]:
    """Counts what the engines `python` and `reference` execute, and notes what is loaded, while it lasts."""
    coverage = coverage if coverage is not None else Coverage()
    counting: dict[str, Engine] = {"python": CountingPython(coverage.counts_of)}
    counting["reference"] = CountingReference(coverage.counts_of)
    with standing_in(counting), observing(coverage):
        yield coverage


def _add_details(found: Mapping[str, SourceCoverage], program: ProgramCoverage) -> None:
    for line in program.program.line_info:
        if line.file in found and line.text:
            found[line.file].texts.setdefault(line.line, line.text)
    for branch in program.branches():
        if branch.line is not None and branch.line.line:
            sides = found[branch.line.file].branches.setdefault(branch.line.line, [])
            sides.append((branch.taken, branch.fallen))
    executed = program.executed
    for slot, name in program.functions.items():
        start = program.line_of[slot] if slot < len(program.line_of) else None
        if start is not None and start.line:
            functions = found[start.file].functions
            first, entered = functions.get(name, (start.line, 0))
            functions[name] = first, entered + executed[slot]


def _functions(program: Program) -> dict[int, str]:
    if program.btf is None or not program.func_info:
        return {0: program.name or program.type}
    return {info.insn: program.btf.type(info.type_id).name for info in program.func_info}


def _key(program: Program) -> str:
    key = program.__dict__.get("_coverage_key")
    if key is None:
        parts = (program.name, program.section, program.type, program.insns.hex())
        key = program.__dict__["_coverage_key"] = sha256("\0".join(parts).encode()).hexdigest()
    assert isinstance(key, str)
    return key


def _as_record(found: ProgramCoverage) -> dict[str, Any]:
    program = found.program
    return {
        "path": found.path,
        "name": program.name,
        "section": program.section,
        "type": program.type,
        "insns": program.insns.hex(),
        "maps": [[made.name, made.type] for made in program.maps],
        "kfuncs": dict(program.kfuncs),
        "lines": [[line.insn, line.file, line.text, line.line, line.column] for line in program.line_info],
        "functions": found.functions,
        "executed": list(found.executed),
        "outcomes": found.counts.outcomes,
    }


def _from_record(record: Mapping[str, Any]) -> Program:
    return Program(
        bytes.fromhex(record["insns"]),
        record["type"],
        [MapDef(name, kind) for name, kind in record["maps"]],
        name=record["name"],
        section=record["section"],
        line_info=[LineInfo(*line) for line in record["lines"]],
        kfuncs={int(slot): name for slot, name in record["kfuncs"].items()},
    )
