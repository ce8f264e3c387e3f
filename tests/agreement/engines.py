"""Do the engines run programs as the kernel does? `python -m tests.agreement.engines [--corpus FILE]`.

Programs that the kernel accepts, generated or of a corpus, are run in worlds whose maps are filled in several ways, on
packets of several kinds: by each of our engines and by the kernel. Compared are the return value, the packet, the
context's fields, the maps, and the records of ring buffers and perf event arrays. A fault is a disagreement: an
accepted program never faults. Programs that the kernel cannot run, or that ask for what is the host's own, are held
against our first engine instead ("agree: ours").
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from simulator.maps.base import MapError
from simulator.packet import PACKET_TYPES, Input
from simulator.program import Program
from tests.agreement.code import Code
from tests.agreement.plausible import OWN, RUNS, Draft, draft
from tests.agreement.runs_compared import BAD, Plan, Tally, compare, not_comparable, plan
from tests.agreement.workers import Lost, work
from tests.engines import HERE

ENGINES = HERE
SIZE = (5, 8)
"""States and inputs of a generated program."""

Counts = Mapping[tuple[str, str], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints how many cases agree, by engine; exit code 1 where one differs, faults or is lost."""
    options = _options().parse_args(arguments)
    tasks: list[Any] = list(_records(options)) if options.corpus else _seeds(options)
    runner = partial(run_record if options.corpus else run_seed, tuple(options.engines), tuple(options.size))
    total: Counter[tuple[str, str]] = Counter()
    words: list[tuple[str, str, str, str]] = []
    start, done = time.monotonic(), 0
    for number, answer in work(runner, tasks, jobs=options.jobs, seconds=options.timeout, prepare=_nothing):
        name = tasks[number]["id"] if options.corpus else str(tasks[number])
        counts, said = ({("-", "lost"): 1}, {("-", "lost"): answer.why}) if isinstance(answer, Lost) else answer
        total.update(counts)
        words += [(name, *key, word) for key, word in said.items()]
        done += 1
        if time.monotonic() - start > options.seconds:
            break
    spent = time.monotonic() - start
    print(f"seed {options.seed}, {done} programs of {options.size[0]} states x {options.size[1]} inputs")
    wrong = _report(total, words, options.show, spent)
    if wrong and not options.corpus:
        for name in list(dict.fromkeys(row[0] for row in words if row[2] in BAD))[: options.shrink]:
            shrunk(int(name), tuple(options.engines), tuple(options.size), options.keep)
    return 1 if wrong else 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.agreement.engines", description=__doc__)
    parser.add_argument("--corpus", type=Path, help="records, one a line, .gz; their BTF in btf.jsonl.gz beside it")
    parser.add_argument("--programs", type=int, default=1000, metavar="N", help="how many to generate")
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, metavar=("STATES", "INPUTS"), help="of each program")
    parser.add_argument("--seed", type=int, default=int(time.strftime("%Y%m%d")) * 1_000_000, help="(from the date)")
    parser.add_argument("--engines", nargs="+", default=ENGINES)
    parser.add_argument("--only", default="", metavar="REGEX", help="of a corpus, only ids that it is found in")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="of a corpus, at most N programs")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="list N disagreements")
    parser.add_argument("--shrink", type=int, default=3, metavar="N", help="make the first N that disagree smaller")
    parser.add_argument(
        "--keep", type=Path, help="a file to add them to, a line each, as tests.agreement.recorded does"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    parser.add_argument("--timeout", type=float, default=60, metavar="S", help="seconds for one program")
    parser.add_argument("--seconds", type=float, default=float("inf"), metavar="S", help="stop after so long")
    return parser


def _nothing() -> None:
    """Children need no preparation: they ask the kernel."""


def _seeds(options: argparse.Namespace) -> list[Any]:
    return [options.seed + number for number in range(options.programs)]


def _records(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    with gzip.open(options.corpus, "rt") as lines:
        rows = (row for row in map(json.loads, lines) if row["verdict"] == "accept")
        rows = (row for row in rows if re.search(options.only, row["id"]))
        for number, row in enumerate(rows):
            if options.limit and number >= options.limit:
                return
            yield row | {"blobs": str(options.corpus.with_name("btf.jsonl.gz"))}


# ---- in the children -------------------------------------------------------------------------------------------------

Said = tuple[dict[tuple[str, str], int], dict[tuple[str, str], str]]


@cache
def _blobs(path: str) -> Mapping[str, bytes]:
    with gzip.open(path, "rt") as lines:
        return {row["name"]: bytes.fromhex(row["hex"]) for row in map(json.loads, lines)}


def run_record(engines: Sequence[str], size: tuple[int, int], record: Mapping[str, Any]) -> Said:
    """The tally of a corpus program; its recorded packets come first."""
    program = Program.from_record(record, _blobs(record["blobs"]))
    why = not_comparable(program)
    if why is not None:
        return {("kernel", why[0]): 1}, {("kernel", why[0]): why[1]}
    try:
        todo = plan(program, record["id"], size, {})
    except (MapError, ValueError) as error:
        return {("kernel", "unmodelled"): 1}, {("kernel", "unmodelled"): str(error)}
    if program.type in PACKET_TYPES:
        given = [Input(bytes.fromhex(row["data"]), {}) for row in record.get("runs", ())]
        todo = replace(todo, inputs=[*given[:2], *todo.inputs])
    return _told(compare(program, todo, engines))


def run_seed(engines: Sequence[str], size: tuple[int, int], number: int) -> Said:
    """The tally of a generated program."""
    program, todo = generated(number, size)
    return _told(compare(program, todo, engines))


def drafted(number: int, kind: tuple[str, str] | None = None) -> Draft:
    """The draft of a seed: one in ten is of a type that the kernel does not test-run."""
    return draft(number, RUNS if number % 10 else OWN, kind)


def generated(number: int, size: tuple[int, int] = SIZE) -> tuple[Program, Plan]:
    """The program of a seed, and what it is run on; its prog arrays have programs of the seeds after it."""
    own = drafted(number)
    program, others = own.program(), {}
    if any(made.type == "prog_array" for made in program.maps):
        kind = own.type, own.attach_type
        for place in (0, 3):
            other = drafted(number + 1_000_000_000 * (place + 1), kind).program()
            maps = [replace(made, name=f"t{place}{made.name}", slots={}) for made in other.maps]
            others[f"t{place}"] = replace(other, maps=maps, name=f"t{place}")
        slots = {0: "t0", 3: "t3"}
        maps = [replace(made, slots=slots) if made.type == "prog_array" else made for made in program.maps]
        program = replace(program, maps=maps)
    return program, plan(program, str(number), size, others)


def _told(tally: Tally) -> Said:
    return tally.counts, tally.words


# ---- in the parent ---------------------------------------------------------------------------------------------------


def _report(total: Counts, words: Sequence[tuple[str, str, str, str]], show: int, spent: float) -> int:
    kinds = sorted({kind for _, kind in total}, key=lambda kind: (kind not in ("agree", "agree: ours"), kind))
    print(f"{'engine':12}" + "".join(kind.rjust(13) for kind in kinds))
    for engine in sorted({engine for engine, _ in total}):
        print(f"{engine:12}" + "".join(str(total.get((engine, kind), 0)).rjust(13) for kind in kinds))
    cases = max((number for (_, kind), number in total.items() if kind == "agree"), default=0)
    print(f"{cases} cases beside the kernel in {spent:.0f} s: {cases / max(spent, 0.001):.0f} a second")
    for kind in ("unmodelled", "set aside", "not run", "long"):
        reasons = Counter(word for _, _, said, word in words if said == kind)
        for word, number in reasons.most_common(10):
            print(f"  {kind}, {number} programs: {word[:140]}")
    wrong = [row for row in words if row[2] in BAD]
    for name, engine, kind, word in wrong[:show]:
        print(f"{kind}: {name} on {engine}: {word[:400]}")
    print(f"{len({row[0] for row in wrong})} programs disagree")
    return len(wrong)


def shrunk(number: int, engines: Sequence[str], size: tuple[int, int], keep: Path | None) -> None:
    """Prints the least program found that still disagrees, and keeps it with what the kernel made of it."""
    from tests.agreement.generate import listing
    from tests.agreement.recorded import row_of
    from tests.agreement.shrink import shrink

    own = drafted(number)
    program, todo = generated(number, size)

    def as_program(code: Code) -> Program:
        return replace(own.program(code), maps=program.maps)

    def wrong(code: Code) -> str:
        said = compare(as_program(code), todo, engines).words
        return next((word for (_, kind), word in said.items() if kind in BAD), "")

    if not wrong(own.code):
        print(f"{number} agrees by itself: what differs hangs on what ran before")
        return
    small = shrink(own.code, lambda code: bool(wrong(code)), 400)
    print(f"smallest of {number}: {own.type}, maps {[made.type for made in program.maps]}: {wrong(small)[:400]}")
    print("\n".join(f"    {line}" for line in listing(own, small)))
    if keep is not None:
        with keep.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row_of(as_program(small), todo, f"generated-{number}")) + "\n")


if __name__ == "__main__":
    sys.exit(main())
