"""Helpers on packets one after the other, drawn at random, and what the packet's context then says.

`python -m tests.agreement.sequences --count N --seed S` holds them against the running kernel; `--keep` rewrites
fixtures/runs/sequences.json with what it answered to the first KEPT of them, which tests hold every engine to.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bpflisp.spec import helpers as spec
from bpflisp.spec.contexts import access_table
from bpflisp.spec.contexts import struct as struct_named
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Op
from simulator.packet import InputRefused
from simulator.program import MapDef, Program
from simulator.run import run
from simulator.world import World
from tests.agreement.sequence_steps import Step, step
from tests.simulator.assembly import EXIT, big, copy, imm, load, map_of, mov, program, reg, store, store_imm, value_of
from tests.simulator.assembly import call as call_of
from tests.simulator.helpers.calls import CONTEXT, PACKETS, MapArgument, Memory

FIXTURE = Path(__file__).parents[2] / "fixtures" / "runs" / "sequences.json"
KEPT = 600
_ROOM = 512
RESULT = MapDef("result", "array", 4, _ROOM, 1)
_IP = "020000000001020000000002" + "0800"
MORE_PACKETS = {
    **PACKETS,
    "tcp": bytes.fromhex(_IP + "4500003c00010000400666bd0a0000010a00010103e80fa000000001000000025010ffff12340000")
    + bytes(range(20)),
    "short": PACKETS["v4"][:12] + b"\x12\x34",
    "to here": bytes(12) + PACKETS["v4"][12:],
    "arp": bytes.fromhex("ffffffffffff0200000000020806000108000604000102000000") + bytes(34),
    "fragment": PACKETS["v4"][:20] + b"\x20\x05" + PACKETS["v4"][22:],
    "options": PACKETS["v4"][:14] + b"\x47" + PACKETS["v4"][15:],
    "long": PACKETS["v4"] + bytes(range(256)) * 4,
}
TYPES = ("sched_cls",) * 5 + ("xdp",) * 3 + ("lwt_xmit", "cgroup_skb", "socket_filter", "lwt_in", "sched_act")
_GIVEN: dict[str, Sequence[int]] = {
    "mark": (0, 1, 0xDEADBEEF), "priority": (0, 7, 0xFFFFFFFF), "ingress_ifindex": (1,), "ifindex": (1,),
    "cb[0]": (5,), "cb[4]": (0xFFFFFFFF,), "tstamp": (0, 7, 1 << 50), "wire_len": (0, 1500, 65535),
    "gso_segs": (0, 1, 5, 65535), "gso_size": (0, 5, 65535), "hwtstamp": (3,),
}  # fmt: skip
_THE_MACHINE_S = ("napi_id", "hash", "tstamp", "hwtstamp")
"""Fields that say what the machine's clock or its secret made of the packet."""


@dataclass(frozen=True, slots=True)
class Case:
    """A program that makes the calls and leaves what came of each in its map, and what it is run on."""

    made: Program
    packet: bytes
    context: dict[str, int]
    calls: Sequence[Step]
    reads: Sequence[tuple[int, int]]


