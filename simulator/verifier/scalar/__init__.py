"""The verifier's scalar domain: what is known of a number in a register, and what each instruction does to that.

Held equal to kernel 6.18's answers to the last bit, because pruning and the count of instructions depend on it.
"""

from simulator.verifier.scalar.bounds import checked, is_consistent, sync
from simulator.verifier.scalar.branch import FLIPPED
from simulator.verifier.scalar.domain import Domain, Memo
from simulator.verifier.scalar.rules import SINCE, rules_of
from simulator.verifier.scalar.text import bounds_text, const_text, describe
from simulator.verifier.scalar.value import (
    UNKNOWN,
    Fields,
    Scalar,
    const,
    drop_unused,
    intern_fields,
    interned_count,
    within,
)

__all__ = [
    "FLIPPED",
    "SINCE",
    "UNKNOWN",
    "Domain",
    "Fields",
    "Memo",
    "Scalar",
    "bounds_text",
    "checked",
    "const",
    "const_text",
    "describe",
    "drop_unused",
    "intern_fields",
    "interned_count",
    "is_consistent",
    "rules_of",
    "sync",
    "within",
]
