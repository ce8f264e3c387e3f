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
        # Tnums are multiplied by the sum of what unknown bits may add; before, by parts.
        "mul-of-masks": (5, 14),
        # The low bits are learned from the 64-bit range, too (mainline 6.3, and in 6.1's updates).
        "low-bits-from-whole-range": (6, 1),
        # The ranges of both widths and signs tighten each other, over and over; before, those of one width, once. A
        # comparison narrows both operands, known or not, and contradicting bounds are forgotten.
        "ranges-across-widths": (6, 8),
        # Multiplication, or and xor of unknown numbers are computed; before, they left nothing known.
        "unknown-operands": (6, 10),
        # A mask of -1 or 0 is explored as two numbers.
        "fork-on-mask": (6, 19),
        # The products of the signed ends bound a product.
        "mul-signed-bounds": (6, 14),
        # A sum or difference of which both ends wrap keeps its range.
        "add-sub-both-overflow": (6, 17),
        "neg-bounds": (6, 17),
        # Tnums are multiplied with unions of partial sums.
        "mul-union": (6, 18),
        # A change of byte order keeps the known bits.
        "byte-swap-bits": (6, 19),
        # Where the tnum and the range have one number in common, it is that number.
        "tnum-single-number": (6, 19),
    }
)
"""Rule -> the first kernel (major, minor) that has it."""


CARRIED_BACK: Final = MappingProxyType(
    {
        "fork-on-mask": ((6, 12, 117), (6, 18, 44)),
        "byte-swap-bits": ((6, 18, 44),),
        "tnum-single-number": ((6, 18, 44),),
    }
)
"""Rule -> the stable releases that got it by a fix, each in its line."""


def rules_of(version: tuple[int, ...]) -> Rules:
    """The names of the rules that a kernel has; of a line, (6, 12), those of its last release that was measured."""
    line, patch = version[:2], version[2] if len(version) > 2 else 1 << 16
    fixed = {name for name, points in CARRIED_BACK.items() if any(line == at[:2] and patch >= at[2] for at in points)}
    return frozenset(name for name, first in SINCE.items() if first <= line or name in fixed)
