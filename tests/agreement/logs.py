"""How often our log is the running kernel's, line by line: `python -m tests.agreement.logs FILE`.

FILE has records of the form of corpus/verdicts.jsonl.gz. Each program is loaded by bpf(2) and verified by us, at each
of the log levels asked for, and the whole texts are compared. Only what no two loads have alike is taken out of
both: the addresses that 64-bit loads of maps, variables and functions show, the time that a verification took.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from simulator.program import Program
from tests import oracle
from tests.agreement import corpus
from tests.agreement.score import percent
from tests.agreement.workers import Lost, work

KERNEL = "6.18"
LOG_LIMIT = 16 << 20
"""Bytes of a log; of one that is longer nothing is compared."""

_LOAD = re.compile(r"\b(\d+): ([0-9.]{10} )?\(18\) (r\d+) = 0x[0-9a-f]+")
_TIME = re.compile(r"verification time \d+ usec")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 where all logs are alike, 1 where some are not, 2 where the kernel cannot be asked, or the file."""
    options = _options().parse_args(arguments)
    possible, why = oracle.available()
    if not possible:
        print(f"logs: the kernel cannot be asked: {why}", file=sys.stderr)
        return 2
    try:
        records, blobs = _inputs(options)
    except (OSError, ValueError) as error:
        print(f"logs: {error}", file=sys.stderr)
        return 2
    levels = [int(level) for level in options.levels.split(",")]
    tasks = [{"record": record, "level": level} for level in levels for record in records]
    rows = list(_rows(tasks, blobs, options.jobs, options.timeout))
    for level in levels:
        print(_line(level, [row for row in rows if row["level"] == level]))
    differing = [row for row in rows if row["kind"] not in ("same", "not asked")]
    print(_classes(differing, options.show))
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if differing else 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.agreement.logs", description=__doc__)
    parser.add_argument("file", type=Path, help="records, one a line, .gz or plain")
    parser.add_argument("--btf", type=Path, help="the BTF that they name (default: btf.jsonl.gz beside FILE)")
    parser.add_argument("--levels", default="1,2", metavar="L,L", help="log levels (default 1,2)")
    parser.add_argument("--only", default="", metavar="REGEX", help="only programs whose id it is found in")
    parser.add_argument("--step", type=int, default=1, metavar="N", help="only every Nth program")
    parser.add_argument(
        "--most", type=int, default=3000, metavar="N", help="only programs that process at most N instructions"
    )
    parser.add_argument("--show", type=int, default=10, metavar="N", help="show N kinds of difference")
    parser.add_argument("--json", metavar="OUT", help="write every result")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    parser.add_argument("--timeout", type=float, default=60, metavar="S", help="seconds for one program")
    return parser


def _inputs(options: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    with corpus.open_text(options.file) as lines:
        records = [json.loads(line) for line in lines if line.strip()]
    records = [one for one in records if re.search(options.only, one["id"])]
    records = [one for one in records if (one.get("insns_processed") or 0) <= options.most]
    blobs = options.btf or options.file.with_name("btf.jsonl.gz")
    return records[:: options.step], str(blobs) if blobs.exists() else ""


def _rows(tasks: list[dict[str, Any]], blobs: str, jobs: int, seconds: float) -> Iterable[dict[str, Any]]:
    for number, answer in work(partial(compare_record, blobs), tasks, jobs=jobs, seconds=seconds, prepare=_nothing):
        task = tasks[number]
        known = {"id": task["record"]["id"], "level": task["level"]}
        found = {"kind": "lost", "kernel": answer.why, "ours": answer.detail} if isinstance(answer, Lost) else answer
        yield known | found


def _nothing() -> None:
    """Children need no preparation: they ask the kernel."""


def compare_record(blobs: str, task: Mapping[str, Any]) -> dict[str, Any]:
    """What comes of one record at one level."""
    program = Program.from_record(task["record"], corpus.blobs(blobs))
    return compare(program, task["level"])


def compare(program: Program, level: int, kernel_btf: Any = None) -> dict[str, Any]:
    """Whether both logs of a program are alike, else where they first differ."""
    from simulator import verify

    try:
        answer = oracle.ask(program, level, LOG_LIMIT)
    except oracle.CannotAskError as error:
        return {"kind": "not asked", "kernel": str(error), "ours": ""}
    if answer.errno_name == "ENOSPC" or not answer.log:
        return {"kind": "not asked", "kernel": answer.errno_name, "ours": ""}
    if kernel_btf is None:
        kernel_btf = corpus.kernel_types(str(corpus.HOST_BTF)) if corpus.HOST_BTF.exists() else None
    verdict = verify(program, KERNEL, kernel_btf, log_level=level)
    theirs, ours = (comparable(program, log) for log in (answer.log, verdict.log))
    if verdict.accepted != answer.accepted:
        return {"kind": "verdict", "kernel": answer.message, "ours": verdict.message}
    for number, (kernel_line, our_line) in enumerate(zip([*theirs, ""], [*ours, ""], strict=False)):
        if kernel_line != our_line:
            return {"kind": "differs", "at": number, "kernel": kernel_line, "ours": our_line}
    return {"kind": "same" if len(theirs) == len(ours) else "differs", "at": len(ours), "kernel": "", "ours": ""}


def comparable(program: Program, log: str) -> list[str]:
    """A log's lines without addresses and times."""
    slots = {
        str(slot) for slot, insn in enumerate(program.code) if insn is not None and insn.opcode == 0x18 and insn.src
    }

    def hide(found: re.Match[str]) -> str:
        return f"{found[1]}: {found[2] or ''}(18) {found[3]} = ADDRESS" if found[1] in slots else found[0]

    # the column where a comment begins depends on the length of the address before it
    lines = []
    for line in log.splitlines():
        masked = _TIME.sub("verification time N usec", _LOAD.sub(hide, line))
        lines.append(re.sub(r" +;", " ;", masked) if masked != line else line)
    return lines


def _line(level: int, rows: Sequence[Mapping[str, Any]]) -> str:
    kinds = [row["kind"] for row in rows]
    asked = len(rows) - kinds.count("not asked")
    same = kinds.count("same")
    others = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("differs", "verdict", "lost", "not asked"))
    return f"level {level}: {same} of {asked} logs are the kernel's ({percent(same, asked)}); {others}"


def signature(row: Mapping[str, Any]) -> str:
    """A difference without its numbers and names."""
    both = (re.sub(r"-?(0x[0-9a-f]+|\d+)", "N", str(row[side])) for side in ("kernel", "ours"))
    return f"{row['kind']}\n    kernel {next(both)}\n    ours   {next(both)}"


def _classes(rows: Sequence[Mapping[str, Any]], shown: int) -> str:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(signature(row), []).append(row)
    lines = [f"{len(rows)} differ in {len(found)} ways"]
    for several in sorted(found.values(), key=len, reverse=True)[:shown]:
        row = several[0]
        lines += [f"{len(several)} x {row['kind']}, as {row['id']} at level {row['level']}, line {row.get('at', '-')}"]
        lines += [f"  kernel {row['kernel']}", f"  ours   {row['ours']}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
