"""Do the engines run programs as the kernel does? `python -m tests.agreement.engines [--corpus FILE]`.

Programs that the kernel accepts, generated or of a corpus, are run on packets in worlds with filled maps: by each of
our engines and by the kernel, packet after packet. Compared are the return value, the packet, the maps and the ring
buffers. A fault is a disagreement: an accepted program never faults. What the kernel itself does not do twice alike (it
leaked an address, or read stack that nobody wrote) is set aside.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from bpflisp.spec import programs
from bpflisp.spec.isa import CALL_HELPER, Kind
from simulator.engines import bpf_syscall
from simulator.engines.bpf_syscall import BpfError
from simulator.engines.engine import EngineUnavailable
from simulator.engines.kernel import KernelRefusedError
from simulator.engines.kernel_load import Resources, program_request
from simulator.engines.kernel_maps import PLAIN_TYPES
from simulator.maps.base import MapError
from simulator.outcome import Outcome
from simulator.packet import PACKET_TYPES, InputRefused
from simulator.program import Program
from simulator.run import run
from simulator.world import World
from tests.agreement.workers import Lost, work
from tests.engines import HERE

ENGINES = HERE
FUEL = 2_000_000

HELD_RUNS = 1_000_000
"""How often the program that holds memory runs: some tens of milliseconds."""

MANY = 256
"""Entries of an LRU map that no program here fills."""

NOT_THE_WORLD_S = frozenset({5, 7, 35, 80, 109, 117, 118, 119, 120, 123, 125, 158, 160, 208})
"""Helpers, by number, that tell the kernel's time, chance, tasks and cgroups, or signal the process: not a world's."""

KINDS = ("agree", "differ", "fault", "unmodelled", "set aside", "not run", "lost")


@dataclass(frozen=True, slots=True)
class Result:
    """One program on one engine: `kind` is one of KINDS; `detail` says more."""

    id: str
    engine: str
    kind: str
    detail: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints how many programs agree, by engine; exit code 1 where one differs, faults or is lost."""
    options = _options().parse_args(arguments)
    tasks: list[Any] = list(_records(options)) if options.corpus else _seeds(options)
    runner = partial(run_record if options.corpus else run_seed, tuple(options.engines), options.seed)
    results: list[Result] = []
    for number, answer in work(runner, tasks, jobs=options.jobs, seconds=options.timeout, prepare=_nothing):
        name = tasks[number]["id"] if options.corpus else str(tasks[number])
        rows = [("-", "lost", answer.why)] if isinstance(answer, Lost) else answer
        results += [Result(name, *row) for row in rows]
    print(f"seed {options.seed}, {len(tasks)} programs")
    return _report(results, options.show)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.agreement.engines", description=__doc__)
    parser.add_argument("--corpus", type=Path, help="records, one a line, .gz; their BTF in btf.jsonl.gz beside it")
    parser.add_argument("--programs", type=int, default=1000, metavar="N", help="how many to generate")
    parser.add_argument("--seed", type=int, default=int(time.strftime("%Y%m%d")), help="(default: the date)")
    parser.add_argument("--engines", nargs="+", default=ENGINES)
    parser.add_argument("--only", default="", metavar="REGEX", help="of a corpus, only ids that it is found in")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="of a corpus, at most N programs")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="list N disagreements")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    parser.add_argument("--timeout", type=float, default=60, metavar="S", help="seconds for one program")
    return parser


def _nothing() -> None:
    """Children need no preparation: they ask the kernel."""


def _seeds(options: argparse.Namespace) -> list[Any]:
    return [options.seed * 1_000_000 + number for number in range(options.programs)]


