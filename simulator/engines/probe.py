"""Asks the running kernel for its own profile: which helpers each kind of program may call.

The answer is what `bpflisp probe` writes and `--kernel FILE.json` reads. Nothing is attached and nothing stays loaded.
A kind of program that this host does not load (no such type, no BTF, a policy) is left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from bpflisp.spec import kernels, programs
from bpflisp.spec.insn import Insn, encode
from bpflisp.spec.tabledata import ranges
from simulator.engines import bpf_syscall
from simulator.engines.bpf_syscall import BpfError, ProgramRequest
from simulator.engines.kernel_load import NotInKernelError, Resources, program_request
from simulator.program import Program

LAST_ASKED: Final = 240
"""Helpers from 1 to this number are asked for; 211 is the last that any kernel has."""

_RETURN: Final = (Insn(0xB7), Insn(0x95))
_ANSWERED: Final = re.compile(r"cannot use helper|unknown func|invalid func|not allowed in probe")

# What a program that wants a BTF target is tried on.
_TARGETS: Final = {
    "trace_raw_tp": "sched_switch",
    "trace_iter": "task",
    "trace_fentry": "bpf_fentry_test1",
    "trace_fexit": "bpf_fentry_test1",
    "modify_return": "bpf_modify_return_test",
    "lsm_mac": "file_open",
    "lsm_cgroup": "socket_create",
}


def shapes() -> Iterator[Program]:
    """One program of each kind: type, attach type, and sleeping where the type may."""
    for kind in programs.all_program_types():
        rules = programs.load_rules(kind.name)
        target = "tcp_congestion_ops" if kind.name == "struct_ops" else ""
        for attach in dict.fromkeys(("", *kind.attach_types)):
            for sleepable in (False, True):
                if rules.sleepable == ("never" if sleepable else "must"):
                    continue
                flags = programs.F_SLEEPABLE if sleepable else 0
                named = target or _TARGETS.get(attach, "")
                yield Program(encode(_RETURN), kind.name, attach_type=attach, attach_target=named, flags=flags)


def probe(progress: Callable[[str], None] = lambda name: None) -> dict[str, Any]:
    """This kernel's profile: release, version, first_unknown, and a row for each kind of program.

    `progress` is told the type of each program before it is asked about. Raises BpfError where bpf(2) is refused.
    """
    able, reason = bpf_syscall.available()
    if not able:
        raise BpfError(1, "BPF_PROG_LOAD", reason)
    rows, first_unknown = [], LAST_ASKED + 1
    for shape in shapes():
        progress(shape.type)
        request = _request(shape)
        known = [number for number in range(1, LAST_ASKED + 1) if _allows(request, number)] if request else []
        if request is None or not known:
            continue
        gpl = [number for number in known if _wants_gpl(request, number)]
        sleepable = bool(shape.flags & programs.F_SLEEPABLE)
        rows.append([shape.type, shape.attach_type, sleepable, ranges(known), ranges(gpl)])
        first_unknown = min(first_unknown, _first_unknown(request))
    release = os.uname().release
    version = ".".join(str(part) for part in kernels.parse(release))
    return {"release": release, "version": version, "first_unknown": first_unknown, "rows": rows}


def _request(shape: Program) -> ProgramRequest | None:
    """What is loaded for a kind of program; None where the kernel lacks what it names."""
    try:
        with Resources() as kit:
            return program_request(shape, kit)
    except (BpfError, NotInKernelError, OSError, ValueError):
        return None


def _said(request: ProgramRequest, number: int, license: str = "GPL") -> str | None:
    """What the verifier says to a call of this helper; None where it was not asked."""
    code = encode((Insn(0x85, imm=number), *_RETURN))
    try:
        loaded = bpf_syscall.prog_load(replace(request, insns=code, license=license))
    except BpfError as error:
        return error.log if "(85) call" in error.log else None
    loaded.handle.close()
    return loaded.log


def _allows(request: ProgramRequest, number: int) -> bool:
    """Whether the refusal, if any, is of the arguments: the call itself is looked at before them."""
    said = _said(request, number)
    return said is not None and not _ANSWERED.search(said)


def _wants_gpl(request: ProgramRequest, number: int) -> bool:
    said = _said(request, number, license="Proprietary")
    return said is None or "GPL" in said


def _first_unknown(request: ProgramRequest) -> int:
    """The first number that is no helper, found by halving: from it on all are unknown."""
    low, high = 1, LAST_ASKED + 1
    while low < high:
        middle = (low + high) // 2
        if "invalid func" in (_said(request, middle) or ""):
            high = middle
        else:
            low = middle + 1
    return low
