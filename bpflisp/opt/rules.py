"""Rewrites of values and of comparisons, as data.

A pattern is a number, a name, or (operation, left, right), or (form, size, pattern):

- names: `x`, `y` are any values; `a`, `b` any numbers, which are bound;
- operations of arithmetic have the width of the outermost one (64 bits under a form), and take numbers modulo it;
- forms (`Form`) take the low bits of a 64-bit word. Their size is a name: `n`, `m` are any that instructions have,
  bound where the pattern has them, or else chosen so that the rule's condition holds; `byte`, `half` are 8 and 32 bits.

`when` is a condition on the numbers, on the sizes, on the width, and, by the names `top x`, `top y`, on what is known
of the greatest number that a variable can be; `bounded` names these variables. Every rule is proven by a test for all
operands, in words of four bits with halves of two and bytes of one, and fired by another.

What stays code: constants are folded, and go to the right of their operation, by the tables of what operations mean.
Outcomes that bounds decide, and what addresses are not equal to, are answers to questions that no form of a pattern
asks (`comparisons`). What bits nobody asks for is a matter of all uses, not of one instruction (`demand`).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

from bpflisp.lean import dataclass
from bpflisp.spec.isa import Op


class Form(StrEnum):
    """What takes the low bits of a word: `size` of them."""

    ZERO = "zext"  # zero-extended
    SIGN = "sext"  # sign-extended
    SWAP = "swap"  # with their bytes in reversed order, zero-extended
    LITTLE = "le"  # little-endian: as they are, zero-extended
    NARROW = "narrow"  # of an operation: computed at that width, zero-extended


Pattern: TypeAlias = "str | int | tuple[Op, Pattern, Pattern] | tuple[Form, str, Pattern]"
Compound: TypeAlias = "tuple[Op, Pattern, Pattern] | tuple[Form, str, Pattern]"
Comparison: TypeAlias = "tuple[Op, Pattern, Pattern]"
Constants: TypeAlias = dict[str, int]
Condition: TypeAlias = Callable[[Constants, int], bool]

VARIABLES = frozenset("xy")
CONSTANTS = frozenset("ab")
SIZES = frozenset("nm")

SWAPPED = {
    Op.EQ: Op.EQ, Op.NE: Op.NE, Op.SET: Op.SET, Op.GT: Op.LT, Op.LT: Op.GT, Op.GE: Op.LE, Op.LE: Op.GE,
    Op.SGT: Op.SLT, Op.SLT: Op.SGT, Op.SGE: Op.SLE, Op.SLE: Op.SGE,
}  # fmt: skip
"""A comparison -> the one that holds for exchanged operands."""

INVERSE = {
    Op.EQ: Op.NE, Op.NE: Op.EQ, Op.GT: Op.LE, Op.LE: Op.GT, Op.GE: Op.LT, Op.LT: Op.GE,
    Op.SGT: Op.SLE, Op.SLE: Op.SGT, Op.SGE: Op.SLT, Op.SLT: Op.SGE,
}  # fmt: skip
"""A comparison -> the one that holds where it does not. SET has none."""

COMMUTATIVE = frozenset({Op.ADD, Op.MUL, Op.AND, Op.OR, Op.XOR})
RING = frozenset({Op.ADD, Op.SUB, Op.MUL, Op.AND, Op.OR, Op.XOR})
"""Operations whose low bits depend on the operands' low bits alone."""

UNSIGNED = (Op.EQ, Op.NE, Op.GT, Op.GE, Op.LT, Op.LE, Op.SET)
_ORDERS = {Op.SGT: Op.GT, Op.SGE: Op.GE, Op.SLT: Op.LT, Op.SLE: Op.LE}


