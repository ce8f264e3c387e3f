"""Asks the running kernel, as root, which kfuncs each program type may call.

    python -m tools.probe_kfuncs

Writes `bpflisp/spec/tables/kfunc_allowed.json`: rows of [[program type, attach type], ...] with the kfuncs that all of
them may call. A kfunc is allowed where the first thing that the verifier says of its call is not that it is not. What
this host's policy does not let anybody load (LSM, fentry, extensions) is not in the table. Takes a second.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from bpflisp.spec import programs
from bpflisp.spec.btf import Btf, BtfKind
from bpflisp.spec.insn import Insn, encode
from bpflisp.spec.programs import F_SLEEPABLE
from simulator.program import Program

VMLINUX = Path("/sys/kernel/btf/vmlinux")
TABLE = Path(__file__).parents[1] / "bpflisp" / "spec" / "tables" / "kfunc_allowed.json"

_TARGETS = {"trace_raw_tp": "sched_switch", "trace_iter": "task"}
_NOT_LOADED = frozenset({"lsm", "ext", "lirc_mode2"})
_CALL = encode([Insn(0x85, src=2, imm=1), Insn(0xB7), Insn(0x95)])


def kfunc_names(btf: Btf) -> list[str]:
    """The functions that the kernel's BTF tags as kfuncs."""
    tags = (btf.type(tag) for tag in btf.of_kind(BtfKind.DECL_TAG))
    return sorted({btf.type(tag.target).name for tag in tags if tag.name == "bpf_kfunc"})


def shapes() -> Iterator[Program]:
    """One program of each type and attach type that this host loads."""
    for kind in programs.all_program_types():
        if kind.name in _NOT_LOADED:
            continue
        if kind.name == "struct_ops":
            yield Program(insns=_CALL, type=kind.name, attach_type="2", attach_target="tcp_congestion_ops")
            continue
        for attach in kind.attach_types or ("",):
            target = _TARGETS.get(attach, "")
            if kind.name == "tracing" and not target:
                continue
            flags = F_SLEEPABLE if kind.name == "syscall" else 0
            yield Program(insns=_CALL, type=kind.name, attach_type=attach, attach_target=target, flags=flags)


def allowed(shape: Program, names: list[str]) -> list[str]:
    """The kfuncs of `names` that such a program may call."""
    from dataclasses import replace

    from tests.oracle import ask

    refusals = {name: ask(replace(shape, kfuncs={0: name})).message for name in names}
    return [name for name, said in refusals.items() if said != f"calling kernel function {name} is not allowed"]


def main() -> None:
    """Asks, groups the types that may call the same, and writes the table."""
    names = kfunc_names(Btf(VMLINUX.read_bytes()))
    groups: dict[tuple[str, ...], list[list[str]]] = {}
    for shape in shapes():
        attach = "" if shape.type == "struct_ops" else shape.attach_type
        groups.setdefault(tuple(allowed(shape, names)), []).append([shape.type, attach])
    rows = [[types, list(kfuncs)] for kfuncs, types in groups.items()]
    TABLE.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print(f"{len(names)} kfuncs, {len(rows)} groups of program types")


if __name__ == "__main__":
    main()