def _records(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    with gzip.open(options.corpus, "rt") as lines:
        rows = (row for row in map(json.loads, lines) if row["verdict"] == "accept")
        rows = (row for row in rows if re.search(options.only, row["id"]))
        for number, row in enumerate(rows):
            if options.limit and number >= options.limit:
                return
            yield row | {"blobs": str(options.corpus.with_name("btf.jsonl.gz"))}


# ---- in the children -------------------------------------------------------------------------------------------------


@cache
def _blobs(path: str) -> Mapping[str, bytes]:
    with gzip.open(path, "rt") as lines:
        return {row["name"]: bytes.fromhex(row["hex"]) for row in map(json.loads, lines)}


def run_record(engines: Sequence[str], seed: int, record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(engine, kind, detail) of a corpus program."""
    program = Program.from_record(record, _blobs(record["blobs"]))
    given = [bytes.fromhex(row["data"]) for row in record.get("runs", ())]
    return compare(program, f"{seed}/{record['id']}", engines, given)


def run_seed(engines: Sequence[str], seed: int, number: int) -> list[tuple[str, str, str]]:
    """(engine, kind, detail) of a generated program."""
    from tests.agreement.plausible import draft

    return compare(draft(number).program(), f"{seed}/{number}", engines)


def compare(
    program: Program, seed: str, engines: Sequence[str], given: Sequence[bytes] = ()
) -> list[tuple[str, str, str]]:
    """Runs the program everywhere on the same packets in equal worlds; what came of it, by engine."""
    aside = _not_comparable(program)
    if aside:
        return [("kernel", *aside)]
    rng = random.Random(seed)
    try:
        world = filled_world(program, rng)
    except (MapError, ValueError) as error:
        return [(engine, "unmodelled", str(error)) for engine in engines]
    inputs = [*given[:2], *packets(rng)] if program.type in PACKET_TYPES else [None]
    try:
        truth = play(program, world.copy(), inputs, "kernel")
        again = _elsewhere(program, world.copy(), inputs)
    except KernelRefusedError:
        return [("kernel", "not run", "the kernel refuses it")]
    except (EngineUnavailable, InputRefused, BpfError, OSError) as error:
        return [("kernel", "not run", str(error))]
    if truth != again:
        return [("kernel", "set aside", "the kernel does not do it twice alike")]
    return [(engine, *_judged(program, world.copy(), inputs, engine, truth)) for engine in engines]


def _not_comparable(program: Program) -> tuple[str, str] | None:
    """Why the program cannot be compared, if so."""
    kind = programs.by_name(program.type)
    if kind is None or not kind.test_run:
        return "not run", f"{program.type} has no test run"
    calls = (insn for insn in program.code if insn is not None and insn.row.kind is Kind.CALL)
    if any(insn.src == CALL_HELPER and insn.imm in NOT_THE_WORLD_S for insn in calls):
        return "set aside", "it asks for the host's time, chance, task or cgroup"
    if any("lru" in definition.type and definition.max_entries < MANY for definition in program.maps):
        return "set aside", "which entry a full LRU map gives up is the kernel's own"
    return None


def filled_world(program: Program, rng: random.Random) -> World:
    """A world whose plain maps hold some entries: small keys, that programs look for, and small and large values."""
    world = World()
    # The task is the one that runs this; the second run is another thread's, so what depends on it is set aside.
    world.task.pid = world.task.tgid = os.getpid()
    world.task.uid, world.task.gid = os.getuid(), os.getgid()
    world.task.comm = Path("/proc/self/comm").read_text().strip()
    for found in world.bind(program):
        made = found.definition
        if made.type not in PLAIN_TYPES or made.frozen or made.init is not None or made.type == "lpm_trie":
            continue
        for number in range(min(made.max_entries, 6)):
            if rng.random() < 0.7:
                found.update(number.to_bytes(made.key_size, "little"), _value(rng, found.user_value_size))
    return world


def _value(rng: random.Random, size: int) -> bytes:
    if rng.random() < 0.3:
        return bytes(size)
    if rng.random() < 0.5:
        return rng.randrange(256).to_bytes(size, "little")
    return rng.randbytes(size)


def packets(rng: random.Random) -> list[bytes]:
    """Packets of several kinds: zeros, noise, and IPv4 with TCP or UDP, whole and cut."""
    ethernet = rng.randbytes(6) + bytes(6) + b"\x08\x00"
    protocol = rng.choice((6, 17, 1))
    transport = rng.randrange(1024).to_bytes(2, "big") + rng.choice((7, 23, 53, 80, 443)).to_bytes(2, "big")
    body = transport + rng.randbytes(rng.randrange(20, 120))
    ip = b"\x45\0" + (20 + len(body)).to_bytes(2, "big") + bytes(5) + bytes([protocol]) + rng.randbytes(10)
    whole = ethernet + ip + body
    return [bytes(64), whole, whole[: rng.randrange(34, len(whole))], bytes(12) + b"\x88\xb5" + rng.randbytes(100)]


@dataclass(frozen=True)
class Seen:
    """What one run left behind: its value, the packet, and all that the maps hold."""

    retval: int
    packet: bytes | None
    maps: Mapping[str, Any]
    context: Mapping[str, int]


def play(program: Program, world: World, inputs: Sequence[bytes | None], engine: str) -> list[Seen]:
    """Runs the inputs in order; what each left behind. Raises _Fault where one faults."""
    seen = []
    for number, packet in enumerate(inputs):
        outcome = run(program, packet, world, engine, fuel=FUEL)
        if outcome.fault is not None:
            raise _FaultError(number, outcome)
        seen.append(Seen(outcome.retval, outcome.packet, _contents(world), outcome.context))
    return seen


class _FaultError(Exception):
    def __init__(self, number: int, outcome: Outcome) -> None:
        assert outcome.fault is not None
        self.fault = outcome.fault
        super().__init__(f"run {number}, slot {self.fault.insn}: {self.fault.message}")


def _contents(world: World) -> dict[str, Any]:
    contents: dict[str, Any] = {}
    for name, found in world.maps.items():
        if found.definition.type in PLAIN_TYPES:
            contents[name] = dict(found.raw_items())
        elif found.definition.type == "ringbuf":
            contents[name] = list(found)
    return contents


def _elsewhere(program: Program, world: World, inputs: Sequence[bytes | None]) -> list[Seen]:
    """The kernel's run once more, with stack, context, packet and maps at other addresses.

    It runs from another thread, whose kernel stack is another, and while a long run of a program that does nothing has
    the memory that the kernel would give to the packet.
    """
    result: list[Any] = []

    def again() -> None:
        try:
            result.append(play(program, world, inputs, "kernel"))
        except Exception as error:
            result.append(error)

    busy = threading.Thread(target=_hold_memory, args=(program, world.cpu, inputs[0]))
    thread = threading.Thread(target=again)
    busy.start()
    time.sleep(0.002)
    thread.start()
    thread.join()
    busy.join()
    if isinstance(result[0], Exception):
        raise result[0]
    seen: list[Seen] = result[0]
    return seen


def _hold_memory(program: Program, cpu: int, packet: bytes | None) -> None:
    if packet is None:
        return
    nothing = replace(program, insns=bytes.fromhex("b7000000000000009500000000000000"), maps=(), btf=None, func_info=())
    os.sched_setaffinity(0, {cpu})
    with Resources() as kit:
        handle = kit.keep(bpf_syscall.prog_load(program_request(nothing, kit)).handle)
        bpf_syscall.prog_test_run(handle.fd, packet, repeat=HELD_RUNS)


def _judged(
    program: Program, world: World, inputs: Sequence[bytes | None], engine: str, truth: Sequence[Seen]
) -> tuple[str, str]:
    try:
        ours = play(program, world, inputs, engine)
    except _FaultError as error:
        return "unmodelled" if error.fault.kind == "helper" else "fault", str(error)
    except EngineUnavailable as error:
        return "not run", str(error)
    except InputRefused as error:
        return "differ", f"we refuse what the kernel takes: {error}"
    for number, (mine, kernel) in enumerate(zip(ours, truth, strict=True)):
        what = _difference(mine, kernel)
        if what:
            return "differ", f"run {number}: {what}"
    return "agree", ""


def _difference(ours: Seen, kernel: Seen) -> str:
    """The first thing in which two runs differ, "" where none does."""
    if ours.retval != kernel.retval:
        return f"returned {ours.retval:#x}, the kernel {kernel.retval:#x}"
    if ours.packet != kernel.packet:
        return f"packet {_hex(ours.packet)}, the kernel's {_hex(kernel.packet)}"
    for name, value in kernel.context.items():
        if ours.context.get(name, value) != value:
            return f"context field {name} is {ours.context[name]:#x}, the kernel's {value:#x}"
    for name in kernel.maps:
        if ours.maps[name] != kernel.maps[name]:
            return f"map {name}: {_map_difference(ours.maps[name], kernel.maps[name])}"
    return ""


def _map_difference(ours: Any, kernel: Any) -> str:
    if isinstance(ours, list):
        return f"records {[row.hex() for row in ours]}, the kernel's {[row.hex() for row in kernel]}"
    keys = [key for key in ours.keys() | kernel.keys() if ours.get(key) != kernel.get(key)]
    return ", ".join(f"[{key.hex()}] is {_hex(ours.get(key))}, the kernel's {_hex(kernel.get(key))}" for key in keys)


def _hex(data: bytes | None) -> str:
    return "none" if data is None else data.hex()


# ---- in the parent ---------------------------------------------------------------------------------------------------


def _report(results: Sequence[Result], show: int) -> int:
    counts = Counter((result.engine, result.kind) for result in results)
    print(f"{'engine':12}" + "".join(kind.rjust(12) for kind in KINDS))
    for engine in sorted({result.engine for result in results}):
        print(f"{engine:12}" + "".join(str(counts[engine, kind]).rjust(12) for kind in KINDS))
    for kind in ("unmodelled", "set aside", "not run"):
        reasons = Counter(re.sub(r"run \d+, slot \d+: ", "", row.detail) for row in results if row.kind == kind)
        for detail, number in reasons.most_common(10):
            print(f"  {kind} {number:4}: {detail[:140]}")
    wrong = [result for result in results if result.kind in ("differ", "fault", "lost")]
    for result in wrong[:show]:
        print(f"{result.kind}: {result.id} on {result.engine}: {result.detail[:400]}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
