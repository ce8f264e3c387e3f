"""What the verifier says of a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


class Account:
    """What the verifier has to tell beyond its answer. Found out when it is first asked for, since most never are."""

    __slots__ = ("_give", "_given")

    def __init__(self, give: Callable[[], tuple[str, Reason | None]]) -> None:
        self._give = give
        self._given: tuple[str, Reason | None] | None = None

    def given(self) -> tuple[str, Reason | None]:
        """The log, and the reason of a refusal."""
        if self._given is None:
            self._given = self._give()
        return self._given


NO_ACCOUNT = Account(lambda: ("", None))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The kernel's answer to a program.

    `message` is worded as the kernel words it, empty when accepted; `code` is the refusal's stable class; `insn` the
    refused instruction, in slots; `source` its "file:line: text" where the object has line information. `log` and
    `reason` take as long as the verdict did, when they are first asked for.
    """

    accepted: bool
    kernel: str
    message: str = ""
    code: str = ""
    insn: int | None = None
    insns_processed: int = 0
    source: str = ""
    warnings: Sequence[str] = field(default=())
    account: Account = field(default=NO_ACCOUNT, repr=False, compare=False)

    @property
    def log(self) -> str:
        """The log, as the kernel prints it at the level that was asked for; empty at level 0."""
        return self.account.given()[0]

    @property
    def reason(self) -> Reason | None:
        """Why the program was refused; None where it was accepted, or at log level 0."""
        return self.account.given()[1]

    def __bool__(self) -> bool:
        return self.accepted
