"""How kernels differ in what they deduce about scalars: named rules, and the kernel that each begins with.

Learned from Debian's sources of 6.1 and 6.12 and from what the running 6.18 answers. Stable updates carry several of
them back, so a rule's kernel is the first line whose kernels, kept up to date, have it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, TypeAlias

Rules: TypeAlias = frozenset[str]
"""The names of the rules that hold."""

SINCE: Final = MappingProxyType(
    {
        "mul-signed-bounds": (6, 14),
        "mul-union": (6, 18),
        "add-sub-both-overflow": (6, 17),
        "neg-bounds": (6, 17),
        "byte-swap-bits": (6, 18),
        "fork-on-mask": (6, 12),
        "tnum-single-number": (6, 18),
    }
)
"""Rule -> the first kernel (major, minor) that has it."""


def rules_of(version: tuple[int, int]) -> Rules:
    """The names of the rules that a kernel has."""
    return frozenset(name for name, first in SINCE.items() if first <= version)
