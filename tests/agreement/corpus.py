"""How often our verdict is the kernel's: `python -m tests.agreement.corpus FILE`.

FILE has a record a line, in the form of corpus/verdicts.jsonl.gz. Every program is verified in a child process that may
not call bpf(2); a crash or a time-out there is a result of its own. Printed: a table by origin and one by feature.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import IO, Any

from tests import no_bpf
from tests.agreement.score import Row, Score, report
from tests.agreement.workers import work

HOST_BTF = Path("/sys/kernel/btf/vmlinux")
MEMORY_LIMIT = 4 << 30


@dataclass(frozen=True, slots=True)
class Setup:
    """What every child is given: which kernel's verdict, and the files with BTF."""

    kernel: str
    kernel_btf: str
    blobs: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Scores a file. Exit code 2 where a file cannot be read, else 0: the table is the answer."""
    options = _options().parse_args(arguments)
    try:
        records, setup = _inputs(options)
    except (OSError, ValueError) as error:
        print(f"corpus: {error}", file=sys.stderr)
        return 2
    print(f"{len(records)} programs of {options.file}, kernel {setup.kernel}, its BTF: {setup.kernel_btf or 'none'}")
    rows = _rows(records, setup, options.jobs, options.timeout)
    score = Score(rows)
    print(report(score))
    if options.show:
        print("\n".join(row.told() for row in score.disagreements()[: options.show]))
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.agreement.corpus", description=__doc__)
    parser.add_argument("file", type=Path, help="records, one a line, .gz or plain")
    parser.add_argument("--btf", type=Path, help="the BTF that they name (default: btf.jsonl.gz beside FILE)")
    parser.add_argument("--kernel", default="6.18", help="whose verdict to give (default 6.18)")
    parser.add_argument("--kernels", type=Path, help="what other kernels answered; --kernel picks which")
    parser.add_argument("--kernel-btf", type=Path, help="BTF of that kernel (default: the running one's, or one kept)")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="list N disagreements")
    parser.add_argument("--json", metavar="OUT", help="write every result")
    parser.add_argument("--only", default="", metavar="REGEX", help="only programs whose id it is found in")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="at most N programs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    parser.add_argument("--timeout", type=float, default=120, metavar="S", help="seconds for one program")
    return parser


def open_text(path: Path) -> IO[str]:
    return gzip.open(path, "rt") if path.suffix == ".gz" else path.open()


def _inputs(options: argparse.Namespace) -> tuple[list[dict[str, Any]], Setup]:
    """The records with the asked kernel's answer in them, and what the children need."""
    with open_text(options.file) as lines:
        records = _scorable([json.loads(line) for line in lines if line.strip()])
    if options.only:
        records = [record for record in records if re.search(options.only, str(record.get("id", "")))]
    kernel = options.kernel
    if options.kernels:
        kernel, records = _answered_by(options.kernels, kernel, records)
    if options.limit:
        records = records[: options.limit]
    file = options.btf or options.file.with_name("btf.jsonl.gz")
    if options.btf and not file.exists():
        raise FileNotFoundError(f"{file} is not there")
    return records, Setup(kernel, _kernel_btf(options, kernel), str(file) if file.exists() else "")


def _scorable(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """The records that have a verdict to be held against; how many have none is said."""
    found = [row for row in rows if isinstance(row, dict) and row.get("verdict") in ("accept", "reject")]
    if len(found) < len(rows):
        print(f"{len(rows) - len(found)} lines without a verdict are left out", file=sys.stderr)
    return found


def _answered_by(path: Path, kernel: str, records: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """(release, the records that it was asked about, with its answers). "6.1" means the 6.1.x that is there."""
    with open_text(path) as lines:
        answers = {row["id"]: row["kernels"] for row in map(json.loads, lines)}
    releases = {release for row in answers.values() for release in row}
    chosen = [release for release in releases if release == kernel or release.startswith(f"{kernel}.")]
    if len(chosen) != 1:
        raise ValueError(f"kernel {kernel} is not one of {', '.join(sorted(releases))}")
    release = chosen[0]
    asked = [record for record in records if release in answers.get(record.get("id"), {})]
    return release, [{**record, "message": "", **answers[record["id"]][release]} for record in asked]


def _kernel_btf(options: argparse.Namespace, kernel: str) -> str:
    """The BTF file to give to `verify`: the one named; the host's where it runs that kernel; else the one kept of it.

    Kept are `../data/btf/vmlinux-<release>.btf` or `.btf.xz`, from where the records are.
    """
    if options.kernel_btf:
        return str(options.kernel_btf.resolve(strict=True))
    release = platform.release()
    if (release == kernel or release.startswith(f"{kernel}.")) and HOST_BTF.exists():
        return str(HOST_BTF)
    kept = options.file.resolve().parent.parent / "data" / "btf" / f"vmlinux-{kernel}.btf"
    return next((str(path) for path in (kept, kept.with_suffix(".btf.xz")) if path.exists()), "")


# ---- in the children -------------------------------------------------------------------------------------------------


def prepare() -> None:
    """Shuts bpf(2) and bounds the memory, before anything of the verifier is imported."""
    no_bpf.forbid_bpf()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))


@cache
def blobs(path: str) -> Mapping[str, bytes]:
    if not path:
        return {}
    with open_text(Path(path)) as lines:
        return {row["name"]: bytes.fromhex(row["hex"]) for row in map(json.loads, lines)}


@cache
def kernel_types(path: str) -> Any:
    if not path:
        return None
    import lzma

    from bpflisp.spec.btf import read_btf

    return read_btf(lzma.decompress(Path(path).read_bytes()) if path.endswith(".xz") else path)


def verify_record(setup: Setup, record: dict[str, Any]) -> dict[str, Any]:
    """Our answer to one record, and the CPU seconds that it took."""
    from simulator.program import Program

    program = Program.from_record(record, blobs(setup.blobs))
    kernel_btf = kernel_types(setup.kernel_btf)
    start = time.process_time()
    verdict = program.verify(kernel=setup.kernel, kernel_btf=kernel_btf)
    return {
        "accepted": verdict.accepted,
        "message": verdict.message,
        "code": verdict.code,
        "insns_processed": verdict.insns_processed,
        "seconds": time.process_time() - start,
    }


# ---- in the parent ---------------------------------------------------------------------------------------------------


def _rows(records: list[dict[str, Any]], setup: Setup, jobs: int, seconds: float) -> list[Row]:
    """The results in the order of the records."""
    rows: dict[int, Row] = {}
    tasks = work(partial(verify_record, setup), records, jobs=jobs, seconds=seconds, prepare=prepare)
    for number, answer in tasks:
        rows[number] = Row.of(records[number], answer)
        _progress(len(rows), len(records))
    return [rows[number] for number in sorted(rows)]


def _progress(done: int, of: int) -> None:
    """One line on a terminal; nothing in a pipe."""
    if sys.stderr.isatty():
        print(f"\r{done}/{of}", end="\n" if done == of else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
