"""From a program to a verdict: preparation, exploration, closing checks, and the words for what came of it.

Invariant: a program is explored once, without a log, and again with it when the log or the reason is asked for, since
the log costs more than the exploration and few are read. Both runs come to the same answer: nothing is random.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from simulator.verdict import NO_ACCOUNT, Account, Reason, Verdict
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
        early = Account(partial(_early_account, refusal)) if log_level else NO_ACCOUNT
        return _refused(program, profile, refusal, 0, early)
    machine, refused = _explore(layout, kernel_btf, 0, cpus)
    account = Account(partial(_account, layout, kernel_btf, log_level, cpus)) if log_level else NO_ACCOUNT
    if refused is None:
        return Verdict(True, profile.name, insns_processed=machine.processed, account=account)
    return _refused(program, profile, refused, machine.processed, account)


def _account(layout: Layout, kernel_btf: Btf | None, log_level: int, cpus: int) -> tuple[str, Reason | None]:
    """The log, and why the program was refused, from a second exploration that takes notes."""
    from simulator.verifier.reasons import reason_of

    with garbage_left():
        machine, refused = _explore(layout, kernel_btf, log_level, cpus)
        reason = reason_of(refused, machine) if refused is not None else None
        return machine.log.text() + _statistics(machine), reason


@contextmanager
def garbage_left() -> Iterator[None]:
    """Does not look for garbage: an exploration makes many objects and no cycles, and looking takes its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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


def _early_account(refusal: Refused) -> tuple[str, Reason | None]:
    """The same of a program that was refused before its first path."""
    from simulator.verifier.reasons import reason_of

    return "".join(line + "\n" for line in refusal.log) + _EMPTY_STATISTICS, reason_of(refusal, None)


_EMPTY_STATISTICS = "processed 0 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n"


def _statistics(machine: Machine) -> str:
    return (
        f"processed {machine.processed} insns (limit 1000000) max_states_per_insn {machine.max_states} "
        f"total_states {machine.total_states} peak_states {machine.peak_states} mark_read 0\n"
    )


def _refused(program: Program, profile: Profile, refusal: Refused, processed: int, account: Account) -> Verdict:
    return Verdict(
        False,
        profile.name,
        message=refusal.message,
        code=refusal.code or code_of(refusal.message),
        insn=refusal.insn,
        insns_processed=processed,
        source=_source(program, refusal.insn),
        account=account,
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
