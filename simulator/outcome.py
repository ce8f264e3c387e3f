"""What a run of a program came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import overload


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a run stopped before its end.

    `kind` is one of FAULT_KINDS; `insn` in slots; `address` and `size` (bytes) of the access where there was one;
    `region` names the memory that it was in or next to; `source` is "file:line: text" of the instruction.
    """

    kind: str
    message: str
    insn: int
    address: int | None = None
    size: int | None = None
    region: str = ""
    source: str = ""


FAULT_KINDS: Mapping[str, str] = MappingProxyType(
    {
        "memory": "an access outside of every region, or across the end of one",
        "read-only": "a write to memory that the program may not write",
        "illegal": "no instruction, or one with reserved fields set",
        "helper": "a helper that is neither modelled nor mocked, or that was given what it cannot take",
        "fuel": "more instructions than the run was given",
        "jump": "a jump out of the program, or an end without exit",
        "stack": "more than 8 frames of subprograms",
    }
)


@dataclass(slots=True)
class Outcome:
    """The result of one run. Nobody changes it; it is not frozen only because a frozen one takes four times as long
    to make, and every run makes one.

    `retval` is r0's low 32 bits, unsigned; `packet` the packet's bytes after the run, None for a program without one;
    `context` the context's fields after the run where the program type lets it write them; `redirect` the target of a
    redirection (an interface index, or a map's name and key), None where there was none.
    """

    retval: int
    packet: bytes | None = None
    fault: Fault | None = None
    trace: Sequence[str] = ()
    context: Mapping[str, int] = field(default_factory=dict)
    redirect: int | tuple[str, object] | None = None
    insns_executed: int = 0
    r0: int = 0


class Outcomes(Sequence[Outcome]):
    """The results of many runs, in the order of their inputs."""

    def __init__(self, outcomes: Sequence[Outcome] = ()) -> None:
        self._outcomes = outcomes

    def __len__(self) -> int:
        return len(self._outcomes)

    def one(self, number: int) -> Outcome:
        """The outcome of one run, by its number from 0."""
        return self._outcomes[number]

    @overload
    def __getitem__(self, number: int) -> Outcome: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[Outcome]: ...

    def __getitem__(self, number: int | slice) -> Outcome | Sequence[Outcome]:
        if isinstance(number, slice):
            return [self.one(index) for index in range(*number.indices(len(self)))]
        return self.one(range(len(self))[number])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self.retvals))

    def __repr__(self) -> str:
        return f"<{len(self)} outcomes>"

    @property
    def retvals(self) -> list[int]:
        """The return values: for many packets far quicker than each outcome's."""
        return [outcome.retval for outcome in self]
