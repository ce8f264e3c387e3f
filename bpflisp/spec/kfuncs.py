"""Kfuncs: the kernel's own functions that a program may call by name.

Signatures are those of 6.18.44's BTF; a kfunc that it does not have is listed without one. What a kfunc takes and
gives is decided by BTF and by its flags (acquire, release, null, rcu, sleepable, ...), per set of program types.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from bpflisp.lean import dataclass
from bpflisp.spec.tabledata import prefer, table


@dataclass(frozen=True, slots=True)
class KfuncArg:
    """One parameter: its name, whose suffix may carry a meaning (`__sz`, `__k`, `__ign`, ...), and C type."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class KfuncSet:
    """A registration: these program types may call it, with these flags (without KF_, upper case).

    "unspec" among the program types means the common set: all of them but those that get none.
    """

    name: str
    flags: frozenset[str]
    prog_types: Sequence[str]


@dataclass(frozen=True, slots=True)
class Kfunc:
    """One kfunc. `ret` and `args` are None where the signature is not known."""

    name: str
    min_kernel: str
    ret: str | None
    args: Sequence[KfuncArg] | None
    sets: Sequence[KfuncSet]

    @property
    def flags(self) -> frozenset[str]:
        """The flags of all its registrations together."""
        return frozenset().union(*(entry.flags for entry in self.sets))

    def flags_for(self, prog_type: str) -> frozenset[str] | None:
        """The flags under which this program type may call it; None where it may not."""
        for entry in self.sets:
            if prog_type in entry.prog_types or "unspec" in entry.prog_types:
                return entry.flags
        return None


def _kfunc(row: dict[str, Any]) -> Kfunc:
    args = tuple(KfuncArg(name, ctype) for name, ctype in row["args"]) if "args" in row else None
    sets = tuple(KfuncSet(name, frozenset(flags), tuple(types)) for name, flags, types in row["sets"])
    return Kfunc(row["name"], row["min"], row.get("ret"), args, sets)


@cache
def _by_name() -> dict[str, Kfunc]:
    return {row["name"]: _kfunc(row) for row in table("kfuncs")}


def by_name(name: str) -> Kfunc | None:
    """The kfunc of this name; None where the tables know none."""
    return _by_name().get(name)


@cache
def allowed(prog_type: str, attach_type: str = "") -> frozenset[str] | None:
    """The kfuncs that 6.18.44 lets such a program call, as it answered; None for a type that it was not asked about.

    Of an attach type that was not asked about, what the type's others have in common.
    """
    rows = [(attach, names) for kinds, names in table("kfunc_allowed") for kind, attach in kinds if kind == prog_type]
    wanted = prefer(prog_type, attach_type)
    exact = [names for attach, names in rows if attach == wanted]
    alike = exact or [names for _, names in rows]
    return frozenset.intersection(*(frozenset(names) for names in alike)) if alike else None


def all_kfuncs() -> Iterator[Kfunc]:
    """Every kfunc, by name."""
    return iter(_by_name().values())