@dataclass(frozen=True, slots=True)
class Rule:
    """`pattern` may be replaced by `result` where `when` (of the constants and the width in bits) holds.

    What the pattern looks through must serve the outermost operation alone, but for addresses, unless it is `shared`.
    A `weaker` rule tells the verifier less of the result's bounds. `numbers`: not where a variable is an address, with
    which the kernel allows no narrow arithmetic. `short` is a number that has to fit into an instruction.
    """

    name: str
    pattern: Compound
    result: Pattern
    when: Condition = lambda constants, width: True
    bounded: str = ""
    shared: bool = False
    weaker: bool = False
    numbers: bool = False
    short: Pattern | None = None


def _power(constants: Constants, width: int) -> bool:
    return constants["a"].bit_count() == 1


def _sum_below(constants: Constants, width: int) -> bool:
    return constants["a"] < width and constants["b"] < width and constants["a"] + constants["b"] < width


def _sum_above(constants: Constants, width: int) -> bool:
    return constants["a"] < width and constants["b"] < width and constants["a"] + constants["b"] >= width


def _nonzero(constants: Constants, width: int) -> bool:
    return constants["a"] != 0


def _bits(top: int) -> int:
    """All the bits that numbers up to `top` have."""
    return (1 << top.bit_length()) - 1


def _keeps_all(constants: Constants, width: int) -> bool:
    return not _bits(constants["top x"]) & ~constants["a"]


def _second_keeps_all(constants: Constants, width: int) -> bool:
    return not _bits(constants["top x"]) & ~constants["b"]


def _is_size(constants: Constants, width: int) -> bool:
    return constants["n"] < width and constants["a"] == (1 << constants["n"]) - 1


def _has_bits(constants: Constants, width: int) -> bool:
    return constants["top x"] < 1 << constants["n"]


def _has_bits_and_no_sign(constants: Constants, width: int) -> bool:
    return constants["top x"] < 1 << constants["n"] - 1


def _inner_is_shorter(constants: Constants, width: int) -> bool:
    return constants["m"] <= constants["n"]


def _below_half(constants: Constants, width: int) -> bool:
    return constants["a"] < constants["half"]


def _is_truth(constants: Constants, width: int) -> bool:
    return constants["top x"] <= 1


def _leaves_size(constants: Constants, width: int) -> bool:
    fitting = constants["byte"] < constants["m"] < constants["n"] <= width
    return fitting and constants["a"] == constants["n"] - constants["m"]


def _leaves_byte(constants: Constants, width: int) -> bool:
    return constants["byte"] < constants["n"] <= width and constants["a"] == constants["n"] - constants["byte"]


