"""Generated programs, held against the running kernel: `python -m tests.agreement.generate --count N --seed S`.

Every program is loaded by bpf(2) and verified by us, and verdict, message and count of processed instructions are
compared. Of each way of disagreeing the first is made smaller, and with --keep written to a folder, with the kernel's
answer, as a record of the corpus' form.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import struct
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bpflisp.spec import maps as map_types
from bpflisp.spec import programs
from bpflisp.spec.btf import Btf, read_btf
from bpflisp.spec.helpers import helper_name
from bpflisp.spec.text import insn_text
from simulator.program import MapDef
from simulator.verifier import verify
from tests import oracle
from tests.agreement.code import Code
from tests.agreement.plausible import Draft, draft
from tests.agreement.score import CRASH, Row, Score, report
from tests.agreement.shrink import shrink
from tests.agreement.workers import Lost, work

HOST_BTF = Path("/sys/kernel/btf/vmlinux")
KERNEL = "6.18"
SECONDS = 300.0

TYPES = "types"
"""The name in records of the BTF of `types`, which programs and maps with managed objects have."""

STATISTICS = 4
"""The log level that has the refusal and the counts without the states, which are long for long programs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 where all agree, 1 where some do not, 2 where the kernel cannot be asked."""
    options = _options().parse_args(arguments)
    possible, why = oracle.available()
    if not possible:
        print(f"generate: the kernel cannot be asked: {why}", file=sys.stderr)
        return 2
    seed = int(options.seed or datetime.date.today().strftime("%Y%m%d") + "000000")
    print(f"{options.count} programs from seed {seed}, kernel {KERNEL} against {os.uname().release}")
    rows = _rows(range(seed, seed + options.count), options.jobs, options.seconds)
    score = Score(rows)
    print(report(score))
    if options.record:
        _record(rows, Path(options.record))
    differing = score.disagreements()
    kinds = _kinds(differing)
    print(f"\n{len(differing)} disagreements of {len(kinds)} kinds")
    for name, several in kinds[: options.show]:
        print(f"\n== {len(several)} x {name}")
        smallest = min(several, key=lambda row: len(draft(int(row.id)).code.nodes))
        print(smallest.told())
        if options.shrink:
            _show_shrunk(smallest, options.keep)
    return 1 if differing else 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.agreement.generate", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="how many programs")
    parser.add_argument("--seed", default="", help="the first program's seed; from the date where not given")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="child processes")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop asking after this long")
    parser.add_argument("--show", type=int, default=20, help="how many kinds of disagreement to print")
    parser.add_argument("--shrink", action=argparse.BooleanOptionalAction, default=True, help="make them smaller")
    parser.add_argument("--keep", default="", help="a folder for the small programs")
    parser.add_argument("--record", default="", help="a file for what agrees, as records with the kernel's answer")
    return parser


@cache
def _host_btf() -> Btf | None:
    return read_btf(HOST_BTF) if HOST_BTF.exists() else None


def compare(seed: int) -> dict[str, Any] | None:
    """What the kernel and we say of the program of a seed; None where the kernel cannot be asked of it."""
    return compared(draft(seed))


def compared(program: Draft, code: Code | None = None) -> dict[str, Any] | None:
    """The same of a draft, or of other code in its place."""
    ready = program.program(code)
    try:
        answer = oracle.ask(ready, log_level=STATISTICS)
    except oracle.CannotAskError:
        return None
    started = time.process_time()
    verdict = verify(ready, kernel=KERNEL, kernel_btf=_host_btf(), log_level=0)
    return {
        "verdict": "accept" if answer.accepted else "reject",
        "message": answer.message,
        "insns_processed": answer.insns_processed,
        "errno": answer.errno_name,
        "ours": {
            "accepted": verdict.accepted,
            "message": verdict.message,
            "code": verdict.code,
            "insns_processed": verdict.insns_processed,
            "seconds": time.process_time() - started,
        },
    }


def _nothing() -> None:
    """Children need no preparation: they ask the kernel."""


def _rows(seeds: Iterable[int], jobs: int, seconds: float) -> list[Row]:
    listed = list(seeds)
    rows = []
    unasked, until = 0, time.monotonic() + seconds
    for number, answer in work(compare, listed, jobs=jobs, seconds=SECONDS, prepare=_nothing):
        if answer is not None:
            rows.append(row_of(listed[number], answer))
        unasked += answer is None
        if time.monotonic() > until:
            print(f"stopped after {seconds:.0f} seconds")
            break
    if unasked:
        print(f"{unasked} programs could not be asked of the kernel")
    return sorted(rows, key=lambda row: int(row.id))


def row_of(seed: int, answer: Mapping[str, Any] | Lost) -> Row:
    """The row of a seed's program and its answer."""
    program = draft(seed)
    record: dict[str, Any] = {"id": str(seed), "origin": program.type, "features": program.tiers, "verdict": "lost"}
    if isinstance(answer, Lost):
        return Row.of(record, answer)
    return Row.of(record | dict(answer), answer["ours"])


def _plain(message: str) -> str:
    """A message without its numbers."""
    return re.sub(r"-?(0x[0-9a-f]+|\d+)", "N", message)


