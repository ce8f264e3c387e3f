"""The oracle: what the running kernel says of a program.

Invariant: nothing is judged here. The program's maps and BTF are created, its names resolved in the kernel's BTF, the
program loaded and let go, and the kernel's verdict, log and errno handed back.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

from simulator.engines import bpf_syscall
from simulator.engines.bpf_syscall import BpfError
from simulator.engines.kernel_load import NotInKernelError, Resources, program_request
from simulator.program import Program

_PROCESSED = re.compile(r"processed (\d+) insns ")

# Lines that close a log: what it took, and with level 4 how long and how deep.
_STATISTICS = re.compile(r"processed \d+ insns |verification time |stack depth |mark_precise: |peak_states ")

# Lines that show a state: of registers and stack, at an instruction or of the two that an endless loop shows.
_STATE = re.compile(
    r"from \d+ to \d+.*: |\d+: |caller:|callee:|returning from callee:|to caller at "
    r"|cur state:|old state:| *frame\d+:| R\d+"
)

# At level 1 the kernel ends the line neither before "infinite loop" nor, at times, before the statistics.
_GLUED_BEFORE = re.compile(r"^\d+: \(.*? (?=infinite loop detected at insn \d+$)")
_GLUED_AFTER = re.compile(r"(verification time \d+ usec|processed \d+ insns ).*$")


@dataclass(frozen=True, slots=True)
class Answer:
    """The kernel's answer. `errno` 0 when accepted; `insns_processed` None where the log does not count them."""

    accepted: bool
    errno: int
    message: str
    log: str
    insns_processed: int | None

    @property
    def errno_name(self) -> str:
        """The error by its name, "EACCES"; "" when accepted."""
        return errno.errorcode.get(self.errno, str(self.errno)) if self.errno else ""


class CannotAskError(Exception):
    """The program did not reach the verifier: bpf(2) is refused, a map was, or the kernel lacks what it names."""


def available() -> tuple[bool, str]:
    """Whether the kernel can be asked here, and why not."""
    return bpf_syscall.available()


def ask(program: Program, log_level: int = 1, log_limit: int = bpf_syscall.LARGEST_LOG_SIZE) -> Answer:
    """The kernel's verdict on a program. `log_level` 1, or 2 for the state at every instruction; plus 4 for statistics.

    Raises CannotAskError where the program did not come as far as the verifier. A log above `log_limit` bytes is an
    answer with errno ENOSPC.
    """
    with Resources() as kit:
        try:
            request = program_request(program, kit, lenient=True)
        except (BpfError, NotInKernelError, OSError) as error:
            raise CannotAskError(str(error)) from error
        try:
            loaded = bpf_syscall.prog_load(request, log_level, log_limit)
        except BpfError as error:
            return _answer(error.errno or errno.EINVAL, error.log)
        loaded.handle.close()
        return _answer(0, loaded.log)


def _answer(number: int, log: str) -> Answer:
    processed = _PROCESSED.findall(log)
    return Answer(
        accepted=number == 0,
        errno=number,
        message=message_of(log) if number else "",
        log=log,
        insns_processed=int(processed[-1]) if processed else None,
    )


def message_of(log: str) -> str:
    """The refusal in a log: its last line that is neither statistics nor a state, "" where there is none."""
    for line in reversed(log.splitlines()):
        line = _GLUED_BEFORE.sub("", _GLUED_AFTER.sub("", line))
        if line.strip() and not _STATISTICS.match(line) and not _STATE.match(line):
            return line
    return ""