def _whole_and_long_immediate(constants: Constants, width: int) -> bool:
    """An immediate of 32 bits is sign-extended: from half the range on it is none of a 64-bit operation."""
    half = constants["half"]
    return width == 2 * half and constants["top x"] < 1 << half and 1 << half - 1 <= constants["a"] < 1 << half


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
    Rule("and-bounded", (Op.AND, "x", "a"), "x", _keeps_all, bounded="x"),
    Rule(
        "and-inverted",
        (Op.AND, (Op.XOR, "x", "a"), "b"),
        (Op.XOR, "x", (Op.AND, "a", "b")),
        _second_keeps_all,
        bounded="x",
        weaker=True,
        short=(Op.AND, "a", "b"),
    ),
    Rule("and-size", (Op.AND, "x", "a"), (Form.ZERO, "n", "x"), _is_size),
    *(
        Rule(
            f"{op}-long",
            (op, "x", "a"),
            (Form.NARROW, "half", (op, "x", "a")),
            _whole_and_long_immediate,
            "x",
            numbers=True,
        )
        for op in (Op.AND, Op.OR, Op.XOR)
    ),
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
    Rule("rsh-swap", (Op.RSH, (Form.SWAP, "n", "x"), "a"), (Form.SWAP, "m", "x"), _leaves_size),
    Rule("rsh-swap-byte", (Op.RSH, (Form.SWAP, "n", "x"), "a"), (Form.ZERO, "byte", "x"), _leaves_byte),
    Rule("zext-bounded", (Form.ZERO, "n", "x"), "x", _has_bits, bounded="x"),
    *(
        Rule(f"zext-{op}", (Form.ZERO, "half", (op, "x", "y")), (Form.NARROW, "half", (op, "x", "y")), numbers=True)
        for op in (Op.ADD, Op.SUB, Op.MUL, Op.AND, Op.OR, Op.XOR)
    ),
    Rule(
        "zext-lsh",
        (Form.ZERO, "half", (Op.LSH, "x", "a")),
        (Form.NARROW, "half", (Op.LSH, "x", "a")),
        _below_half,
        numbers=True,
    ),
    Rule("sext-bounded", (Form.SIGN, "n", "x"), "x", _has_bits_and_no_sign, bounded="x"),
    Rule("sext-sext", (Form.SIGN, "n", (Form.SIGN, "m", "x")), (Form.SIGN, "m", "x"), _inner_is_shorter, shared=True),
    Rule("le", (Form.LITTLE, "n", "x"), (Form.ZERO, "n", "x")),
    Rule("swap-swap", (Form.SWAP, "n", (Form.SWAP, "n", "x")), (Form.ZERO, "n", "x"), shared=True),
    Rule(
        "swap-and",
        (Form.SWAP, "n", (Op.AND, (Form.SWAP, "n", "x"), "a")),
        (Op.AND, "x", (Form.SWAP, "n", "a")),
        short=(Form.SWAP, "n", "a"),
    ),
    *(
        Rule(
            f"swap-{op}",
            (Form.SWAP, "n", (op, (Form.SWAP, "n", "x"), "a")),
            (op, (Form.ZERO, "n", "x"), (Form.SWAP, "n", "a")),
            short=(Form.SWAP, "n", "a"),
        )
        for op in (Op.OR, Op.XOR)
    ),
    Rule("truth", (Op.NE, "x", 0), "x", _is_truth, bounded="x"),
    Rule("truth-one", (Op.EQ, "x", 1), "x", _is_truth, bounded="x"),
)
"""In the order in which they are tried."""


class Width(StrEnum):
    """At which width a new comparison is made."""

    SAME = "same"
    HALF = "half"  # of 64-bit ones: at 32 bits
    INNER = "inner"  # at that of the comparison whose outcome was compared


@dataclass(frozen=True, slots=True)
class TestRule:
    """A comparison `test` may be replaced by `result` where `when` holds.

    What the test looks through must be of use to comparisons alone, unless it is `shared`: what it computes may get its
    bounds from this very test. A rule that is `weaker` tells the verifier less of the variable's bounds: before 6.8 it
    learns nothing from `x != 0`. `inverted`: the result holds where the test does not, so only a branch, which
    exchanges its ways, can take it. `bounded` and `short` are as in `Rule`.
    """

    name: str
    test: Comparison
    result: Comparison
    when: Condition = lambda constants, width: True
    bounded: str = ""
    width: Width = Width.SAME
    shared: bool = False
    weaker: bool = False
    inverted: bool = False
    short: Pattern | None = None

    __test__ = False  # This is none of pytest's.


def _no_signs(constants: Constants, width: int) -> bool:
    return constants["top x"] < 1 << width - 1 and constants["top y"] < 1 << width - 1


def _whole_and_y_short(constants: Constants, width: int) -> bool:
    return width == 2 * constants["half"] and constants["top y"] < 1 << constants["half"]


def _fits_size(constants: Constants, width: int) -> bool:
    return constants["n"] <= width


def _a_has_bits(constants: Constants, width: int) -> bool:
    return constants["n"] <= width and constants["a"] < 1 << constants["n"]


def _b_has_bits(constants: Constants, width: int) -> bool:
    return constants["n"] <= width and constants["b"] < 1 << constants["n"]


