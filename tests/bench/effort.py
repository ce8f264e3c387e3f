"""What compiling, loading and verifying take."""

from __future__ import annotations

import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from simulator.program import Object, Program
from tests.agreement.fixtures import ROOT, fixture
from tests.bench.timing import microseconds, table

CORPUS = Path(os.environ.get("BPF_CORPUS", ROOT.parent.parent / "shared" / "corpus"))
SAMPLE_SECONDS = 8.0


def sizes(lisp: dict[str, Object], twins: dict[str, Object]) -> str:
    """Slots per program beside those of clang-19 -O2 -mcpu=v3."""
    rows: list[tuple[str, ...]] = []
    ours = theirs = 0
    for name, obj in lisp.items():
        names = fixture(name).twin_names
        for program in obj.values():
            twin = twins[name][names.get(program.name, program.name)]
            slots, beside = len(program.insns) // 8, len(twin.insns) // 8
            ours, theirs = ours + slots, theirs + beside
            rows.append((f"{name}/{program.name}", str(slots), str(beside), f"{slots / beside:.2f}"))
    rows.append(("all", str(ours), str(theirs), f"{ours / theirs:.2f}"))
    return "Slots per program, beside clang-19 -O2 -mcpu=v3:\n" + table(("program", "ours", "clang", "ratio"), rows)


def verified(objects: dict[str, Object]) -> str:
    """Instructions verified a second: the fixtures, and of the corpus' samples as many as fit in some seconds."""
    programs = [program for obj in objects.values() for program in obj.values()]
    processed = sum(program.verify().insns_processed for program in programs)
    spent = microseconds(lambda _: [program.verify() for program in programs], seconds=1.0, rounds=3) / 1e6
    lines = [
        "Instructions verified a second (goal 100,000 over the corpus' samples):",
        f"  fixtures: {processed} instructions of {len(programs)} programs in {spent * 1e3:.1f} ms: "
        f"{processed / spent:,.0f} a second, {spent / len(programs) * 1e3:.2f} ms a program",
    ]
    lines.append(f"  set-up: a straight program of 100 slots in {_straight(100):.2f} ms (goal 5)")
    lines.append(_samples())
    return "\n".join(lines)


def _straight(slots: int) -> float:
    """Milliseconds to verify so many slots without a branch."""
    code = bytes.fromhex("b700000000000000") * (slots - 1) + bytes.fromhex("9500000000000000")

    # A program of its own each time: nothing is remembered from the one before.
    return microseconds(lambda number: Program(code, "xdp", name=f"straight{number}").verify()) / 1e3


def hard_case() -> str:
    """A loop over ever-new unknown numbers, which ends at the million: the slowest that there is."""
    # r8 = 0; do { r8 += prandom() & 1; } while (r8 <= 0x7fffffff): each round r8 may be one more than in all before.
    rows = ("8500000007000000", "5700000001000000", "0f08000000000000", "25080100ffffff7f", "0500fbff00000000")
    code = bytes.fromhex("b708000000000000" + "".join(rows) + "b700000000000000" + "9500000000000000")
    start = time.process_time()
    verdict = Program(code, "xdp").verify()
    spent = time.process_time() - start
    said = verdict.message or "accepted"
    return (
        f"  hard case: {verdict.insns_processed:,} instructions in {spent:.1f} s: "
        f"{verdict.insns_processed / spent:,.0f} a second (goal 75,000); {said}"
    )


def _samples() -> str:
    path = CORPUS / "verdicts.jsonl.gz"
    if not path.exists():
        return f"  samples: {path} is not there (BPF_CORPUS names the folder)"
    with gzip.open(path.with_name("btf.jsonl.gz"), "rt") as lines:
        blobs = {row["name"]: bytes.fromhex(row["hex"]) for row in map(json.loads, lines)}
    with gzip.open(path, "rt") as lines:
        records = [row for row in map(json.loads, lines) if row["origin"] == "samples" and row["verdict"] == "accept"]
    # Spread over the whole file, so that a few seconds see every kind of sample.
    count, processed, spent = 0, 0, 0.0
    for record in records[:: max(1, len(records) // 40)]:
        program = Program.from_record(record, blobs)
        start = time.process_time()
        processed += program.verify().insns_processed
        spent += time.process_time() - start
        count += 1
        if spent > SAMPLE_SECONDS:
            break
    return (
        f"  samples: {processed:,} instructions of {count} programs in {spent:.1f} s: {processed / spent:,.0f} a second"
    )


def compile_time(name: str = "syn_limiter") -> str:
    """Wall time of `bpflisp compile` as a whole process, and of an interpreter that does nothing."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bpflisp", "compile", str(fixture(name).source), "-o", f"{folder}/out.o"]
        took, code = _process(command)
    nothing, _ = _process([sys.executable, "-c", "pass"])
    result = f"{took * 1e3:.0f} ms" if code == 0 else f"failed with exit code {code}"
    return f"bpflisp compile {name}, a whole process: {result} (python alone: {nothing * 1e3:.0f} ms)"


def _process(command: list[str]) -> tuple[float, int]:
    """Median seconds of three runs, and the exit code of the last."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        code = subprocess.run(command, capture_output=True, check=False, timeout=60).returncode
        times.append(time.perf_counter() - start)
    return statistics.median(times), code
