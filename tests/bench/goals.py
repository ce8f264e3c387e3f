"""The speed that the engines are to have, and whether they have it: a row a goal, most as ratios within one run."""

from __future__ import annotations

import itertools
import statistics
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from simulator.engines import bpf_syscall
from simulator.engines.kernel_load import Resources, program_request
from simulator.loader import load
from simulator.program import MapDef, Program
from simulator.run import run, run_many
from simulator.world import World
from tests.bench import yardstick
from tests.bench.timing import against, microseconds, table
from tests.engines import HERE

# Engine and program of programs.json -> the part of the yardstick's time that it may take.
PLAIN = {
    ("python", "xorshift1k"): 0.08, ("python", "cksum"): 0.12, ("native", "xorshift1k"): 0.0022,
    ("native", "cksum"): 0.018,
}  # fmt: skip
XDP, XDP_IN_BATCHES = 0.125, 0.038
BATCH = 1024
"""Packets at one call of run_many."""
FLOWS = MapDef("flows", "hash", key_size=16, value_size=16, max_entries=4096)
_NUMBERS = itertools.count()
OBJECT = Path("fixtures/twins/rate_limiter.o")

Once = Callable[[int], object]


def report() -> str:
    """The table."""
    lines = [
        (what, f"{measured:.{4 if measured < 0.1 else 3}f}", f"{goal:g}", "yes" if measured <= goal else "NO")
        for what, measured, goal in _rows()
    ]
    head = "Goals (ratios are of interleaved rounds in one process; ms are CPU time of this machine now):\n"
    return head + table(("goal", "measured", "at most", "met"), lines) + "\n" + "\n".join(_told())


def _rows() -> Iterator[tuple[str, float, float]]:
    memory = bytes.fromhex(yardstick.DATA["data1500"])
    for (engine, name), goal in PLAIN.items():
        if engine in HERE:
            program = Program(bytes.fromhex(yardstick.DATA["programs"][name]), "conformance", name=name)
            ratio = against(_on_memory(program, memory, engine), yardstick.prepare(name))
            yield f"{engine} {name}, of the yardstick", ratio, goal
    xdp = Program(bytes.fromhex(yardstick.DATA["programs"]["xdp"]), "xdp", [FLOWS], name="xdp")
    yield "python xdp with a hash map, of the yardstick", against(_on_packets(xdp), yardstick.prepare("xdp")), XDP
    if "native" in HERE:
        batches = against(packets_at_once(xdp, "native"), yardstick.prepare("xdp")) / BATCH
        yield "native the same, a packet of run_many, return values", batches, XDP_IN_BATCHES
    if bpf_syscall.available()[0]:
        yield "ten instructions through run, of the kernel's test run", _beside_the_kernel(), 1
    yield "from a new program of 77 slots to its first result, ms", microseconds(first_result) / 1e3, 1
    yield "import simulator, of import json, re, struct, dataclasses", _import_ratio(), 2


def _on_memory(program: Program, memory: bytes, engine: str) -> Once:
    world = World()
    return lambda number: run(program, {"memory": memory}, world, engine)


def _on_packets(program: Program) -> Once:
    world, packets = World(), yardstick.PACKETS
    return lambda number: run(program, packets[number % len(packets)], world)


def packets_at_once(program: Program, engine: str) -> Once:
    """Packets through one call of run_many, of which the return values are wanted."""
    world = World()
    packets = [yardstick.PACKETS[number % len(yardstick.PACKETS)] for number in range(BATCH)]
    return lambda number: run_many(program, packets, world, engine).retvals


def _beside_the_kernel() -> float:
    """A call of the public `run` beside a test run of the same program by bpf(2), both from Python."""
    ten = Program(bytes.fromhex(yardstick.DATA["programs"]["ten"]), "xdp", name="ten")
    packet = bytes(64)
    with Resources() as kit:
        handle = kit.keep(bpf_syscall.prog_load(program_request(ten, kit)).handle)
        return against(lambda _: run(ten, packet), lambda _: bpf_syscall.prog_test_run(handle.fd, packet))


def first_result(_: int) -> object:
    """A program that nobody has seen, from its bytes to the first outcome."""
    code = bytes.fromhex(yardstick.DATA["programs"]["xdp"])
    # One of its own each time: what was met before, in a round before, is found again by its instructions.
    new = code + struct.pack("<BBhi", 0xB7, 0, 0, next(_NUMBERS)) + code[-8:]
    return run(Program(new, "xdp", [FLOWS]), yardstick.PACKETS[0], World())


def _import_ratio() -> float:
    ours, theirs = _cpu("import simulator"), _cpu("import json, re, struct, dataclasses")
    return ours / theirs


def _cpu(statement: str) -> float:
    """Milliseconds of CPU that a statement takes in a new process, its start not counted."""
    code = f"import time; start = time.process_time(); {statement}; print(time.process_time() - start)"
    return statistics.median(float(_fresh(code)) for _ in range(5)) * 1e3


def _fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def _told() -> Iterator[str]:
    """What has no goal, but is to be watched."""
    file = microseconds(lambda _: run(load(OBJECT)["rate_limiter"], bytes(64), World())) / 1e3
    yield f"  from an object of 50 slots with BTF, the file read and parsed, to the first result: {file:.2f} ms"
    code = f"from simulator import load; load({str(OBJECT)!r})['rate_limiter'].run(bytes(64))"
    yield f"  the same in a new process, imports and all: {_cpu(code):.0f} ms"