def _halved(name: str) -> Pattern:
    """Half of the swapped number: where that fits into an instruction, a 32-bit comparison can have the number."""
    return (Op.RSH, (Form.SWAP, "n", name), 1)


def _comparisons_of(op: Op) -> tuple[TestRule, ...]:
    """What a comparison's outcome is compared with decides whether it is wanted, or its inverse."""
    inner: Comparison = (op, "x", "y")
    rows: list[tuple[str, Comparison, Comparison]] = [
        ("outcome", (Op.NE, inner, 0), inner),
        ("outcome-one", (Op.EQ, inner, 1), inner),
    ]
    if op in INVERSE:
        inverse = (INVERSE[op], "x", "y")
        rows += [("no-outcome", (Op.EQ, inner, 0), inverse), ("outcome-not-one", (Op.NE, inner, 1), inverse)]
    return tuple(TestRule(f"{name}-{op.name}", test, to, width=Width.INNER, shared=True) for name, test, to in rows)


TEST_RULES = (
    *(rule for op in SWAPPED for rule in _comparisons_of(op)),
    *(TestRule(f"no-sign-{op.name}", (op, "x", "y"), (to, "x", "y"), _no_signs, "xy") for op, to in _ORDERS.items()),
    TestRule("set-zext", (Op.SET, (Form.ZERO, "n", "x"), "a"), (Op.SET, "x", (Form.ZERO, "n", "a")), _fits_size,
             short=(Form.ZERO, "n", "a")),
    *(
        TestRule(f"zext-{op.name}", (op, (Form.ZERO, "half", "x"), "y"), (op, "x", "y"), _whole_and_y_short,
                 "y", Width.HALF)
        for op in UNSIGNED
    ),
    *(
        TestRule(f"{op.name}-zext", (op, "y", (Form.ZERO, "half", "x")), (op, "y", "x"), _whole_and_y_short,
                 "y", Width.HALF)
        for op in UNSIGNED
    ),
    *(
        TestRule(f"long-{op.name}", (op, "x", "a"), (op, "x", "a"), _whole_and_long_immediate, "x", Width.HALF)
        for op in UNSIGNED
    ),
    *(
        TestRule(f"{op.name}-swap", (op, (Form.SWAP, "n", "x"), "a"),
                 (op, (Form.ZERO, "n", "x"), (Form.SWAP, "n", "a")), _a_has_bits, short=_halved("a"))
        for op in (Op.EQ, Op.NE)
    ),
    *(
        TestRule(f"{op.name}-swap-and", (op, (Op.AND, (Form.SWAP, "n", "x"), "a"), "b"),
                 (op, (Op.AND, "x", (Form.SWAP, "n", "a")), (Form.SWAP, "n", "b")), _b_has_bits,
                 short=_halved("b"))
        for op in (Op.EQ, Op.NE)
    ),
    TestRule("set-swap", (Op.SET, (Form.SWAP, "n", "x"), "a"), (Op.SET, (Form.ZERO, "n", "x"), (Form.SWAP, "n", "a")),
             _fits_size, short=_halved("a")),
    TestRule("set-and", (Op.SET, (Op.AND, "x", "a"), "b"), (Op.SET, "x", (Op.AND, "a", "b")), short=(Op.AND, "a", "b")),
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
    TestRule("some-bits", (Op.NE, (Op.AND, "x", "a"), 0), (Op.SET, "x", "a"), short="a"),
    TestRule("no-bits", (Op.EQ, (Op.AND, "x", "a"), 0), (Op.SET, "x", "a"), inverted=True, short="a"),
    TestRule("one-bit", (Op.EQ, (Op.AND, "x", "a"), "a"), (Op.SET, "x", "a"), _power, short="a"),
    TestRule("not-one-bit", (Op.NE, (Op.AND, "x", "a"), "a"), (Op.SET, "x", "a"), _power, inverted=True, short="a"),
)  # fmt: skip
"""In the order in which they are tried."""
