"""The whole road in one sitting: a SYN-flood limiter from Lisp to a table of what it did to packets.

Compiles fixtures/programs/syn_limiter, verifies it as kernel 6.18 would, and runs synthetic packets through it: on the
python engine, and on the kernel where bpf(2) may be used. `python -m examples.demo`
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bpflisp import compile_file
from simulator import Object, Program, Verdict, World, load
from simulator.engines.engine import EngineUnavailable

SOURCE = Path(__file__).parents[1] / "fixtures" / "programs" / "syn_limiter" / "program.lisp"
ACTIONS = ("ABORTED", "DROP", "PASS", "TX", "REDIRECT")


@dataclass(frozen=True)
class Sent:
    """A packet, and what it is for a reader."""

    what: str
    source: str
    data: bytes


def main() -> int:
    """Prints the steps; exit code 1 where the program is refused or the engines differ."""
    console = Console()
    obj = load(compile_file(SOURCE))
    program = obj["syn_limiter"]
    slots = len(program.insns) // 8
    console.print(f"compiled  {SOURCE.name}: {slots} instructions, maps: {', '.join(obj.maps)}")
    verdict = program.verify()
    console.print(_told(verdict))
    if not verdict:
        return 1
    sent = list(packets())
    results, why = _runs(obj, program, sent)
    if why:
        console.print(f"kernel    not asked: {why}")
    console.print(_packet_table(sent, results))
    console.print(_map_table(results))
    return 0 if _all_agree(results) else 1


def packets() -> Iterator[Sent]:
    """One client that opens a connection and uses it, one that floods, and some other traffic."""
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.l2 import Ether

    eth = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")

    def tcp(source: str, flags: str) -> bytes:
        return bytes(eth / IP(src=source, dst="10.0.0.2") / TCP(sport=40000, dport=80, flags=flags))

    yield Sent("SYN", "10.0.0.1", tcp("10.0.0.1", "S"))
    yield Sent("ACK", "10.0.0.1", tcp("10.0.0.1", "A"))
    for number in range(1, 6):
        yield Sent(f"SYN, the {number}. of a flood", "10.6.6.6", tcp("10.6.6.6", "S"))
    yield Sent("ACK of the flooder", "10.6.6.6", tcp("10.6.6.6", "A"))
    yield Sent("UDP", "10.6.6.6", bytes(eth / IP(src="10.6.6.6", dst="10.0.0.2") / UDP(dport=53)))
    yield Sent("SYN", "10.0.0.1", tcp("10.0.0.1", "S"))


@dataclass(frozen=True)
class Result:
    """What an engine made of the packets: an action for each, and what the map holds then."""

    actions: list[str]
    syns: dict[str, int]


def _runs(obj: Object, program: Program, sent: list[Sent]) -> tuple[dict[str, Result], str]:
    """The result of each engine that works here, and why the kernel is not among them, if so."""
    results = {"python": _run(obj, program, sent, "python")}
    try:
        results["kernel"] = _run(obj, program, sent, "kernel")
    except EngineUnavailable as error:
        return results, str(error)
    return results, ""


def _run(obj: Object, program: Program, sent: list[Sent], engine: str) -> Result:
    world = World(obj)
    actions = [ACTIONS[program.run(packet.data, world, engine=engine).retval] for packet in sent]
    # The keys are addresses as they stand in the packet, in network order.
    syns = {
        str(IPv4Address(key)): int.from_bytes(value, "little") for key, value in sorted(world.maps["syns"].raw_items())
    }
    return Result(actions, syns)


def _told(verdict: Verdict) -> str:
    if verdict:
        return f"verified  accepted as kernel {verdict.kernel} would; {verdict.insns_processed} instructions processed"
    return f"verified  refused: {verdict.message}\n{verdict.log}"


def _packet_table(sent: list[Sent], results: dict[str, Result]) -> Table:
    table = Table(title="packets")
    for column in ("from", "packet", "bytes", *results):
        table.add_column(column, justify="right" if column == "bytes" else "left")
    for number, packet in enumerate(sent):
        actions = [result.actions[number] for result in results.values()]
        cells = [f"[red]{action}[/red]" if action == "DROP" else action for action in actions]
        table.add_row(packet.source, packet.what, str(len(packet.data)), *cells)
    return table


def _map_table(results: dict[str, Result]) -> Table:
    table = Table(title="map syns: SYNs by source")
    for column in ("source", *results):
        table.add_column(column, justify="left" if column == "source" else "right")
    for source in sorted({source for result in results.values() for source in result.syns}):
        table.add_row(source, *(str(result.syns.get(source, "-")) for result in results.values()))
    return table


def _all_agree(results: dict[str, Result]) -> bool:
    first, *others = results.values()
    return all(other == first for other in others)


if __name__ == "__main__":
    sys.exit(main())
