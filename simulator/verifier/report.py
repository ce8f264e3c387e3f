"""From a program to a verdict: preparation, exploration, closing checks, and the words for what came of it.

Invariant: a program is explored once, without a log, and again with it when the log or the reason is asked for, since
the log costs more than the exploration and few are read. Both runs come to the same answer: nothing is random.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Final

from simulator.verdict import NO_ACCOUNT, Account, Reason, Verdict
from simulator.verifier.layout import Layout, finish, prepare
from simulator.verifier.log import LEVELS, STATISTICS, ended
from simulator.verifier.machine import Machine
from simulator.verifier.preamble import functions_text, preamble
from simulator.verifier.refusal import Refused, code_of
from simulator.verifier.regs import drop_unused
from simulator.verifier.scalar import interned_count

if TYPE_CHECKING:
    from bpflisp.spec.btf import Btf
    from bpflisp.spec.kernels import Profile
    from simulator.program import Program


def judge(program: Program, profile: Profile, kernel_btf: Btf | None, log_level: int, cpus: int) -> Verdict:
    """The verdict on one program."""
    started = time.perf_counter()
    program = _as_read(program)
    try:
        layout = prepare(program, profile, kernel_btf)
    except Refused as refusal:
        took = _microseconds(started)
        early = Account(partial(_early_account, program, refusal, log_level, took)) if log_level else NO_ACCOUNT
        return _refused(program, profile, refusal, 0, early)
    printed = log_level & LEVELS
    machine, refused = _explore(layout, kernel_btf, 0 if printed else log_level, cpus)
    took = _microseconds(started)
    if not log_level:
        account = NO_ACCOUNT
    elif printed > 1 or (printed and refused is not None):
        account = Account(partial(_account, layout, kernel_btf, log_level, cpus, took))
    else:
        account = Account(partial(_known_account, program, _short_log(machine, log_level, took), refused))
    machine.let_go()
    if refused is None:
        told = tuple(_astray(program, at) for at in sorted(machine.astray))
        return Verdict(True, profile.name, insns_processed=machine.processed, warnings=told, account=account)
    return _refused(program, profile, refused, machine.processed, account)


def _astray(program: Program, at: int) -> str:
    """A sum that this kernel takes for another function's stack, told to whoever loads the program."""
    source = _source(program, at)
    where = f"insn {at}, {source}," if source else f"insn {at}"
    return (
        f"{where} adds a pointer to the stack to a number: before 7.2 the kernel takes the sum for the stack of the "
        "first function, makes the frame of this one too small, and what is stored there may overwrite registers that "
        "are saved there; add the number to the pointer"
    )


def _as_read(program: Program) -> Program:
    """The program with the BTF that the kernel looks at: none without functions or lines that refer to it."""
    if program.btf is None and (program.func_info or program.line_info):
        return replace(program, func_info=(), line_info=())
    if program.btf is not None and not program.func_info and not program.line_info:
        return replace(program, btf=None)
    return program


def _account(layout: Layout, kernel_btf: Btf | None, log_level: int, cpus: int, took: int) -> tuple[str, Reason | None]:
    """The log, and why the program was refused, from a second exploration that takes notes."""
    from simulator.verifier.reasons import reason_of

    with garbage_left():
        machine, refused = _explore(layout, kernel_btf, log_level & LEVELS, cpus)
        reason = reason_of(refused, layout.program, machine) if refused is not None else None
        machine.let_go()
        return machine.log.text() + _statistics(machine, log_level, took), reason


@contextmanager
def garbage_left() -> Iterator[None]:
    """Does not look for garbage: an exploration makes many objects, whose cycles it breaks, and looking takes its time.

    What numbers were met is kept from program to program, since programs are alike, but not without end.
    """
    enabled = gc.isenabled()
    gc.disable()
    with _counting:
        _running.append(True)
    try:
        yield
    finally:
        with _counting:
            _running.pop()
            if not _running and interned_count() > _MOST_KEPT:
                drop_unused()
        if enabled:
            gc.enable()


_MOST_KEPT: Final = 50_000
"""Numbers that are kept from one exploration to the next: some 40 MB."""
_running: Final[list[bool]] = []
"""An entry for each exploration under way, in all threads."""
_counting: Final = Lock()


def _explore(layout: Layout, kernel_btf: Btf | None, log_level: int, cpus: int) -> tuple[Machine, Refused | None]:
    machine = Machine(layout, kernel_btf, log_level, cpus)
    if machine.log.level >= 2:
        machine.log.write(preamble(machine))
    try:
        machine.run()
    except Refused as refusal:
        return machine, refusal.with_traceback(None)  # which would hold the states of the path
    try:
        machine.stack_depth = list(finish(layout, machine.explored_facts()).stack_depth)
    except Refused as refusal:
        for line in refusal.log:
            machine.log_line(line)
        return machine, refusal
    return machine, None


def _short_log(machine: Machine, log_level: int, took: int) -> str:
    """The log of an accepted program at level 1, and of any at level 4: another exploration would not say more."""
    said = f"{machine.closing}\n" if log_level & LEVELS and machine.closing else ""
    return machine.log.text() + said + _statistics(machine, log_level, took)


def _known_account(program: Program, log: str, refused: Refused | None) -> tuple[str, Reason | None]:
    """The same without another exploration: of a refusal, what holds of its class."""
    from simulator.verifier.reasons import reason_of

    return log, reason_of(refused, program) if refused is not None else None


def _early_account(program: Program, refusal: Refused, log_level: int, took: int) -> tuple[str, Reason | None]:
    """The log and the reason of a program that was refused before its first path."""
    from simulator.verifier.reasons import reason_of

    starts = functions_text(refusal.functions) if log_level & LEVELS >= 2 else ""
    said = "".join(map(ended, refusal.log))
    depths = [0] * max(1, len(refusal.functions))
    log = starts + said + _timing(log_level, took, depths) + _counts(0, 0, 0, 0)
    return log, reason_of(refusal, program)


def _statistics(machine: Machine, log_level: int, took: int) -> str:
    counts = (machine.processed, machine.max_states, machine.total_states, machine.peak_states)
    return _timing(log_level, took, machine.stack_depth) + _counts(*counts)


def _microseconds(started: float) -> int:
    return int((time.perf_counter() - started) * 1e6)


def _timing(log_level: int, took: int, depths: Sequence[int]) -> str:
    """How many microseconds it took us, which no two runs have alike, and the bytes of stack of each function."""
    if not log_level & STATISTICS:
        return ""
    return f"verification time {took} usec\nstack depth {'+'.join(map(str, depths))}\n"


def _counts(processed: int, max_states: int, total: int, peak: int) -> str:
    return (
        f"processed {processed} insns (limit 1000000) max_states_per_insn {max_states} total_states {total} "
        f"peak_states {peak} mark_read 0\n"
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
