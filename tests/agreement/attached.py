"""What helpers do in programs that the kernel has no test run for: asked by attaching the programs.

`python -m tests.agreement.attached` runs them as root, keeps what the kernel answered in fixtures/runs/attached.json,
and says where an engine answers otherwise. Tests hold every engine to the file.
"""

from __future__ import annotations

import functools
import json
import random
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bpflisp.spec.contexts import struct as struct_named
from bpflisp.spec.isa import Op
from simulator.engines import bpf_syscall
from simulator.engines.kernel_load import create_map
from simulator.program import MapDef, Program
from simulator.run import run
from simulator.sockets import Socket
from simulator.world import World
from tests.agreement import attaching
from tests.agreement.sequence_steps import Step
from tests.agreement.sequences import RESULT
from tests.agreement.sequences import _call as written_call
from tests.simulator.assembly import EXIT, branch_reg, copy, imm, load, mov, program, reg, store, value_of
from tests.simulator.helpers.calls import CONTEXT, Memory

FIXTURE = Path(__file__).parents[2] / "fixtures" / "runs" / "attached.json"
SOCKETS = MapDef("sockets", "sockmap", 4, 4, 1)
MESSAGE = bytes(range(1, 41))
_SIZE = 512


@dataclass(frozen=True, slots=True)
class Case:
    """Calls in a program of a type, what makes the kernel run it, and what it is run on here.

    `after` are offsets of fields of four bytes that are read after each call.
    """

    name: str
    kind: str
    attach: str
    calls: Sequence[Step]
    event: Callable[[], Any]
    given: Mapping[str, Any] = field(default_factory=dict)
    window: bool = False
    after: Sequence[int] = ()
    only: int = 0
    """The event, by its number in `op`, at which alone the calls are made; 0 for any."""

    def program(self) -> Program:
        """The program, and the map that it leaves the answers in."""
        code, at = [copy(6, 1), value_of(8, 0)], 0
        if self.only:
            code += [load(4, 2, 6, 0), mov(0, 1), mov(3, self.only), branch_reg(Op.EQ, 2, 3, 1), EXIT]
        for name, arguments in self.calls:
            written, at = written_call(name, arguments, at)
            code += written
            for offset in self.after:
                code += [load(4, 3, 6, offset), store(8, 8, at, 3)]
                at += 8
            if self.window:
                code += _window(at, first=not any(_shows_new_bytes(*call) for call in self.calls))
                at += 16
        made = program([*code, mov(0, 1), EXIT], self.kind, (RESULT, SOCKETS) if self.window else (RESULT,))
        return replace(made, attach_type=self.attach)


def _window(at: int, first: bool) -> list[Any]:
    """Bytes between data and data_end, and the first four of them."""
    code = [load(8, 3, 6, 0), load(8, 4, 6, 8), copy(5, 4), reg(Op.SUB, 5, 3), store(8, 8, at, 5)]
    bounded = [copy(5, 3), imm(Op.ADD, 5, 4), branch_reg(Op.GT, 5, 4, 2), load(4, 5, 3, 0), store(8, 8, at + 8, 5)]
    return code + bounded if first else code


def _shows_new_bytes(helper: str, arguments: Sequence[Any]) -> bool:
    """Whether bytes that are new may come to be the first: in the kernel they are what was there before."""
    return helper == "msg_push_data"


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _options()
    yield from _controls()
    yield from _messages()
    yield from _events()


_OPTIONS = (
    *((1, name) for name in (1, 2, 3, 7, 8, 9, 12, 15, 18, 25, 36, 47, 62, 74, 1009)),
    *((6, name) for name in (1, 2, 3, 4, 5, 6, 7, 10, 16, 18, 25, 27, 28, 44, 1001, 1002, 1003, 1004, 1008)),
    (0, 1), (0, 2), (41, 67), (41, 70), (41, 26), (17, 1),
)  # fmt: skip
_AT_LIMITS = {
    (6, 4): (32767, 32768), (6, 6): (127, 128), (6, 2): (87, 88, 32767, 32768), (6, 44): (999, 1000, 120000, 120001),
    (6, 1003): (4000, 4001, 8001, 200000, 200001), (6, 10): (1151, 1153), (6, 27): (2, 3), (1, 7): (2304, 2305),
    (1, 8): (1152, 1153), (6, 1008): (127, 128), (1, 18): (16777216, 16777217), (41, 67): (255, 256, -2),
}  # fmt: skip
_CONNECTIONS: Mapping[str, tuple[str, Callable[[], int], Socket]] = {
    "tcp4": ("cgroup_inet4_connect", attaching.refused_connection, Socket("127.0.0.1", 0)),
    "tcp6": (
        "cgroup_inet6_connect", functools.partial(attaching.refused_connection, socket.AF_INET6), Socket("::1", 0)
    ),
    "udp4": (
        "cgroup_inet4_connect",
        functools.partial(attaching.refused_connection, socket.AF_INET, socket.SOCK_DGRAM),
        Socket("127.0.0.1", 0, kind="udp"),
    ),
}  # fmt: skip