def case(seed: int) -> Case:
    """The case of a seed."""
    rng = random.Random(seed)
    kind = rng.choice(TYPES)
    attach = "cgroup_inet_ingress" if kind == "cgroup_skb" else ""
    packet = MORE_PACKETS[rng.choice(sorted(MORE_PACKETS))]
    calls = [step(rng, kind) for _ in range(rng.randrange(1, 5))]
    context = {}
    if kind != "xdp" and rng.random() < 0.4:
        context = {name: rng.choice(values) for name, values in _GIVEN.items() if rng.random() < 0.4}
    code, at = [copy(6, 1), value_of(8, 0), *_writes(rng, kind, attach)], 0
    for name, arguments in calls:
        written, at = _call(name, arguments, at)
        code += written
    reads = _reads(rng, kind, attach)[: (_ROOM - 16 - at) // 8]
    for offset, size in reads:
        code += [load(size, 0, 6, offset), store(8, 8, at, 0)]
        at += 8
    if kind in ("xdp", "sched_cls", "sched_act", "lwt_xmit"):
        data = 0 if kind == "xdp" else 76
        code += [load(4, 2, 6, data), load(4, 3, 6, data + 4), reg(Op.SUB, 3, 2), store(8, 8, _ROOM - 8, 3)]
    made = program([*code, mov(0, int(kind == "cgroup_skb")), EXIT], kind, (RESULT,))
    return Case(replace(made, attach_type=attach), packet, context, calls, reads)


def _writes(rng: random.Random, kind: str, attach: str) -> Iterator[Insn]:
    table = access_table(kind, attach)
    if table is None or not table.writes or rng.random() < 0.7 or kind == "xdp":
        return
    for offset, size in rng.sample(sorted(table.writes), 2):
        yield big(2, rng.choice([0, 1, 0xFFFF, 0x1234_5678_9ABC_DEF0, (1 << 64) - 1]))
        yield store(size, 6, offset, 2)


def _reads(rng: random.Random, kind: str, attach: str) -> list[tuple[int, int]]:
    table = access_table(kind, attach)
    assert table is not None
    hidden = {field.offset for field in struct_named("__sk_buff").fields if field.name in _THE_MACHINE_S}
    found = [
        place
        for place, access in sorted(table.reads.items())
        if access.kind == "scalar" and (kind == "xdp" or place[0] - place[0] % 4 not in hidden)
    ]
    return rng.sample(found, min(20, len(found)))


def _call(helper: str, arguments: Sequence[Any], at: int) -> tuple[list[Insn], int]:
    """A call whose result goes to the map's value at `at`, with what it wrote; where the next result goes."""
    code, setup, outputs, top = list[Insn](), list[Insn](), list[int](), -16
    for register, argument in enumerate(arguments, 1):
        if isinstance(argument, Memory):
            padded = argument.data.ljust((len(argument.data) + 7) // 8 * 8, b"\0")
            top -= len(padded)
            for index, (word,) in enumerate(struct.iter_unpack("<i", padded)):
                code.append(store_imm(4, 10, top + 4 * index, word))
            setup += [copy(register, 10), imm(Op.ADD, register, top)]
            outputs += range(top, top + len(padded), 8) if argument.out else ()
        elif isinstance(argument, MapArgument):
            setup.append(map_of(register, argument.index))
        elif argument == CONTEXT:
            setup.append(copy(register, 6))
        else:
            setup.append(big(register, argument & (1 << 64) - 1))
    found = spec.by_name(helper)
    assert found is not None, helper
    code += [*setup, call_of(found.id), store(8, 8, at, 0)]
    for number, offset in enumerate(outputs, 1):
        code += [load(8, 0, 10, offset), store(8, 8, at + 8 * number, 0)]
    return code, at + 8 * (1 + len(outputs))


def answer(asked: Case, engine: str) -> tuple[Any, ...]:
    """What an engine makes of a case: value, packet, results and the fields that the kernel gives back."""
    world = World()
    try:
        outcome = run(asked.made, asked.packet, world, engine, context=asked.context)
    except InputRefused as refused:
        return ("refused", refused.errno)
    (_, value), *_ = world.bind(asked.made)[0].raw_items()
    assert outcome.fault is None, outcome.fault
    kept = ("tc_index", "tc_classid", "queue_mapping")  # These no test run gives back.
    fields = {name: found for name, found in outcome.context.items() if name not in kept} if asked.context else {}
    return outcome.retval, (outcome.packet or b"").hex(), value.hex(), fields


def digest(found: tuple[Any, ...]) -> str:
    """An answer in few letters."""
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


def recorded() -> dict[int, str]:
    """What the kernel answered, by seed."""
    return {int(seed): found for seed, found in json.loads(FIXTURE.read_text())["answers"].items()}


def keep() -> None:
    """Asks the kernel and keeps what it answers."""
    about = f"What kernel 6.18.44 answered to tests/agreement/sequences.py, by seed: digests of {KEPT} answers."
    answers = {seed: digest(answer(case(seed), "kernel")) for seed in range(KEPT)}
    FIXTURE.write_text(json.dumps({"_about": about, "answers": answers}, indent=0) + "\n")


def main() -> int:
    """Compares an engine with the kernel, case by case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="reference")
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    if given.keep:
        keep()
    different = 0
    for seed in range(given.seed, given.seed + given.count):
        asked = case(seed)
        kernel, ours = answer(asked, "kernel"), answer(asked, given.engine)
        if kernel != ours:
            different += 1
            print(f"seed {seed}: {asked.made.type} {asked.context} {asked.calls} {asked.reads}\n  {kernel}\n  {ours}")
    print(f"{given.count} sequences, {different} different")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
