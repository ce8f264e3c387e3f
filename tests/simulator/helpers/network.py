"""Lookups of routes, as the kernel answered them in a network namespace that is set up as the world is.

`unshare -n python -m tests.simulator.helpers.network` asks the kernel again (it takes veth devices) and rewrites
fixtures/runs/network.json.
"""

from __future__ import annotations

import ipaddress
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from simulator.network import Device, Route
from simulator.world import World
from tests.simulator.helpers.calls import CONTEXT, Answer, Case, Memory, answer

FIXTURE = Path(__file__).parents[3] / "fixtures" / "runs" / "network.json"

_SETUP = """
link set lo up
link add v0 index 2 address 02:00:00:00:00:02 type veth peer v1 index 3 address 02:00:00:00:00:03
link set v0 mtu 1400 up
link set v1 up
addr add 10.0.0.254/24 dev v0
addr add 10.3.0.1/16 dev v1
addr add fd00:2::1/64 dev v0 nodad
addr add fd00:3::1/64 dev v1 nodad
route add 10.9.0.0/16 via 10.0.0.1
route add 10.9.9.0/24 via 10.3.0.9 metric 7
route add 10.9.9.0/24 via 10.0.0.1 metric 9
route add 10.8.0.0/16 dev v1 src 10.3.0.1
route add blackhole 10.7.0.0/16
route add unreachable 10.6.0.0/16
route add prohibit 10.5.0.0/16
route add 10.4.0.0/16 via 10.0.0.1 table 100
route add fd00:9::/32 via fd00:2::9
route add fd00:8::/32 via fd00:3::9 metric 5
route add blackhole fd00:7::/32
route add prohibit fd00:6::/32
neigh add 10.0.0.1 lladdr 02:00:00:00:00:09 dev v0
neigh add 10.3.0.9 lladdr 02:00:00:00:00:0a dev v1
neigh add 10.0.0.5 lladdr 02:00:00:00:00:0b dev v0
neigh add fd00:2::9 lladdr 02:00:00:00:00:0c dev v0
"""

_FORWARDING = ("ipv4/conf/v0", "ipv4/conf/v1", "ipv6/conf/v0", "ipv6/conf/v1")


def world() -> World:
    """The world that is what `set_up` makes."""
    made = World()
    made.devices[2] = Device("v0", 1400, "02:00:00:00:00:02", ["10.0.0.254/24", "fd00:2::1/64"], forwarding=True)
    made.devices[3] = Device("v1", 1500, "02:00:00:00:00:03", ["10.3.0.1/16", "fd00:3::1/64"], forwarding=True)
    made.network.routes += [
        Route("10.9.0.0/16", 2, via="10.0.0.1"),
        Route("10.9.9.0/24", 3, via="10.3.0.9", metric=7),
        Route("10.9.9.0/24", 2, via="10.0.0.1", metric=9),
        Route("10.8.0.0/16", 3, source="10.3.0.1"),
        Route("10.7.0.0/16", kind="blackhole"),
        Route("10.6.0.0/16", kind="unreachable"),
        Route("10.5.0.0/16", kind="prohibit"),
        Route("10.4.0.0/16", 2, via="10.0.0.1", table=100),
        Route("fd00:9::/32", 2, via="fd00:2::9"),
        Route("fd00:8::/32", 3, via="fd00:3::9", metric=5),
        Route("fd00:7::/32", kind="blackhole"),
        Route("fd00:6::/32", kind="prohibit"),
    ]
    made.network.neighbours |= {
        (2, "10.0.0.1"): "02:00:00:00:00:09",
        (3, "10.3.0.9"): "02:00:00:00:00:0a",
        (2, "10.0.0.5"): "02:00:00:00:00:0b",
        (2, "fd00:2::9"): "02:00:00:00:00:0c",
    }
    return made


