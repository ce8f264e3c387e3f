"""Programs for the checks before exploration, and what kernel 6.18.44 answers to them.

`python -m tests.simulator.verifier.layout_cases` asks the running kernel and writes `fixtures/verifier/layout.jsonl`.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bpflisp.spec.btf_build import INT, BtfBuilder, Int, Member, Signature, Struct, Void
from simulator.loader.record import program_from_record
from simulator.program import LineInfo, Program

U32, U64 = Int("u32", 4), Int("u64", 8)
FIXTURE = Path(__file__).parents[3] / "fixtures" / "verifier" / "layout.jsonl"


@dataclass
class Case:
    """One program in the form of the corpus' records; `lines` are (slot, text) of its line_info."""

    name: str
    insns: bytes
    type: str = "socket_filter"
    fields: dict[str, Any] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    lines: list[tuple[int, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The row of the fixture, without an answer."""
        record = {"id": self.name, "type": self.type, "attach_type": 0, "prog_flags": 0, "license": "GPL", "relocs": []}
        record |= {"maps": [], "insns": self.insns.hex(), **self.fields}
        return {"record": record, "blobs": {name: blob.hex() for name, blob in self.blobs.items()}, "lines": self.lines}


def program_of(row: dict[str, Any]) -> Program:
    """The program of a row of the fixture."""
    blobs = {name: bytes.fromhex(text) for name, text in row["blobs"].items()}
    program = program_from_record(row["record"], blobs)
    lines = [LineInfo(insn, "case.c", text, number + 1, 1) for number, (insn, text) in enumerate(row["lines"])]
    return replace(program, line_info=lines)


def insn(opcode: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """One slot."""
    return struct.pack("<BBhi", opcode, dst | src << 4, off, imm)


def ld64(dst: int = 1, src: int = 0, imm: int = 0, high: int = 0, second: int = 0) -> bytes:
    """A 64-bit load; `second` is the opcode of its second slot, 0 when it is well formed."""
    return insn(0x18, dst, src, 0, imm) + insn(second, imm=high)


def call(target: int) -> bytes:
    """A call of the function `target` slots further on, counted from the next slot."""
    return insn(0x85, src=1, imm=target)


MOV0 = insn(0xB7)
EXIT = insn(0x95)
RETURN0 = MOV0 + EXIT
JA = 0x05
HASH = {"name": "h", "type": 1, "key_size": 4, "value_size": 8, "max_entries": 1, "map_flags": 0, "map_extra": 0}
ARRAY = HASH | {"name": "a", "type": 2}
MAP_AT_0: dict[str, Any] = {"relocs": [[0, "map", 0]]}
VALUE_AT_0: dict[str, Any] = {"relocs": [[0, "map_value", 0]]}


def shape_cases() -> Iterator[Case]:
    """Jumps, ends, opcodes, reachability."""
    yield Case("least", RETURN0)
    yield Case("empty", b"")
    yield Case("no exit", MOV0)
    yield Case("ends in a branch", MOV0 + insn(0x15, off=-2))
    yield Case("jump before the start", insn(JA, off=-2) + RETURN0)
    yield Case("jump past the end", insn(JA, off=5) + RETURN0)
    yield Case("branch past the end", insn(0x15, off=2) + RETURN0)
    yield Case("long jump past the end", insn(0x06, imm=5) + RETURN0)
    yield Case("unreachable", insn(JA, off=1) + MOV0 + RETURN0)
    yield Case("unreachable after exit", RETURN0 + RETURN0)
    yield Case("into a 64-bit load", insn(JA, off=1) + ld64() + RETURN0)
    yield Case("into a reached 64-bit load", insn(0x15, off=1) + ld64() + RETURN0)
    yield Case("ends in half a 64-bit load", RETURN0 + insn(0x18, 1) + EXIT)
    yield Case("second half has an opcode", ld64(second=0x95) + RETURN0)
    yield Case("second half has an offset", insn(0x18, 1) + insn(0, off=1) + RETURN0)
    yield Case("source of a 64-bit load", ld64(src=7) + RETURN0)
    yield Case("load with an immediate", insn(0x61, 0, 1, imm=1) + RETURN0)
    yield Case("load of no mode", insn(0xC1, 0, 1) + RETURN0)
    for opcode in (0x00, 0x08, 0x0D, 0x58, 0x8D, 0xFF):
        yield Case(f"opcode {opcode:02x}", insn(opcode) + RETURN0)
    yield Case("register 15", insn(0xB7, 15) + RETURN0)
    yield Case("first fault is named", insn(0xFF) + insn(JA, off=100) + RETURN0)
    yield Case("opcode before reachability", insn(JA, off=1) + insn(0xFF) + RETURN0)


def loop_cases() -> Iterator[Case]:
    """Loops and what is live in them."""
    body = insn(0xB7, 1) + insn(0x07, 1, imm=1) + insn(0xA5, 1, off=-2, imm=10)
    yield Case("loop", body + RETURN0)
    nest = insn(0xB7, 2) + insn(0xB7, 1) + insn(0x07, 1, imm=1) + insn(0xA5, 1, off=-2, imm=3)
    yield Case("nested loops", nest + insn(0x07, 2, imm=1) + insn(0xA5, 2, off=-5, imm=3) + RETURN0)
    yield Case("loop on itself", insn(0xB7, 1) + insn(0x15, 1, off=-1, imm=1) + RETURN0)
    yield Case("may_goto", MOV0 + insn(0xE5, off=1) + insn(JA, off=-2) + EXIT)
    yield Case("two loops", body + insn(0xB7, 3) + insn(0x07, 3, imm=1) + insn(0xA5, 3, off=-2, imm=4) + RETURN0)
    yield Case("atomics", insn(0x7A, 10, off=-8) + insn(0xB7, 2) + insn(0xDB, 10, 2, -8, 1) + RETURN0)
    yield Case("exchange", MOV0 + insn(0x7A, 10, off=-8) + insn(0xB7, 2) + insn(0xDB, 10, 2, -8, 0xF1) + EXIT)
    yield Case("helper arguments", insn(0x85, imm=5) + insn(0xBF, 6) + insn(0x85, imm=7) + insn(0x0F, 0, 6) + EXIT)
    yield Case("legacy packet load", insn(0xBF, 6, 1) + insn(0x30, imm=0) + EXIT)
    yield Case("byte order", MOV0 + insn(0xDC, 0, imm=16) + insn(0x87) + insn(0xBC, 2, 0) + EXIT)


def function_cases() -> Iterator[Case]:
    """Functions of the program, with and without BTF."""
    yield Case("call", call(1) + EXIT + RETURN0)
    yield Case("call before the start", call(-3) + EXIT + RETURN0)
    yield Case("call past the end", call(7) + EXIT + RETURN0)
    yield Case("callback past the end", ld64(src=4, imm=9) + RETURN0)
    yield Case("too many functions", b"".join(call(257 + at) for at in range(256)) + RETURN0 + RETURN0 * 256)
    yield Case("jump across functions", call(1) + EXIT + insn(JA, off=-3) + RETURN0)
    yield Case("falls into a function", call(1) + MOV0 + RETURN0)
    yield Case("function not called", call(3) + EXIT + RETURN0 + RETURN0)
    tail = insn(0x85, imm=12)
    yield Case("tail call without BTF", call(1) + EXIT + tail + RETURN0)
    yield Case("packet load without BTF", call(1) + EXIT + insn(0x30) + RETURN0)
    yield Case("recursion", call(1) + EXIT + call(-1) + EXIT)


def _functions(*names: str, result: Any = INT, first: Any = INT) -> tuple[bytes, list[int]]:
    builder = BtfBuilder()
    ids = [builder.func(name, Signature(first if name == names[0] else result), 0) for name in names]
    return builder.to_bytes(), ids


def debug_cases() -> Iterator[Case]:
    """func_info and line_info."""
    two = call(1) + EXIT + RETURN0
    btf, (main, sub) = _functions("main", "sub")
    blobs = {"p": btf}

    def case(name: str, code: bytes, rows: list[tuple[int, int]], **rest: Any) -> Case:
        info = struct.pack(f"<{2 * len(rows)}I", *(word for row in rows for word in row)).hex()
        fields = {"prog_btf": "p", "func_info": info, "func_info_rec_size": 8}
        return Case(name, code, fields=fields, **({"blobs": blobs} | rest))

    good = [(0, main), (2, sub)]
    yield case("functions with BTF", two, good)
    yield case("first function is not at 0", two, [(1, main), (2, sub)])
    yield case("functions do not rise", two, [(0, main), (0, sub)])
    yield case("no function's id", two, [(0, main), (2, 1)])
    yield case("fewer functions", two, [(0, main)])
    yield case("functions elsewhere", two, [(0, main), (3, sub)])
    nothing, ids = _functions("main", "sub", result=Void())
    rows = list(zip((0, 2), ids, strict=True))
    yield case(
        "tail call in a void function", call(1) + EXIT + insn(0x85, imm=12) + RETURN0, rows, blobs={"p": nothing}
    )
    load = call(1) + EXIT + insn(0x30) + RETURN0
    yield case("packet load in a void function", load, rows, blobs={"p": nothing})
    yield case("lines", two, good, lines=[(0, "a();"), (2, "return 0;")])
    yield case("lines do not rise", two, good, lines=[(0, "a"), (2, "b"), (2, "c")])
    yield case("line past the end", two, good, lines=[(0, "a"), (2, "b"), (9, "c")])
    yield case("no line for a function", two, good, lines=[(0, "a"), (3, "b")])
    yield case("no line for the last function", two, good, lines=[(0, "a"), (1, "b")])
    yield case("line inside a 64-bit load", ld64() + RETURN0, [(0, main)], lines=[(0, "a"), (1, "b")])


def map_cases() -> Iterator[Case]:
    """Maps and places in their values."""
    whole, value = ld64(), RETURN0
    yield Case("map", whole + value, fields=MAP_AT_0 | {"maps": [HASH]})
    yield Case("map with an offset", ld64(high=4) + value, fields=MAP_AT_0 | {"maps": [HASH]})
    yield Case("value", ld64(high=4) + value, fields=VALUE_AT_0 | {"maps": [ARRAY]})
    yield Case("value past its end", ld64(high=8) + value, fields=VALUE_AT_0 | {"maps": [ARRAY]})
    yield Case("value far away", ld64(high=1 << 29) + value, fields=VALUE_AT_0 | {"maps": [ARRAY]})
    yield Case("value of many", ld64() + value, fields=VALUE_AT_0 | {"maps": [ARRAY | {"max_entries": 2}]})
    yield Case("value of a hash", ld64() + value, fields=VALUE_AT_0 | {"maps": [HASH]})
    many = [HASH | {"name": f"h{at}"} for at in range(65)]
    relocs = [[2 * at, "map", at] for at in range(65)]
    yield Case("65 maps", ld64() * 65 + value, fields={"relocs": relocs, "maps": many})
    storage = HASH | {"type": 19, "key_size": 16, "max_entries": 0}
    both = {"relocs": [[0, "map", 0], [2, "map", 1]], "maps": [storage, storage]}
    yield Case("two cgroup storages", ld64() * 2 + value, type="cgroup_skb", fields=both)
    stack = HASH | {"type": 7, "value_size": 8}
    yield Case(
        "sleeping with a stack trace map", whole + value, "syscall", MAP_AT_0 | {"maps": [stack], "prog_flags": 16}
    )
    yield from managed_cases(whole + value)


def managed_cases(code: bytes) -> Iterator[Case]:
    """Maps with locks and timers, used by programs that must not."""
    for kind, size, member in (
        ("bpf_spin_lock", 4, Member("val", U32, 0)),
        ("bpf_timer", 16, Member("__opaque", U64, 0)),
        ("bpf_wq", 16, Member("__opaque", U64, 0)),
    ):
        builder = BtfBuilder()
        value = Struct("value", size + 8, [Member("x", Struct(kind, size, [member]), 0)])
        ids = {"btf": "m", "btf_key": builder.add(INT), "btf_value": builder.add(value)}
        used = ARRAY | ids | {"value_size": size + 8}
        for type in ("socket_filter", "kprobe", "sched_cls", "raw_tracepoint"):
            yield Case(f"{kind} in {type}", code, type, MAP_AT_0 | {"maps": [used]}, {"m": builder.to_bytes()})


def attribute_cases() -> Iterator[Case]:
    """Types, attach types, flags, licences."""
    yield Case("syscall that cannot sleep", RETURN0, "syscall")
    yield Case("syscall", RETURN0, "syscall", {"prog_flags": 16})
    yield Case("syscall with an attach type", RETURN0, "syscall", {"prog_flags": 16, "attach_type": 37})
    yield Case("xdp that sleeps", RETURN0, "xdp", {"prog_flags": 16})
    yield Case("kprobe that sleeps", RETURN0, "kprobe", {"prog_flags": 16})
    yield Case("tracing without a target", RETURN0, "tracing", {"attach_type": 23})
    yield Case("address without an attach type", RETURN0, "cgroup_sock_addr")
    yield Case("socket with another's attach type", RETURN0, "cgroup_sock", {"attach_type": 6})
    yield Case("xdp with another's attach type", RETURN0, "xdp", {"attach_type": 6})
    yield Case("lookup", RETURN0, "sk_lookup", {"attach_type": 36})
    yield Case("reuseport without an attach type", RETURN0, "sk_reuseport")
    yield Case("struct_ops without a target", RETURN0, "struct_ops")
    yield Case("struct_ops without the GPL", RETURN0, "struct_ops", {"license": "MIT"})
    yield Case("unknown flag", RETURN0, "xdp", {"prog_flags": 256})
    kfunc = insn(0x85, src=2, imm=1) + RETURN0
    named = {"kfuncs": {"0": "bpf_rcu_read_lock"}}
    yield Case("kernel function without the GPL", kfunc, "sched_cls", named | {"license": "MIT"})
    yield Case("hints of a card", kfunc, "xdp", {"kfuncs": {"0": "bpf_xdp_metadata_rx_hash"}})
    yield Case("fault in code before the target", insn(0xFF) + RETURN0, "tracing", {"attach_type": 23})
    yield Case("target before the first instruction", EXIT, "tracing", {"attach_type": 23})


def all_cases() -> Iterator[Case]:
    """Every case."""
    for group in (shape_cases, loop_cases, function_cases, debug_cases, map_cases, attribute_cases):
        yield from group()


_LIVE = re.compile(r"^ *(\d+ )? *(\d+): ([0-9.]{10}) \(", re.M)


def answer_of(program: Program) -> dict[str, Any]:
    """What the kernel says: the refusal if it came before the first path, else functions, loops, live registers."""
    from tests.oracle import ask

    found = ask(program, log_level=2)
    explored = re.search(r"^\d+: R1=|^Global function|^\d+: \(", found.log, re.M) is not None
    live = {slot: [int(loop or 0), registers] for loop, slot, registers in _LIVE.findall(found.log)}
    starts = [int(start) for start in re.findall(r"^func#\d+ @(\d+)", found.log, re.M)]
    if found.accepted or explored:
        return {"functions": starts, "live": live}
    return {"errno": found.errno, "message": ask(program).message}


def write() -> None:
    """Asks the running kernel about every case and writes the fixture."""
    rows = []
    for case in all_cases():
        row = case.to_json()
        rows.append(row | {"answer": answer_of(program_of(row))})
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    FIXTURE.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{len(rows)} cases, {sum('message' in row['answer'] for row in rows)} refused before exploration")


if __name__ == "__main__":
    write()