def _options() -> Iterator[Case]:
    """An option read, set, and read again."""
    for kind, (attach, event, _) in _CONNECTIONS.items():
        for level, name in _OPTIONS:
            values = (0, 5, -1) if kind != "tcp4" else (0, 1, 5, 70000, -1, *_AT_LIMITS.get((level, name), ()))
            for value in values:
                for size in (4, 1, 8) if value == 1 else (4,):
                    data = Memory((value & (1 << 64) - 1).to_bytes(8, "little"))
                    asked = ("getsockopt", (CONTEXT, level, name, Memory(b"\xee" * 8, out=True), size))
                    calls = [asked, ("setsockopt", (CONTEXT, level, name, data, size)), asked]
                    yield Case(f"{kind} option {level} {name} {value} {size}", "cgroup_sock_addr", attach, calls, event)
    attach, event, _ = _CONNECTIONS["tcp4"]
    for name in (b"reno\0", b"bbr\0", b"cubic\0", b"cub\0", b"reno", b"cdg\0"):
        calls = [
            ("setsockopt", (CONTEXT, 6, 13, Memory(name.ljust(8, b"\xee")), len(name))),
            ("setsockopt", (CONTEXT, 6, 13, Memory(b"reno\0"), 5)),
            ("getsockopt", (CONTEXT, 6, 13, Memory(b"\xee" * 16, out=True), 16)),
        ]
        yield Case(f"congestion {name!r}", "cgroup_sock_addr", attach, calls, event)
    for name in (b"lo\0", b"lo", b"nosuch\0", b"\0"):
        calls = [
            ("setsockopt", (CONTEXT, 1, 25, Memory(name.ljust(8, b"\xee")), len(name))),
            ("getsockopt", (CONTEXT, 1, 62, Memory(b"\xee" * 8, out=True), 4)),
        ]
        yield Case(f"device {name!r}", "cgroup_sock_addr", attach, calls, event)


_CONTROLS = {"net/ipv4/conf/lo/forwarding": b"0\n", "kernel/domainname": b"(none)\n"}
"""What they are where the kernel was asked, and stay."""


def _controls() -> Iterator[Case]:
    """The name and the values of a system control that is read, or written as it is."""
    for name, now in _CONTROLS.items():
        for size in (1, 2, 4, 8, 9, 16, 17, 24, 32):
            room = Memory(b"\xee" * 32, out=True)
            reading = [
                ("sysctl_get_name", (CONTEXT, room, size, flags)) for flags in (0, 1, 2)
            ] + [
                ("sysctl_get_current_value", (CONTEXT, room, size)),
                ("sysctl_get_new_value", (CONTEXT, room, size)),
                ("sysctl_set_new_value", (CONTEXT, Memory(b"1" * 32), size)),
            ]  # fmt: skip
            given = {"name": name, "current_value": now}
            for number, call in enumerate(reading):
                event = functools.partial(Path("/proc/sys", name).read_bytes)
                yield Case(f"read {name} {number} {size}", "cgroup_sysctl", "cgroup_sysctl", [call], event, given)
            for new in (b"1\n", b"x"):
                # What is written at last is what was there before.
                calls = [
                    ("sysctl_get_new_value", (CONTEXT, room, size)),
                    ("sysctl_set_new_value", (CONTEXT, Memory(now.ljust(16, b"\0")), len(now) or 1)),
                    ("sysctl_get_new_value", (CONTEXT, room, size)),
                ]
                event = functools.partial(attaching.written, name, new)
                wanted = {**given, "new_value": new, "write": 1}
                yield Case(f"write {name} {new!r} {size}", "cgroup_sysctl", "cgroup_sysctl", calls, event, wanted)


