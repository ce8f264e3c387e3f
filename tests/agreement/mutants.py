"""Changed programs of a corpus, held against the running kernel: `python -m tests.agreement.mutants FILE`.

Each seed takes a record of FILE (the form of the corpus), changes its code, its maps, its types or what it is loaded
as, and asks bpf(2) and us about what comes of it: verdict, message, count of processed instructions. Of each way of
disagreeing the smallest is made smaller still, and with --keep written to a folder with the kernel's answer.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from bpflisp.spec.btf import BtfKind
from bpflisp.spec.helpers import helper_name
from bpflisp.spec.isa import CALL_KFUNC
from bpflisp.spec.text import insn_text
from simulator.program import Program
from simulator.verifier import verify
from simulator.verifier.refusal import UNCLASSED
from tests import oracle
from tests.agreement import corpus
from tests.agreement.code import Code
from tests.agreement.generate import KERNEL, STATISTICS, signature
from tests.agreement.record_changes import Pool, mutant
from tests.agreement.record_code import code_of, with_code
from tests.agreement.score import Row, Score, report
from tests.agreement.shrink import shrink
from tests.agreement.workers import Lost, work

SECONDS = 120.0

COSTLY = 20_000
"""Instructions that the kernel may process of a mutant before we are not asked: an endless loop takes us long."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 where all agree, 1 where some do not, 2 where the kernel cannot be asked, or the file not read."""
    options = _options().parse_args(arguments)
    possible, why = oracle.available()
    if not possible:
        print(f"mutants: the kernel cannot be asked: {why}", file=sys.stderr)
        return 2
    blobs = options.btf or options.file.with_name("btf.jsonl.gz")
    try:
        source = Source(str(options.file), str(blobs) if blobs.exists() else "", options.only, options.most)
        records = source.pool.records
    except (OSError, ValueError) as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    if not records:
        print(f"mutants: {options.file} has no record to change", file=sys.stderr)
        return 2
    seed = int(options.seed or datetime.date.today().strftime("%Y%m%d") + "000000")
    print(f"{options.count} mutants of {len(records)} programs from seed {seed}, kernel {os.uname().release}")
    rows = _rows(source, range(seed, seed + options.count), options.jobs, options.seconds)
    score = Score(rows)
    print(report(score))
    unclassed = sorted({row.message for row in rows if row.code == UNCLASSED and row.message})
    if unclassed:
        print("\nmessages in no class:\n" + "\n".join(f"  {message}" for message in unclassed))
    if options.json:
        Path(options.json).write_text(json.dumps([row.told() for row in score.disagreements()], indent=1) + "\n")
    kinds = _kinds(score.disagreements())
    print(f"\n{sum(map(len, kinds.values()))} disagreements of {len(kinds)} kinds")
    for name, several in list(kinds.items())[: options.show]:
        print(f"\n== {len(several)} x {name}")
        _show(source, min(several, key=lambda row: row.kernel_processed or 0), options.shrink, options.keep)
    return 1 if kinds else 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.agreement.mutants", description=__doc__)
    parser.add_argument("file", type=Path, help="records, one a line, .gz or plain")
    parser.add_argument("--btf", type=Path, help="the BTF that they name (default: btf.jsonl.gz beside FILE)")
    parser.add_argument("--only", default="", metavar="REGEX", help="only of programs whose id it is found in")
    parser.add_argument("--most", type=int, default=1000, help="only of programs that process at most so much")
    parser.add_argument("--count", type=int, default=10_000, help="how many mutants")
    parser.add_argument("--seed", default="", help="the first mutant's seed; from the date where not given")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="child processes")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop asking after this long")
    parser.add_argument("--show", type=int, default=20, help="how many kinds of disagreement to print")
    parser.add_argument("--shrink", action=argparse.BooleanOptionalAction, default=True, help="make them smaller")
    parser.add_argument("--keep", default="", help="a folder for the small programs")
    parser.add_argument("--json", default="", metavar="OUT", help="write every disagreement")
    return parser


@dataclass(frozen=True)
class Source:
    """Where the records are: their file, the file of their BTF ("" for none), which of them, by id and by effort."""

    file: str
    btf: str
    only: str = ""
    most: int = 1000

    @property
    def pool(self) -> Pool:
        """The records that are changed."""
        return _pool(self.file, self.only, self.most)

    @property
    def blobs(self) -> Mapping[str, bytes]:
        """The BTF that they name."""
        return corpus.blobs(self.btf)

    def mutant(self, seed: int) -> dict[str, Any]:
        """The record that a seed makes."""
        return mutant(self.pool, self.blobs, seed)


@cache
def _pool(file: str, only: str, most: int) -> Pool:
    with corpus.open_text(Path(file)) as lines:
        records = [json.loads(line) for line in lines if line.strip()]
    kept = [one for one in records if re.search(only, one["id"]) and (one.get("insns_processed") or 0) <= most]
    return Pool(kept)


def compare(source: Source, seed: int) -> dict[str, Any] | None:
    """What the kernel and we say of the mutant of a seed; None where the kernel cannot be asked of it."""
    return compared(source.mutant(seed), source.blobs)


