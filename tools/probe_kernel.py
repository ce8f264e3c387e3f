"""Asks the running kernel, as root, what `bpflisp.spec` needs to know of it, and keeps what it answered.

    python -m tools.probe_kernel enums helpers contexts returns maps attach   # all of them where none is named

Writes `tools/answers/<release>/<question>.json`; `tools.gen_tables` makes the shipped tables of them. Nothing is
attached and nothing stays loaded. Takes about a minute.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tools.bpfcall import EXIT, Answer, create_map, insn, load, mov, permitted

ANSWERS = Path(__file__).parent / "answers"
VMLINUX = Path("/sys/kernel/btf/vmlinux")
LAST_HELPER_ASKED = 230
CONTEXT_BYTES = 288
"""Offsets below this are asked for; no context structure is larger (bpf_sock_ops has 224 bytes)."""
SLEEPABLE = 16
_SIZE_OPCODES = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_LDX_MEM, _ST_MEM, _STX_MEM, _CALL = 0x61, 0x62, 0x63, 0x85


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of program as BPF_PROG_LOAD takes it: enough to make the verifier look at its instructions."""

    prog_type: str
    attach_type: str = ""
    flags: int = 0
    target: str = ""
    target_kind: str = "FUNC"

    @property
    def name(self) -> str:
        """`type[/attach type][.s]`, by which answers are filed."""
        attach = f"/{self.attach_type}" if self.attach_type else ""
        return f"{self.prog_type}{attach}{'.s' if self.flags & SLEEPABLE else ''}"

    def load(self, code: bytes, license: str = "GPL", level: int = 1) -> Answer:
        """The kernel's answer to this code."""
        enums = enumerations()
        attach = enums["bpf_attach_type"].get(self.attach_type, 0)
        if self.prog_type == "struct_ops":
            attach = 0
        target = btf_id(self.target_kind, self.target) if self.target else 0
        number = enums["bpf_prog_type"][self.prog_type]
        return load(code, number, attach, flags=self.flags, license=license, attach_btf_id=target, level=level)


def _with_attach_types(prog_type: str, *attach_types: str) -> list[Shape]:
    return [Shape(prog_type, attach_type) for attach_type in attach_types]


_PLAIN = [
    *("socket_filter", "kprobe", "sched_cls", "sched_act", "tracepoint", "xdp", "perf_event", "lwt_in", "lwt_out"),
    *("lwt_xmit", "lwt_seg6local", "sk_skb", "raw_tracepoint", "raw_tracepoint_writable", "sk_reuseport"),
    *("lirc_mode2", "cgroup_device", "cgroup_sysctl", "sock_ops", "flow_dissector", "sk_msg"),
]

_SOCK_ADDR = [
    *(f"cgroup_inet{ip}_{hook}" for hook in ("bind", "connect", "getpeername", "getsockname") for ip in (4, 6)),
    *(f"cgroup_udp{ip}_{hook}" for hook in ("sendmsg", "recvmsg") for ip in (4, 6)),
    *(f"cgroup_unix_{hook}" for hook in ("connect", "sendmsg", "recvmsg", "getpeername", "getsockname")),
]


