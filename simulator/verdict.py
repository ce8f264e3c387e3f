"""What the verifier says of a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

UNSUPPORTED = "unsupported"
"""The code of a refusal that is ours alone: the program uses what is not modelled, so nothing is claimed of it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One branch of the refused path that matters to the reason: the slot, its source line, what was decided there."""

    insn: int
    text: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a program was refused, for a person: the problem in a line, what made it so, and what to do."""

    problem: str
    because: str = ""
    help: str = ""
    path: Sequence[Step] = ()
    registers: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The kernel's answer to a program.

    `message` is worded as the kernel words it, empty when accepted; `code` is the refusal's stable class; `insn` the
    refused instruction, in slots; `source` its "file:line: text" where the object has line information.
    """

    accepted: bool
    kernel: str
    message: str = ""
    code: str = ""
    insn: int | None = None
    insns_processed: int = 0
    log: str = ""
    source: str = ""
    reason: Reason | None = None
    warnings: Sequence[str] = field(default=())

    def __bool__(self) -> bool:
        return self.accepted