def set_up() -> None:
    """Sets the namespace up. Raises CalledProcessError where that cannot be done."""
    for line in _SETUP.strip().splitlines():
        subprocess.run(["ip", *line.split()], check=True)
    for where in _FORWARDING:
        Path(f"/proc/sys/net/{where}/forwarding").write_text("1")


def _asked(to: str, source: str, ifindex: int, length: int, table: int) -> Memory:
    """A struct bpf_fib_lookup."""
    target, sender = ipaddress.ip_address(to), ipaddress.ip_address(source)
    data = bytearray(64)
    struct.pack_into("<BBHHHI", data, 0, 2 if target.version == 4 else 10, 17, 1, 2, length, ifindex)
    data[16 : 16 + len(sender.packed)] = sender.packed
    data[32 : 32 + len(target.packed)] = target.packed
    struct.pack_into("<I", data, 48, table)
    return Memory(bytes(data), out=True)


_TARGETS = (
    "10.0.0.1", "10.0.0.5", "10.0.0.6", "10.0.0.254", "10.0.0.255", "10.3.0.9", "10.9.1.1", "10.9.9.1", "10.8.1.1",
    "10.7.1.1", "10.6.1.1", "10.5.1.1", "10.4.1.1", "8.8.8.8", "224.0.0.1", "127.0.0.1", "255.255.255.255",
    "fd00:2::9", "fd00:2::8", "fd00:2::1", "fd00:3::7", "fd00:9::1", "fd00:8::1", "fd00:7::1", "fd00:6::1", "fd11::1",
    "fe80::1", "ff02::1", "::1",
)  # fmt: skip


def cases() -> Iterator[Case]:
    """The questions."""
    for to in _TARGETS:
        source = "10.3.0.77" if "." in to else "fd00:3::77"
        for flags in (0, 1, 2, 3, 4, 8, 9, 16, 20, 32, 64):
            for kind in ("sched_cls", "xdp"):
                yield _case(kind, to, source, flags, 3, 0, 100)
        for ifindex in (0, 1, 2, 9):
            yield _case("sched_cls", to, source, 0, ifindex, 0, 0)
            yield _case("sched_cls", to, source, 2, ifindex, 0, 0)
        for length in (1, 1400, 1401, 1500, 1501, 65535):
            for kind in ("sched_cls", "xdp"):
                yield _case(kind, to, source, 0, 3, length, 0)
    yield _case("sched_cls", "10.0.0.1", "10.3.0.77", 9, 3, 0, 0)
    yield _case("sched_cls", "10.0.0.1", "10.3.0.77", 9, 3, 0, 101)
    yield Case("family", "sched_cls", [("fib_lookup", (CONTEXT, Memory(b"\x05" + bytes(63), out=True), 64, 0))])
    yield Case("size", "sched_cls", [("fib_lookup", (CONTEXT, Memory(bytes(64), out=True), 60, 0))])


def _case(kind: str, to: str, source: str, flags: int, ifindex: int, length: int, table: int) -> Case:
    name = f"{kind} fib_lookup {to} flags {flags} from {ifindex} length {length} table {table}"
    return Case(name, kind, [("fib_lookup", (CONTEXT, _asked(to, source, ifindex, length, table), 64, flags))])


def recorded() -> dict[str, int]:
    """What the kernel answered."""
    answers: dict[str, int] = json.loads(FIXTURE.read_text())["answers"]
    return answers


def ours(case: Case, engine: str) -> Answer:
    """What an engine makes of a case in that world."""
    return answer(case, engine, world())


def main() -> int:
    """Asks the kernel in this process's namespace."""
    set_up()
    answers = {case.name: answer(case, "kernel").retval for case in cases()}
    about = "What kernel 6.18.44 answered to tests/simulator/helpers/network.py: the results and the struct, folded."
    lines = ",\n".join(f"{json.dumps(name)}: {value}" for name, value in answers.items())
    FIXTURE.write_text(f'{{"_about": {json.dumps(about)},\n"answers": {{\n{lines}\n}}}}\n')
    print(f"{len(answers)} answers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