def shapes() -> list[Shape]:
    """Every kind of program that is asked about."""
    return [
        *(Shape(prog_type) for prog_type in _PLAIN),
        *_with_attach_types("kprobe", "trace_kprobe_multi", "trace_kprobe_session"),
        *_with_attach_types("kprobe", "trace_uprobe_multi", "trace_uprobe_session"),
        Shape("kprobe", flags=SLEEPABLE),
        Shape("kprobe", "trace_uprobe_multi", SLEEPABLE),
        *_with_attach_types("sched_cls", "tcx_ingress", "tcx_egress", "netkit_primary", "netkit_peer"),
        *_with_attach_types("xdp", "xdp", "xdp_devmap", "xdp_cpumap"),
        *_with_attach_types("cgroup_skb", "cgroup_inet_ingress", "cgroup_inet_egress"),
        *_with_attach_types("cgroup_sock", "cgroup_inet_sock_create", "cgroup_inet_sock_release"),
        *_with_attach_types("cgroup_sock", "cgroup_inet4_post_bind", "cgroup_inet6_post_bind"),
        *_with_attach_types("sock_ops", "cgroup_sock_ops"),
        *_with_attach_types("sk_skb", "sk_skb_stream_parser", "sk_skb_stream_verdict", "sk_skb_verdict"),
        *_with_attach_types("cgroup_device", "cgroup_device"),
        *_with_attach_types("sk_msg", "sk_msg_verdict"),
        *_with_attach_types("cgroup_sock_addr", *_SOCK_ADDR),
        *_with_attach_types("sk_reuseport", "sk_reuseport_select", "sk_reuseport_select_or_migrate"),
        *_with_attach_types("flow_dissector", "flow_dissector"),
        *_with_attach_types("cgroup_sysctl", "cgroup_sysctl"),
        *_with_attach_types("cgroup_sockopt", "cgroup_getsockopt", "cgroup_setsockopt"),
        *_with_attach_types("sk_lookup", "sk_lookup"),
        *_with_attach_types("netfilter", "netfilter"),
        Shape("syscall", flags=SLEEPABLE),
        Shape("tracing", "trace_fentry", target="bpf_fentry_test1"),
        Shape("tracing", "trace_fexit", target="bpf_fentry_test1"),
        Shape("tracing", "modify_return", target="bpf_modify_return_test"),
        Shape("tracing", "trace_fentry", SLEEPABLE, "bpf_fentry_test1"),
        Shape("tracing", "trace_raw_tp", target="btf_trace_sched_switch", target_kind="TYPEDEF"),
        Shape("tracing", "trace_iter", target="bpf_iter_task"),
        Shape("tracing", "trace_iter", SLEEPABLE, "bpf_iter_task"),
        Shape("lsm", "lsm_mac", target="bpf_lsm_file_open"),
        Shape("lsm", "lsm_mac", SLEEPABLE, "bpf_lsm_file_open"),
        Shape("lsm", "lsm_cgroup", target="bpf_lsm_socket_create"),
        Shape("struct_ops", target="tcp_congestion_ops", target_kind="STRUCT"),
        Shape("struct_ops", flags=SLEEPABLE, target="tcp_congestion_ops", target_kind="STRUCT"),
    ]


