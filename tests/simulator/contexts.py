"""Every access that a context allows, as a small program: what is read, and what is there after a write.

`python -m tests.simulator.contexts` asks the running kernel, for the types that it test-runs, and rewrites
fixtures/runs/contexts.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bpflisp.spec.contexts import AccessTable, access_table
from simulator.packet import PACKET_TYPES
from simulator.program import MapDef, Program
from simulator.run import run
from simulator.world import World
from tests.simulator.assembly import EXIT, big, copy, load, mov, program, store, value_of
from tests.simulator.helpers.calls import PACKETS

FIXTURE = Path(__file__).parents[2] / "fixtures" / "runs" / "contexts.json"

RUNNABLE = {
    "socket_filter": "", "sched_cls": "", "sched_act": "", "cgroup_skb": "cgroup_inet_ingress", "lwt_in": "",
    "lwt_out": "", "lwt_xmit": "", "xdp": "", "sk_lookup": "sk_lookup", "flow_dissector": "",
}  # fmt: skip
"""The program types whose test run takes a context with fields -> the attach type to ask with."""

RESULT = MapDef("result", "array", 4, 8, 1)
WRITTEN = 0x1234_5678_9ABC_DEF0

LOOKUPS: dict[str, dict[str, Any]] = {
    "v4": {
        "family": 2, "protocol": 6, "remote_ip4": 0x0100000A, "remote_port": 0x1234, "local_ip4": 0x0200000A,
        "local_port": 443,
    },
    "v6": {
        "family": 10, "protocol": 17, "remote_ip6": bytes(range(16)), "remote_port": 0x4321,
        "local_ip6": bytes(range(16, 32)), "local_port": 65535, "remote_ip4": 7,
    },
}  # fmt: skip
"""What sk_lookup programs are given."""


@dataclass(frozen=True, slots=True)
class Case:
    """One access to a context: read, or written and read again."""

    kind: str
    attach: str
    offset: int
    size: int
    write: bool
    packet: str = "v4"

    @property
    def name(self) -> str:
        """What identifies it."""
        return f"{self.kind} {self.packet} {'write' if self.write else 'read'} {self.offset}:{self.size}"

    def program(self) -> Program:
        """The program that makes the access, and leaves what it read in its map."""
        code = [copy(6, 1)]
        if self.write:
            code += [big(2, WRITTEN), store(self.size, 6, self.offset, 2)]
        code += [load(self.size, 0, 6, self.offset), value_of(1, 0), store(8, 1, 0, 0)]
        legal = mov(0, int(self.kind in ("cgroup_skb", "sk_lookup")))
        return replace(program([*code, legal, EXIT], self.kind, (RESULT,)), attach_type=self.attach)


def table_of(kind: str, attach: str) -> AccessTable:
    """What the kernel allows of this context."""
    found = access_table(kind, attach)
    assert found is not None, kind
    return found


def cases() -> Iterator[Case]:
    """The accesses whose answer is a number, for the types that the kernel test-runs."""
    for kind, attach in RUNNABLE.items():
        table = table_of(kind, attach)
        for packet in _inputs(kind):
            for (offset, size), access in sorted(table.reads.items()):
                if access.kind == "scalar":
                    yield Case(kind, attach, offset, size, False, packet)
        for offset, size in sorted(table.writes):
            if (offset, size) in table.reads and table.reads[offset, size].kind == "scalar":
                yield Case(kind, attach, offset, size, True)


def _inputs(kind: str) -> tuple[str, ...]:
    if kind == "sk_lookup":
        return tuple(LOOKUPS)
    return ("v4", "v6", "vlan") if kind in ("sched_cls", "cgroup_skb", "socket_filter") else ("v4",)


def answer(case: Case, engine: str) -> int:
    """What a case comes to."""
    given: Any = PACKETS[case.packet] if case.kind in PACKET_TYPES else {**LOOKUPS[case.packet]}
    world = World([RESULT])
    outcome = run(case.program(), given, world, engine)
    assert outcome.fault is None, (case, outcome.fault)
    return int.from_bytes(world.maps.result.lookup(bytes(4)) or b"", "little")


def recorded() -> dict[str, int]:
    """What the kernel answered."""
    answers: dict[str, int] = json.loads(FIXTURE.read_text())["answers"]
    return answers


def main() -> int:
    """Asks the kernel, keeps what it answered, says what it refuses."""
    answers, refused = {}, []
    for case in cases():
        try:
            answers[case.name] = answer(case, "kernel")
        except Exception as error:
            refused.append(f"{case.name}: {error}")
    about = "What kernel 6.18.44 answered to the accesses of tests/simulator/contexts.py."
    lines = ",\n".join(f"{json.dumps(name)}: {value}" for name, value in answers.items())
    FIXTURE.write_text(f'{{"_about": {json.dumps(about)},\n"answers": {{\n{lines}\n}}}}\n')
    print(f"{len(answers)} answers", *refused, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