def _messages() -> Iterator[Case]:
    """A message of a socket in a map: pulled, lengthened, shortened, in whatever order."""
    size = struct_named("sk_msg_md").field("size")
    assert size is not None
    for seed in range(120):
        rng = random.Random(seed)
        calls: list[Step] = []
        for _ in range(rng.randrange(1, 5)):
            helper = rng.choice(("msg_pull_data", "msg_push_data", "msg_pop_data"))
            calls.append((helper, (CONTEXT, rng.randrange(50), rng.randrange(50), rng.choice((0, 0, 0, 0, 1)))))
        if seed % 10 == 0:
            calls.append((rng.choice(("msg_apply_bytes", "msg_cork_bytes")), (CONTEXT, 0)))
        yield Case(
            f"message {seed}", "sk_msg", "sk_msg_verdict", calls, _nothing, {}, window=True, after=(size.offset,)
        )


def _events() -> Iterator[Case]:
    """What a program on socket events asks to be called for."""
    place = struct_named("bpf_sock_ops").field("bpf_sock_ops_cb_flags")
    assert place is not None
    for flags in (0, 1, 0x7F, 0x80, 0x185):
        calls = [
            ("sock_ops_cb_flags_set", (CONTEXT, flags)),
            ("setsockopt", (CONTEXT, 6, 1008, Memory((flags & 0xFF).to_bytes(4, "little")), 4)),
        ]
        yield Case(
            f"events {flags:#x}", "sock_ops", "cgroup_sock_ops", calls, _connect_and_part, {"op": 3},
            after=(place.offset,), only=3,
        )  # fmt: skip


def _nothing() -> None:
    """A message is sent by who asks: the map of sockets has to be there first."""


def _connect_and_part() -> None:
    for end in attaching.connection():
        end.close()


# What the kernel answers, and what we do.


def asked(case: Case, cgroup: int) -> str:
    """What the kernel answers, in hex."""
    made = case.program()
    if not case.window:
        with attaching.attached(made, cgroup) as kit:
            case.event()
            return attaching.value(kit, 0, _SIZE).hex()
    with attaching.attached(made, at=1, prepared=lambda kit: kit.maps.setdefault(1, create_map(SOCKETS, kit))) as kit:
        one, other = attaching.connection()
        bpf_syscall.map_update(kit.maps[1].fd, bytes(4), struct.pack("<i", one.fileno()))
        attaching.sent([MESSAGE], one)
        answer = attaching.value(kit, 0, _SIZE).hex()
        one.close()
        other.close()
    return answer


def answer(case: Case, engine: str) -> str:
    """The same of an engine."""
    world, made, given = World(), case.program(), dict(case.given)
    if case.kind == "cgroup_sock_addr":
        name = case.name.split()[0]
        given["sk"] = replace_socket(_CONNECTIONS.get(name, _CONNECTIONS["tcp4"])[2])
    outcome = run(made, MESSAGE if case.window else given, world, engine)
    assert outcome.fault is None, (case.name, outcome.fault)
    ((_, value),) = world.bind(made)[0].raw_items()
    return value.hex()


def replace_socket(found: Socket) -> Socket:
    """Another one like it, for a world of its own."""
    return Socket(found.local, found.local_port, kind=found.kind, state=7)


def recorded() -> dict[str, str]:
    """What the kernel answered."""
    answers: dict[str, str] = json.loads(FIXTURE.read_text())["answers"]
    return answers


def main() -> int:
    """Asks the kernel, keeps what it answered, says where the reference engine answers otherwise."""
    answers, different = {}, 0
    with attaching.own_cgroup() as cgroup:
        for case in cases():
            found = answers[case.name] = asked(case, cgroup)
            ours = answer(case, "reference")
            if ours != found:
                different += 1
                print(
                    case.name,
                    *(
                        f"\n  {at}: {found[at : at + 16]} {ours[at : at + 16]}"
                        for at in range(0, len(found), 16)
                        if found[at : at + 16] != ours[at : at + 16]
                    ),
                )
    about = "What kernel 6.18.44 answered to the attached programs of tests/agreement/attached.py."
    kept = {name: found.rstrip("0") for name, found in answers.items()}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(found)}" for name, found in kept.items())
    FIXTURE.write_text(f'{{"_about": {json.dumps(about)},\n"answers": {{\n{lines}\n}}}}\n')
    print(f"{len(answers)} answers, {different} different")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