def compared(record: Mapping[str, Any], blobs: Mapping[str, bytes]) -> dict[str, Any] | None:
    """The same of a record."""
    try:
        program = Program.from_record(record, blobs)
    except ValueError:
        return None
    if not _calls_what_is_there(program):
        return None
    try:
        answer = oracle.ask(program, log_level=STATISTICS)
    except oracle.CannotAskError:
        return None
    if (answer.insns_processed or 0) > COSTLY or answer.errno_name == "EPERM":
        return None
    kernel = {
        "id": record["id"],
        "origin": record.get("origin", ""),
        "features": (),
        "verdict": "accept" if answer.accepted else "reject",
        "message": answer.message,
        "insns_processed": answer.insns_processed,
        "errno": answer.errno,
    }
    started = time.process_time()
    types = corpus.kernel_types(str(corpus.HOST_BTF)) if corpus.HOST_BTF.exists() else None
    try:
        verdict = verify(program, kernel=KERNEL, kernel_btf=types, log_level=0)
    except Exception as error:
        return kernel | {"ours": Lost(f"{type(error).__name__}: {error}", traceback.format_exc())}
    ours = {
        "accepted": verdict.accepted,
        "message": verdict.message,
        "code": verdict.code,
        "insns_processed": verdict.insns_processed,
        "seconds": time.process_time() - started,
    }
    return kernel | {"ours": ours}


def _calls_what_is_there(program: Program) -> bool:
    """Whether each kernel function called has a name, and the running kernel has it: else its number says nothing."""
    types = corpus.kernel_types(str(corpus.HOST_BTF)) if corpus.HOST_BTF.exists() else None
    for slot, insn in enumerate(program.code):
        if insn is not None and insn.opcode == 0x85 and insn.src == CALL_KFUNC:
            name = program.kfuncs.get(slot, "")
            if not name or (types is not None and types.find(name, BtfKind.FUNC) is None):
                return False
    return True


def _nothing() -> None:
    """Children need no preparation: they ask the kernel."""


def _rows(source: Source, seeds: range, jobs: int, seconds: float) -> list[Row]:
    rows, unasked, until = {}, 0, time.monotonic() + seconds
    for number, answer in work(partial(compare, source), seeds, jobs=jobs, seconds=SECONDS, prepare=_nothing):
        unasked += answer is None
        if isinstance(answer, Lost):
            answer = {"id": f"{seeds[number]}/?", "verdict": "lost", "ours": answer}
        if answer is not None:
            rows[number] = Row.of(answer, answer["ours"])
        if time.monotonic() > until:
            print(f"stopped after {seconds:.0f} seconds")
            break
    print(f"{unasked} mutants could not be asked of the kernel, or take it long")
    return [rows[number] for number in sorted(rows)]


def _kinds(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(signature(row), []).append(row)
    return found


# ---- one disagreement, made smaller ----------------------------------------------------------------------------------


def _show(source: Source, row: Row, smaller: bool, folder: str) -> None:
    print(row.told())
    if "no answer within" in row.message or not smaller:
        return
    record = source.mutant(int(row.id.split("/")[0]))
    small = smallest(record, source.blobs, signature(row))
    print("\n".join(f"    {line}" for line in listing(small, source.blobs)))
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        kept = record_with_answer(small, source.blobs)
        (Path(folder) / f"{row.id.replace('/', '-')}.json").write_text(json.dumps(kept) + "\n", encoding="utf-8")


def smallest(record: dict[str, Any], blobs: Mapping[str, bytes], wanted: str, budget: int = 500) -> dict[str, Any]:
    """The least record found that disagrees in this way."""
    try:
        before = code_of(record, Program.from_record(record, blobs))
    except ValueError:
        return record

    def holds(code: Code) -> bool:
        answer = compared(with_code(record, before, code), blobs) if code.nodes else None
        return answer is not None and signature(Row.of(answer, answer["ours"])) == wanted

    return with_code(record, before, shrink(before, holds, budget)) if holds(before) else record


def listing(record: Mapping[str, Any], blobs: Mapping[str, bytes]) -> list[str]:
    """What a record is loaded as, its maps, and its code as the kernel's log prints it."""
    program = Program.from_record(record, blobs)
    kinds = [
        f"{each.type} {each.key_size} {each.value_size} {each.max_entries} {each.flags:#x}" for each in program.maps
    ]
    lines = [
        f"{program.type} {program.attach_type} {program.attach_target} flags {program.flags:#x} {program.license} "
        f"maps {kinds} functions {[info.insn for info in program.func_info]}"
    ]
    for slot, insn in enumerate(program.code):
        if insn is not None:
            named = {insn.imm: helper_name(insn.imm).partition("#")[0]} if insn.opcode == 0x85 and insn.src == 0 else {}
            lines.append(f"{slot}: {insn_text(insn, named, program.kfuncs.get(slot, ''))}")
    return lines


def record_with_answer(record: Mapping[str, Any], blobs: Mapping[str, bytes]) -> dict[str, Any]:
    """The record with the running kernel's answer."""
    answer = compared(record, blobs) or {}
    kept = {key: value for key, value in record.items() if key not in ("runs", "log_tail", "features", "n_insns")}
    return kept | {key: answer.get(key) for key in ("verdict", "message", "insns_processed", "errno")}


if __name__ == "__main__":
    sys.exit(main())
