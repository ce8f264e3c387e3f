"""The kernel takes what the back end makes of random functions, and runs it as the intermediate form says.

Skipped where bpf(2) is refused.
"""

from __future__ import annotations

import os
import random
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpflisp.back import Code, compile_function
from bpflisp.ir import interp
from bpflisp.ir.clone import clone_function
from bpflisp.ir.ssa import Function, MapRef
from bpflisp.opt import run
from bpflisp.spec.insn import SLOT_SIZE
from bpflisp.spec.isa import PSEUDO_MAP_IDX
from simulator.program import MapDef, Program
from simulator.run import run as run_program
from simulator.world import World
from tests.oracle import ask, available

from .compared import CONTEXT, MAP, PACKET, VALUES, Surroundings
from .generate import PACKET_SIZE, Generator

pytestmark = pytest.mark.skipif(not available()[0], reason=available()[1])
DEFINITION = MapDef("m", "array", 4, 8, 8)


def as_program(code: Code) -> Program:
    """The code as an XDP program with the one map that generated functions use."""
    slots = bytearray(b"".join(insn.encode() for insn in code.insns))
    for relocation in code.relocations:
        at = relocation.at * SLOT_SIZE
        slots[at + 1] = slots[at + 1] & 15 | PSEUDO_MAP_IDX << 4
        slots[at + 4 : at + 8] = bytes(4)
    return Program(bytes(slots), "xdp", maps=[DEFINITION], license="GPL", name="generated")


def expected(function: Function, packet: bytes, values: bytes) -> tuple[int, bytes, bytes]:
    around = Surroundings(0)
    # An XDP test run arrives on interface 1, queue 0.
    around.memory.regions[CONTEXT][:] = struct.pack("<5I", PACKET, PACKET + PACKET_SIZE, 0, 1, 0)
    around.memory.regions[PACKET][:] = packet
    around.memory.regions[VALUES][:] = values
    result = interp.run(function, [CONTEXT], around.memory, around.helper, {MapRef("m"): MAP}, {})
    return (result or 0) & 0xFFFFFFFF, bytes(around.memory.regions[PACKET]), bytes(around.memory.regions[VALUES])


def on_engine(engine: str, code: Code, packet: bytes, values: bytes) -> tuple[int, bytes | None, bytes]:
    """What can be seen of a run: the value, the packet, and the map's values after it."""
    # On a CPU where this process may run, so that the kernel's run need not move there and back.
    world = World(cpu=min(os.sched_getaffinity(0)))
    table = world.add_map(DEFINITION)
    for index in range(8):
        table.update(index.to_bytes(4, "little"), values[index * 8 : index * 8 + 8])
    outcome = run_program(as_program(code), packet, world, engine)
    assert outcome.fault is None, outcome.fault
    after = b"".join(value for _, value in table.raw_items())
    return outcome.retval, outcome.packet, after


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32), size=st.integers(1, 30), version=st.integers(1, 4), level=st.integers(0, 2))
def test_the_kernel_runs_it_alike(seed: int, size: int, version: int, level: int) -> None:
    function = Generator(seed, size, version, checked=True).function()
    r = random.Random(seed)
    packet, values = r.randbytes(PACKET_SIZE), r.randbytes(64)
    wanted = expected(function, packet, values)
    better = clone_function(function)
    run(better, level)
    code = compile_function(better, f"v{version}", level)
    answer = ask(as_program(code))
    assert answer.accepted, answer.message
    assert on_engine("kernel", code, packet, values) == wanted
