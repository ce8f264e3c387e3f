"""From a program to a verdict: preparation, exploration, closing checks, and the words for what came of it.

Invariant: an accepted program is explored once, without a log; a refused one again with it, since the log costs more
than the exploration and only a refusal is read. Both runs come to the same answer: nothing is random.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.verdict import Verdict
from simulator.verifier.layout import Layout, finish, prepare
from simulator.verifier.machine import Machine
from simulator.verifier.refusal import Refused, code_of

if TYPE_CHECKING:
    from bpflisp.spec.btf import Btf
    from bpflisp.spec.kernels import Profile
    from simulator.program import Program


def judge(program: Program, profile: Profile, kernel_btf: Btf | None, log_level: int, cpus: int) -> Verdict:
    """The verdict on one program."""
    try:
        layout = prepare(program, profile, kernel_btf)
    except Refused as refusal:
        return _refused(program, profile, refusal, None, _early_log(refusal) if log_level else "")
    machine, refused = _explore(layout, kernel_btf, 0, cpus)
    if log_level and (refused is not None or log_level > 1):
        machine, refused = _explore(layout, kernel_btf, log_level, cpus)
    log = machine.log.text() + _statistics(machine) if log_level else ""
    if refused is None:
        return Verdict(True, profile.name, insns_processed=machine.processed, log=log)
    return _refused(program, profile, refused, machine, log)


def _explore(layout: Layout, kernel_btf: Btf | None, log_level: int, cpus: int) -> tuple[Machine, Refused | None]:
    machine = Machine(layout, kernel_btf, log_level, cpus)
    try:
        machine.run()
    except Refused as refusal:
        return machine, refusal
    try:
        finish(layout, machine.explored_facts())
    except Refused as refusal:
        for line in refusal.log:
            machine.log_line(line)
        return machine, refusal
    return machine, None


def _early_log(refusal: Refused) -> str:
    return "".join(line + "\n" for line in refusal.log) + _EMPTY_STATISTICS


_EMPTY_STATISTICS = "processed 0 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n"


def _statistics(machine: Machine) -> str:
    return (
        f"processed {machine.processed} insns (limit 1000000) max_states_per_insn {machine.max_states} "
        f"total_states {machine.total_states} peak_states {machine.peak_states} mark_read 0\n"
    )


def _refused(program: Program, profile: Profile, refusal: Refused, machine: Machine | None, log: str) -> Verdict:
    from simulator.verifier.reasons import reason_of

    return Verdict(
        False,
        profile.name,
        message=refusal.message,
        code=refusal.code or code_of(refusal.message),
        insn=refusal.insn,
        insns_processed=machine.processed if machine is not None else 0,
        log=log,
        source=_source(program, refusal.insn),
        reason=reason_of(refusal, machine) if log else None,
    )


def _source(program: Program, insn: int | None) -> str:
    """The source line of an instruction, as file:line: text."""
    if insn is None:
        return ""
    found = None
    for line in program.line_info:
        if line.insn > insn:
            break
        found = line
    return f"{found.file}:{found.line}: {found.text.strip()}" if found is not None else ""
