"""Rewrites of arithmetic and of comparisons, as data.

A pattern is a tuple (operation, left, right) whose parts are patterns, numbers, variables (`x`, `y`: any value) and
constants (`a`, `b`: any number, bound). Numbers are modulo the width. One pattern serves both widths: all of its
operations have the width of the outermost. `when` is a condition on the constants and the width. Every rule is
proven for all operands at four bits by a test, and fired by another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from bpflisp.lean import dataclass
from bpflisp.spec.isa import Op

Pattern: TypeAlias = "str | int | tuple[Op, Pattern, Pattern]"
Constants: TypeAlias = dict[str, int]

VARIABLES = frozenset("xy")
CONSTANTS = frozenset("ab")


@dataclass(frozen=True, slots=True)
class Rule:
    """`pattern` may be replaced by `result` where `when` (of the constants and the width in bits) holds."""

    name: str
    pattern: tuple[Op, Pattern, Pattern]
    result: Pattern
    when: Callable[[Constants, int], bool] = lambda constants, width: True


def _power(constants: Constants, width: int) -> bool:
    return constants["a"].bit_count() == 1


def _sum_below(constants: Constants, width: int) -> bool:
    return constants["a"] < width and constants["b"] < width and constants["a"] + constants["b"] < width


def _sum_above(constants: Constants, width: int) -> bool:
    return constants["a"] < width and constants["b"] < width and constants["a"] + constants["b"] >= width


def _nonzero(constants: Constants, width: int) -> bool:
    return constants["a"] != 0


RULES = (
    Rule("add-zero", (Op.ADD, "x", 0), "x"),
    Rule("sub-zero", (Op.SUB, "x", 0), "x"),
    Rule("sub-self", (Op.SUB, "x", "x"), 0),
    Rule("sub-constant", (Op.SUB, "x", "a"), (Op.ADD, "x", (Op.SUB, 0, "a")), _nonzero),
    Rule("add-add", (Op.ADD, (Op.ADD, "x", "a"), "b"), (Op.ADD, "x", (Op.ADD, "a", "b"))),
    Rule("negate-twice", (Op.SUB, 0, (Op.SUB, 0, "x")), "x"),
    Rule("mul-zero", (Op.MUL, "x", 0), 0),
    Rule("mul-one", (Op.MUL, "x", 1), "x"),
    Rule("mul-mul", (Op.MUL, (Op.MUL, "x", "a"), "b"), (Op.MUL, "x", (Op.MUL, "a", "b"))),
    Rule("mul-power", (Op.MUL, "x", "a"), (Op.LSH, "x", "log a"), _power),
    Rule("div-one", (Op.DIV, "x", 1), "x"),
    Rule("div-power", (Op.DIV, "x", "a"), (Op.RSH, "x", "log a"), _power),
    Rule("mod-power", (Op.MOD, "x", "a"), (Op.AND, "x", (Op.SUB, "a", 1)), _power),
    Rule("and-zero", (Op.AND, "x", 0), 0),
    Rule("and-all", (Op.AND, "x", -1), "x"),
    Rule("and-self", (Op.AND, "x", "x"), "x"),
    Rule("and-and", (Op.AND, (Op.AND, "x", "a"), "b"), (Op.AND, "x", (Op.AND, "a", "b"))),
    Rule("or-zero", (Op.OR, "x", 0), "x"),
    Rule("or-all", (Op.OR, "x", -1), -1),
    Rule("or-self", (Op.OR, "x", "x"), "x"),
    Rule("or-or", (Op.OR, (Op.OR, "x", "a"), "b"), (Op.OR, "x", (Op.OR, "a", "b"))),
    Rule("xor-zero", (Op.XOR, "x", 0), "x"),
    Rule("xor-self", (Op.XOR, "x", "x"), 0),
    Rule("xor-xor", (Op.XOR, (Op.XOR, "x", "a"), "b"), (Op.XOR, "x", (Op.XOR, "a", "b"))),
    Rule("lsh-zero", (Op.LSH, "x", 0), "x"),
    Rule("rsh-zero", (Op.RSH, "x", 0), "x"),
    Rule("arsh-zero", (Op.ARSH, "x", 0), "x"),
    Rule("lsh-lsh", (Op.LSH, (Op.LSH, "x", "a"), "b"), (Op.LSH, "x", (Op.ADD, "a", "b")), _sum_below),
    Rule("rsh-rsh", (Op.RSH, (Op.RSH, "x", "a"), "b"), (Op.RSH, "x", (Op.ADD, "a", "b")), _sum_below),
    Rule("lsh-out", (Op.LSH, (Op.LSH, "x", "a"), "b"), 0, _sum_above),
    Rule("rsh-out", (Op.RSH, (Op.RSH, "x", "a"), "b"), 0, _sum_above),
    Rule("rsh-lsh", (Op.RSH, (Op.LSH, "x", "a"), "a"), (Op.AND, "x", (Op.RSH, -1, "a"))),
)
"""In the order in which they are tried."""


@dataclass(frozen=True, slots=True)
class TestRule:
    """A comparison `test` may be replaced by `result` where `when` holds: both are (operation, left, right).

    What is compared afterwards are variables and numbers. A rule that is `weaker` tells the verifier less of the
    variable's bounds: before 6.8 it learns nothing from `x != 0`.
    """

    name: str
    test: tuple[Op, Pattern, Pattern]
    result: tuple[Op, Pattern, Pattern]
    when: Callable[[Constants, int], bool] = lambda constants, width: True
    weaker: bool = False

    __test__ = False  # This is none of pytest's.


TEST_RULES = (
    TestRule("eq-add", (Op.EQ, (Op.ADD, "x", "a"), "b"), (Op.EQ, "x", (Op.SUB, "b", "a"))),
    TestRule("ne-add", (Op.NE, (Op.ADD, "x", "a"), "b"), (Op.NE, "x", (Op.SUB, "b", "a"))),
    TestRule("eq-xor", (Op.EQ, (Op.XOR, "x", "a"), "b"), (Op.EQ, "x", (Op.XOR, "b", "a"))),
    TestRule("ne-xor", (Op.NE, (Op.XOR, "x", "a"), "b"), (Op.NE, "x", (Op.XOR, "b", "a"))),
    TestRule("eq-difference", (Op.EQ, (Op.SUB, "x", "y"), 0), (Op.EQ, "x", "y")),
    TestRule("ne-difference", (Op.NE, (Op.SUB, "x", "y"), 0), (Op.NE, "x", "y")),
    TestRule("eq-bits", (Op.EQ, (Op.XOR, "x", "y"), 0), (Op.EQ, "x", "y")),
    TestRule("ne-bits", (Op.NE, (Op.XOR, "x", "y"), 0), (Op.NE, "x", "y")),
    TestRule("above-zero", (Op.GT, "x", 0), (Op.NE, "x", 0), weaker=True),
    TestRule("from-one", (Op.GE, "x", 1), (Op.NE, "x", 0), weaker=True),
    TestRule("below-one", (Op.LT, "x", 1), (Op.EQ, "x", 0), weaker=True),
    TestRule("up-to-zero", (Op.LE, "x", 0), (Op.EQ, "x", 0), weaker=True),
    TestRule("all-bits", (Op.SET, "x", -1), (Op.NE, "x", 0)),
)
"""In the order in which they are tried."""