@cache
def _btf_lines() -> list[str]:
    command = ["bpftool", "btf", "dump", "file", str(VMLINUX), "format", "raw"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


@cache
def _btf_ids() -> dict[tuple[str, str], int]:
    named = (re.match(r"\[(\d+)\] (\w+) '(\w+)'", line) for line in _btf_lines())
    return {(found[2], found[3]): int(found[1]) for found in reversed(list(filter(None, named)))}


def btf_id(kind: str, name: str) -> int:
    """The id of a named type in the kernel's BTF; 0 where it has none."""
    return _btf_ids().get((kind, name), 0)


@cache
def enumerations() -> dict[str, dict[str, int]]:
    """The enumerations of program, attach and map types: names in lower case without their prefix."""
    prefixes = {"bpf_prog_type": "BPF_PROG_TYPE_", "bpf_attach_type": "BPF_", "bpf_map_type": "BPF_MAP_TYPE_"}
    found: dict[str, dict[str, int]] = {}
    current = ""
    for line in _btf_lines():
        if not line.startswith("\t"):
            named = re.match(r"\[\d+\] ENUM '(\w+)'", line)
            current = named[1] if named and named[1] in prefixes else ""
        elif current:
            value = re.match(r"\t'(\w+)' val=(\d+)", line)
            if value and value[1].startswith(prefixes[current]):
                name = value[1].removeprefix(prefixes[current]).lower()
                found.setdefault(current, {})[name] = int(value[2])
    return found


def ask_helpers() -> dict[str, Any]:
    """Which helpers each kind of program may call, which of them want the GPL, and the first id that is unknown."""
    answers: dict[str, Any] = {}
    for shape in shapes():
        base = shape.load(mov(0, 0) + EXIT)
        row: dict[str, Any] = {"prog_type": shape.prog_type, "attach_type": shape.attach_type, "flags": shape.flags}
        known = [number for number in range(1, LAST_HELPER_ASKED) if _allows(shape, number)]
        if not known:
            row["refused"] = {"errno": base.errno, "message": base.message}
        else:
            row["helpers"] = known
            row["gpl_only"] = [number for number in known if _wants_gpl(shape, number)]
            row["sleepable_only"] = [number for number in known if _wants_sleep(shape, number)]
        answers[shape.name] = row
    unknown = [n for n in range(1, LAST_HELPER_ASKED) if "invalid func" in _call("socket_filter", n)]
    return {"first_unknown": unknown[0], "shapes": answers}


def _call(prog_type: str, number: int) -> str:
    return Shape(prog_type).load(insn(_CALL, imm=number) + EXIT).message


def _allows(shape: Shape, number: int) -> bool:
    """A helper is allowed where the refusal, if any, is of its arguments: the call itself is looked at in order."""
    answer = shape.load(insn(_CALL, imm=number) + mov(0, 0) + EXIT)
    if answer.accepted:
        return True
    if not answer.log or "(85) call" not in answer.log:
        return False
    return not re.search(r"cannot use helper|invalid func|not allowed in probe", answer.message)


def _wants_gpl(shape: Shape, number: int) -> bool:
    answer = shape.load(insn(_CALL, imm=number) + mov(0, 0) + EXIT, license="Proprietary")
    return "GPL" in answer.message or (answer.errno != 0 and not answer.log)


def _wants_sleep(shape: Shape, number: int) -> bool:
    return "might sleep" in shape.load(insn(_CALL, imm=number) + mov(0, 0) + EXIT).message


def ask_contexts() -> dict[str, Any]:
    """Every (offset, size) of every context: the register after a read, and which may be written."""
    answers = {}
    for shape in shapes():
        if shape.target or not shape.load(_ending(shape)).accepted:
            continue
        reads = {f"{off}:{size}": kind for off, size, kind in _reads(shape)}
        writes = [f"{off}:{size}" for off, size in _places() if _writable(shape, off, size)]
        row = {"prog_type": shape.prog_type, "attach_type": shape.attach_type, "flags": shape.flags}
        answers[shape.name] = row | {"reads": reads, "writes": writes}
    return answers


def _places() -> Iterator[tuple[int, int]]:
    return ((off, size) for off in range(-8, CONTEXT_BYTES) for size in _SIZE_OPCODES)


@cache
def _ending(shape: Shape) -> bytes:
    """`r0 = <a value that it may return>; exit`."""
    for value in (0, 1):
        if shape.load(mov(0, value) + EXIT).accepted:
            return mov(0, value) + EXIT
    return mov(0, 0) + EXIT


def _reads(shape: Shape) -> Iterator[tuple[int, int, str]]:
    for off, size in _places():
        code = insn(_LDX_MEM | _SIZE_OPCODES[size], 0, 1, off) + _ending(shape)
        if shape.load(code, level=0).accepted:
            log = shape.load(code, level=2).log
            found = re.search(r"^0: \(.*; R0(?:_w)?=(\w+)\(", log, re.MULTILINE)
            yield off, size, found[1] if found else "unprinted"


def _writable(shape: Shape, off: int, size: int) -> bool:
    """Asked with a register and with an immediate: they have to agree, or the table could not say it in one word."""
    bits = _SIZE_OPCODES[size]
    by_register = mov(2, 0) + insn(_STX_MEM | bits, 1, 2, off) + _ending(shape)
    by_immediate = insn(_ST_MEM | bits, 1, 0, off) + _ending(shape)
    first, second = (shape.load(code, level=0).accepted for code in (by_register, by_immediate))
    if first != second:
        raise AssertionError(f"{shape.name}: {size} bytes at {off}: a register {first}, an immediate {second}")
    return first


def ask_returns() -> dict[str, Any]:
    """What r0 may be at the exit of each kind of program, and the kernel's sentence where it has a range."""
    answers: dict[str, Any] = {}
    for shape in shapes():
        answer = shape.load(insn(_CALL, imm=7) + EXIT)
        if not answer.log:
            continue
        row: dict[str, Any] = {"prog_type": shape.prog_type, "attach_type": shape.attach_type, "flags": shape.flags}
        found = re.search(r"should have been in \[(-?\d+), (-?\d+)\]", answer.message)
        row["range"] = [int(found[1]), int(found[2])] if found else None
        row["message"] = "" if answer.accepted else answer.message
        answers[shape.name] = row
    return answers


XDP_HAS_FRAGS = 32


def ask_attach() -> dict[str, Any]:
    """Which attach types each program type loads with, and what it says to the flags for sleeping and fragments.

    An attach type counts as taken where the verifier's answer is that for number 0 or a program's; a type that wants
    a BTF target is not asked.
    """
    answers: dict[str, Any] = {}
    for prog_type in enumerations()["bpf_prog_type"]:
        if prog_type in ("unspec", "tracing", "lsm", "struct_ops", "ext"):
            continue
        taken = {name: _taken(Shape(prog_type, name)) for name in enumerations()["bpf_attach_type"]}
        best = next((name for name, loads in taken.items() if loads), "")
        row: dict[str, Any] = {"taken": [name for name, loads in taken.items() if loads]}
        for flag, key in ((SLEEPABLE, "sleepable"), (XDP_HAS_FRAGS, "frags")):
            said = Shape(prog_type, best, flag).load(mov(0, 1) + EXIT)
            row[key] = [said.errno, said.message]
        said = Shape(prog_type, best).load(mov(0, 1) + EXIT)
        row["plain"] = [said.errno, said.message]
        answers[prog_type] = row
    return answers


def _taken(shape: Shape) -> bool:
    """Asked with the flag for sleeping too: a syscall program loads with nothing else."""
    code = mov(0, 1) + EXIT
    return shape.load(code).accepted or Shape(shape.prog_type, shape.attach_type, SLEEPABLE).load(code).accepted


_MAP_SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 24, 32, 255, 256, 257, 260, 264, 512, 513, 600, 1024, 4096)
_MAP_ENTRIES = (0, 1, 2, 3, 100, 4095, 4096, 6000, 8192, 1 << 20)
_MAP_FLAGS = tuple(1 << bit for bit in range(19))