def signature(row: Row) -> str:
    """The way in which a row disagrees, without numbers; "" where it agrees."""
    if row.kind == CRASH:
        return f"crash: {_plain(row.message)}"
    if not row.agrees:
        return f"{row.kind}: kernel {_plain(row.kernel_message)!r}, ours {_plain(row.message)!r}"
    if row.accepted:
        return "" if row.same_effort else "another count of processed instructions"
    return "" if row.same_message else f"message: kernel {_plain(row.kernel_message)!r}, ours {_plain(row.message)!r}"


def _kinds(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """The rows by the way in which they disagree, in the order of the rows."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(signature(row), []).append(row)
    return list(found.items())


def _signature_of(program: Draft, seed: int, code: Code) -> str:
    try:
        answer: Mapping[str, Any] | Lost | None = compared(program, code)
    except Exception as error:
        answer = Lost(f"{type(error).__name__}: {error}")
    return signature(row_of(seed, answer)) if answer is not None else ""


def _show_shrunk(row: Row, folder: str) -> None:
    seed = int(row.id)
    program, wanted = draft(seed), signature(row)
    if "no answer within" in row.message:
        return
    small = shrink(program.code, lambda code: _signature_of(program, seed, code) == wanted, 600)
    print(f"  {program.type} {program.attach_type} maps {[m.type for m in program.maps]}, smallest:")
    print("\n".join(f"    {line}" for line in listing(program, small)))
    if folder:
        _keep(program, small, seed, Path(folder))


def listing(program: Draft, code: Code) -> list[str]:
    """The code as the kernel's log prints it."""
    lines, ready = [], program.program(code)
    for slot, insn in enumerate(ready.code):
        if insn is not None:
            named = {insn.imm: helper_name(insn.imm).partition("#")[0]} if insn.opcode == 0x85 and insn.src == 0 else {}
            unread = [f"{name} {getattr(insn, name)}" for name in insn.reserved()]
            text = insn_text(insn, named, ready.kfuncs.get(slot, ""))
            lines.append(f"{slot}: {text}" + (f"  reserved: {', '.join(unread)}" if unread else ""))
    return lines


def _map_records(maps: Sequence[MapDef]) -> list[dict[str, Any]]:
    """The maps as a record has them: the templates of maps in maps after all others."""
    templates = [definition.inner for definition in maps if definition.inner is not None]
    rows = [_map_record(definition) for definition in [*maps, *templates]]
    for row, definition in zip(rows, maps, strict=False):
        if definition.inner is not None:
            row["inner"] = len(maps) + templates.index(definition.inner)
    return rows


def _map_record(definition: MapDef) -> dict[str, Any]:
    kind = map_types.by_name(definition.type)
    return {
        "name": definition.name,
        "type": kind.number if kind else 0,
        "key_size": definition.key_size,
        "value_size": definition.value_size,
        "max_entries": definition.max_entries,
        "map_flags": definition.flags,
        "frozen": definition.frozen,
        "btf": TYPES if definition.btf is not None else None,
        "btf_key": definition.btf_key,
        "btf_value": definition.btf_value,
        "init": definition.init.hex() if definition.init is not None else None,
    }


def record_of(program: Draft, code: Code, name: str) -> dict[str, Any]:
    """A record of the corpus' form, with the kernel's answer."""
    insns = code.encode()
    relocations = [
        [slot, "map" if insn.src == 5 else "map_value", insn.imm]
        for slot, insn in enumerate(program.program(code).code)
        if insn is not None and insn.opcode == 0x18 and insn.src in (5, 6)
    ]
    answer = compared(program, code)
    kernel = {key: value for key, value in (answer or {}).items() if key != "ours"}
    ready = program.program(code)
    functions = b"".join(struct.pack("<II", info.insn, info.type_id) for info in ready.func_info)
    typed: dict[str, Any] = {"kfuncs": {str(slot): name for slot, name in ready.kfuncs.items()}} if ready.kfuncs else {}
    if ready.btf is not None:
        typed |= {"prog_btf": TYPES, "func_info": functions.hex(), "func_info_rec_size": 8}
    if program.target:
        typed["attach_btf_name"] = program.target
    return {
        "id": name,
        "origin": "generated",
        "type": program.type,
        "attach_type": programs.attach_number(program.attach_type) if program.attach_type else 0,
        "prog_flags": program.flags,
        "features": list(program.tiers),
        "license": program.license,
        "insns": insns.hex(),
        "relocs": relocations,
        "maps": _map_records(program.maps),
        **typed,
        **kernel,
        "text": listing(program, code),
    }


def _record(rows: Iterable[Row], file: Path) -> None:
    """Writes the short programs that agree, one of each outcome without its numbers, for runs without a kernel."""
    kept: dict[tuple[str, ...], Row] = {}
    for row in rows:
        if not signature(row) and (row.kernel_processed or 0) < 500:
            kept.setdefault((_plain(row.kernel_message) or ",".join(row.features),), row)
    with file.open("w", encoding="utf-8") as out:
        for row in kept.values():
            program = draft(int(row.id))
            record = record_of(program, program.code, f"generated-{row.id}")
            del record["text"]
            out.write(json.dumps(record) + "\n")


def _keep(program: Draft, code: Code, seed: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    record = record_of(program, code, f"generated-{seed}")
    (folder / f"{record['id']}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