def ask_maps() -> dict[str, Any]:
    """Which sizes and which single flags each map type is created with, each asked from a form that works."""
    answers: dict[str, Any] = {}
    for name, number in enumerations()["bpf_map_type"].items():
        works = _working_form(number)
        if works is None:
            answers[name] = {"number": number, "refused": create_map(number, 4, 4, 1)}
            continue
        key, value, entries, flags = works
        answers[name] = {
            "number": number,
            "form": works,
            "keys": {size: create_map(number, size, value, entries, flags) for size in _MAP_SIZES},
            "values": {size: create_map(number, key, size, entries, flags) for size in _MAP_SIZES},
            "entries": {count: create_map(number, key, value, count, flags) for count in _MAP_ENTRIES},
            "flags": {flag: create_map(number, key, value, entries, flags | flag) for flag in _MAP_FLAGS},
        }
    return answers


def _working_form(number: int) -> tuple[int, int, int, int] | None:
    for flags in (0, 1):
        for key, value in ((4, 8), (4, 4), (0, 8), (0, 0), (8, 8), (16, 8)):
            for entries in (1, 4096, 0):
                if create_map(number, key, value, entries, flags) == 0:
                    return key, value, entries, flags
    return None


def ask_enums() -> dict[str, Any]:
    """The numbers of program, attach and map types, from the kernel's BTF."""
    return dict(enumerations())


QUESTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "enums": ask_enums,
    "helpers": ask_helpers,
    "contexts": ask_contexts,
    "returns": ask_returns,
    "maps": ask_maps,
    "attach": ask_attach,
}


def release() -> str:
    """The running kernel's x.y.z."""
    return os.uname().release.split("-")[0].split("+")[0]


def main(names: list[str]) -> int:
    """Asks the named questions, or all, and files the answers."""
    if not permitted():
        print("probe_kernel: this process may not use bpf(2): run it as root", file=sys.stderr)
        return 2
    unknown = [name for name in names if name not in QUESTIONS]
    if unknown:
        print(f"probe_kernel: no question {unknown[0]!r}; there are {', '.join(QUESTIONS)}", file=sys.stderr)
        return 2
    folder = ANSWERS / release()
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or QUESTIONS:
        text = json.dumps(QUESTIONS[name](), indent=1, sort_keys=True)
        (folder / f"{name}.json").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
