"""Every rewrite is true for all operands in small words, and for some in large ones, and is used on an example."""

import itertools
import random
from collections.abc import Iterator

import pytest

from bpflisp.ir.ssa import (
    Binary,
    Block,
    Branch,
    ByteOrder,
    Compare,
    Const,
    Edge,
    Extend,
    Function,
    Instr,
    Load,
    Param,
    Return,
    Value,
    const,
)
from bpflisp.opt.comparisons import rewrite_test
from bpflisp.opt.rewriting import WORD, Context, Word, evaluate, rewrite, shaped
from bpflisp.opt.rules import (
    COMMUTATIVE,
    CONSTANTS,
    INVERSE,
    RING,
    RULES,
    SIZES,
    SWAPPED,
    TEST_RULES,
    VARIABLES,
    Comparison,
    Compound,
    Constants,
    Form,
    Pattern,
    Rule,
    TestRule,
    Width,
)
from bpflisp.opt.uses import Uses
from bpflisp.spec.alu import byte_order, compare, compute, signed
from bpflisp.spec.isa import Op

SMALL = Word(4, 1, (1, 2, 4))
"""Words of four bits, halves of two, bytes of one: small enough for all operands."""

WIDTHS = [4, 2]


def names(pattern: Pattern) -> set[str]:
    """The variables, numbers and sizes that are bound."""
    if isinstance(pattern, str):
        return {pattern} if pattern in VARIABLES | CONSTANTS | SIZES else set()
    return set() if isinstance(pattern, int) else names(pattern[1]) | names(pattern[2])


def value_of(pattern: Pattern, numbers: Constants, width: int, word: Word = SMALL) -> int:
    """What a pattern gives for these numbers; a comparison that is a part of one gives 1 or 0."""
    if isinstance(pattern, tuple) and pattern[0] in SWAPPED:
        op, left, right = pattern
        assert isinstance(op, Op)
        return int(holds((op, left, right), numbers, width, word))
    if isinstance(pattern, tuple) and isinstance(pattern[0], Op):
        left, right = (value_of(part, numbers, width, word) for part in pattern[1:])
        return compute(pattern[0], width, left, right)
    if isinstance(pattern, tuple):
        form, size, inner = pattern
        assert isinstance(form, Form)
        assert isinstance(size, str)
        inner_width = numbers[size] if form is Form.NARROW else word.bits
        return shaped(form, numbers[size], value_of(inner, numbers, inner_width, word), word)
    found = evaluate(pattern, numbers, width, word)
    assert found is not None
    return found


def holds(test: Comparison, numbers: Constants, width: int, word: Word = SMALL) -> bool:
    """Values of few bits compare at the top of 64, with sign and without; single bits are looked at as they are."""
    op, left, right = test
    mask = (1 << width) - 1
    a, b = value_of(left, numbers, width, word) & mask, value_of(right, numbers, width, word) & mask
    return bool(a & b) if op is Op.SET else compare(op, 64, a << 64 - width, b << 64 - width)


def all_numbers(bound: set[str], width: int, tops: str, word: Word) -> Iterator[Constants]:
    """Every choice of operands, sizes and bounds. Variables are words, numbers are taken modulo the width."""
    fixed = word.constants()
    ranges = {name: range(1 << (word.bits if name in VARIABLES else width)) for name in bound - SIZES}
    ranges |= dict.fromkeys(bound & SIZES, word.sizes)
    for values in itertools.product(*ranges.values()):
        numbers = {**fixed, **dict(zip(ranges, values, strict=True))}
        limits = [range(numbers[name], 1 << word.bits) for name in tops]
        for bounds in itertools.product(*limits):
            yield {**numbers, **{f"top {name}": top for name, top in zip(tops, bounds, strict=True)}}


def drawn_numbers(bound: set[str], width: int, tops: str, seed: str) -> Iterator[Constants]:
    """Some choices at the true width, small and large, with bits that are often alike."""
    r = random.Random(seed)
    for _ in range(400):
        shape = (0, 1, 7, 8, 15, 16, 24, 31, 32, 33, 48, 56, 63, 64)
        pool = [r.getrandbits(r.choice(shape)) ^ r.choice((0, 0, (1 << r.choice(shape)) - 1)) for _ in range(2)]
        numbers = WORD.constants()
        for name in sorted(bound):
            numbers[name] = r.choice(WORD.sizes) if name in SIZES else r.choice((*pool, r.choice(shape)))
            if name in CONSTANTS:
                numbers[name] &= (1 << width) - 1
        yield {**numbers, **{f"top {name}": numbers[name] | r.getrandbits(r.choice(shape)) for name in tops}}


def check(rule: Rule, numbers: Constants, width: int, word: Word) -> bool:
    """Whether the rule may be used for these numbers; it has to be right then."""
    if not rule.when(numbers, width):
        return False
    mask = (1 << width) - 1
    wanted = value_of(rule.pattern, numbers, width, word)
    assert wanted == value_of(rule.result, numbers, width, word) & mask, (numbers, width)
    return True


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_holds_for_all_operands_in_small_words(rule: Rule) -> None:
    bound = names(rule.pattern) | (names(rule.result) & SIZES)
    assert not names(rule.result) - bound
    widths = WIDTHS if isinstance(rule.pattern[0], Op) else WIDTHS[:1]
    assert sum(check(rule, each, w, SMALL) for w in widths for each in all_numbers(bound, w, rule.bounded, SMALL))
    for width in [64, 32][: len(widths)]:
        for each in drawn_numbers(bound, width, rule.bounded, rule.name):
            check(rule, each, width, WORD)


def check_test(rule: TestRule, numbers: Constants, width: int, word: Word) -> bool:
    if not rule.when(numbers, width):
        return False
    after = word.bits // 2 if rule.width is Width.HALF else width
    was = holds(rule.test, numbers, width, word)
    assert was is not (holds(rule.result, numbers, after, word) is rule.inverted), (numbers, width)
    return True


@pytest.mark.parametrize("rule", TEST_RULES, ids=lambda rule: rule.name)
def test_a_rule_for_comparisons_holds_for_all_operands_in_small_words(rule: TestRule) -> None:
    bound = names(rule.test)
    assert not names(rule.result) - bound
    assert sum(check_test(rule, n, w, SMALL) for w in WIDTHS for n in all_numbers(bound, w, rule.bounded, SMALL))
    for width in (64, 32):
        for each in drawn_numbers(bound, width, rule.bounded, rule.name):
            check_test(rule, each, width, WORD)


@pytest.mark.parametrize("op", sorted(RING))
def test_low_bits_come_of_low_bits(op: Op) -> None:
    """So a pattern's inner operation may be wider than what is looked at of it."""
    for a, b in itertools.product(range(16), repeat=2):
        assert compute(op, 4, a, b) & 3 == compute(op, 2, a & 3, b & 3)
    assert (op in COMMUTATIVE) == all(
        compute(op, 4, a, b) == compute(op, 4, b, a) for a in range(16) for b in range(16)
    )


def test_the_tables_of_comparisons_say_what_comparisons_do() -> None:
    for a, b in itertools.product(range(16), repeat=2):
        for op, other in SWAPPED.items():
            assert compare(op, 64, a << 60, b << 60) == compare(other, 64, b << 60, a << 60)
        for op, other in INVERSE.items():
            assert compare(op, 64, a << 60, b << 60) != compare(other, 64, a << 60, b << 60)


# Each is used


def example(pattern: Pattern, width: int, leaves: dict[str, Value], sizes: dict[str, int]) -> Value:
    """Instructions of a pattern's form."""
    if isinstance(pattern, int):
        return const(pattern & ((1 << width) - 1))
    if isinstance(pattern, str):
        return leaves[pattern]
    kind, first, second = pattern
    if isinstance(kind, Op):
        args = [example(part, width, leaves, sizes) for part in (first, second)]
        return Compare(args=args, op=kind, width=width) if kind in SWAPPED else Binary(args=args, op=kind, width=width)
    assert isinstance(first, str)
    bits = {**WORD.constants(), **sizes}[first]
    inner = example(second, 64, leaves, sizes)
    if kind in (Form.ZERO, Form.SIGN):
        return Extend(args=[inner], bits=bits, signed=kind is Form.SIGN)
    return ByteOrder(args=[inner], op=Op.TO_BE if kind is Form.SWAP else Op.TO_LE, bits=bits)


def inner(instr: Value) -> list[Instr]:
    """The instruction after those that it uses."""
    if not isinstance(instr, Instr) or isinstance(instr, Load):
        return []
    return [*(each for arg in instr.args for each in inner(arg)), instr]


NUMBERS = (3, 4, 1, 0, 255, 8, 16, 24, 31, 48, 63, 128, 0x800, 0xFFFF, 0xF000_0000)


def operands() -> Iterator[tuple[Value, Value]]:
    """Values for `x` and `y`: of one byte to eight, and a truth."""
    for size, other in itertools.product((8, 1, 4), repeat=2):
        yield Load(args=[Param("p")], size=size), Load(args=[Param("q")], size=other, off=8)
    loads = [Load(args=[Param("p")], size=8, off=off) for off in (0, 8)]
    yield Compare(args=list(loads), op=Op.LT), loads[0]


def examples(pattern: Compound, width: int) -> Iterator[tuple[Value, Value]]:
    """Uses of the pattern with several numbers, sizes and variables; with each what `x` is."""
    bound = names(pattern)
    for a, b in itertools.product(NUMBERS if "a" in bound else (0,), NUMBERS if "b" in bound else (0,)):
        for n, m in itertools.product(WORD.sizes if "n" in bound else (8,), WORD.sizes if "m" in bound else (8,)):
            for x, y in operands():
                leaves: dict[str, Value] = {"x": x, "y": y, "a": const(a % (1 << width)), "b": const(b % (1 << width))}
                if n < 64 or any(form in str(pattern) for form in ("SWAP", "LITTLE")):
                    yield example(pattern, width, leaves, {"n": n, "m": m}), x


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_fires(rule: Rule, width: int) -> None:
    if not isinstance(rule.pattern[0], Op) or "NARROW" in str(rule.result):
        width = 64
    for instr, _ in examples(rule.pattern, width):
        assert isinstance(instr, Instr)
        body = [*loads_in([instr]), *inner(instr)]
        function = Function("f", blocks=[Block(body=body, end=Return(args=[instr]))])
        context = Context(Uses(function))
        found = rewrite(instr, context)
        if found and found[1] == rule.name:
            return
    pytest.fail(f"{rule.name} was never used")


def first_rule(
    op: Op, args: list[Value], width: int, loads: list[Load], needed: Value | None, value: bool = False
) -> str | None:
    """The rule that a branch on the comparison, or the comparison as a `value`, takes first.

    `needed` becomes part of an address besides.
    """
    ends = [Block(end=Return(args=[const(number)])) for number in (1, 2)]
    if needed is not None:
        ends[0].body.append(Load(args=[needed], size=1))
    body = [*loads, *(each for arg in args for each in inner(arg))]
    test: Compare | Branch = Branch(args=list(args), op=op, width=width, then=Edge(ends[0]), other=Edge(ends[1]))
    if value:
        test = Compare(args=list(args), op=op, width=width)
        block = Block(body=[*body, test], end=Return(args=[test]))
    else:
        assert isinstance(test, Branch)
        block = Block(body=body, end=test)
    return rewrite_test(test, Context(Uses(Function("f", [], [block, *ends]))))


def compared_by(rule: TestRule, width: int) -> Iterator[tuple[list[Value], Value]]:
    """The operands of examples of its comparison, with `x`."""
    for compared, x in examples(rule.test, width):
        assert isinstance(compared, Compare)
        yield compared.args, x


def loads_in(args: list[Value]) -> list[Load]:
    """The loads that they come from."""
    found: dict[Load, None] = {}
    todo = list(args)
    while todo:
        value = todo.pop()
        if isinstance(value, Load):
            found[value] = None
        elif isinstance(value, Instr):
            todo += value.args
    return list(found)


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("rule", TEST_RULES, ids=lambda rule: rule.name)
def test_a_rule_for_comparisons_fires(rule: TestRule, width: int) -> None:
    """And stays away where the verifier would learn less of a value that needs bounds, and where no ways can change."""
    width = 64 if rule.width is Width.HALF else width
    cases = list(compared_by(rule, width))
    op = rule.test[0]
    assert any(first_rule(op, args, width, loads_in(args), None) == rule.name for args, _ in cases)
    needed = any(first_rule(op, args, width, loads_in(args), x) == rule.name for args, x in cases)
    assert not (needed and rule.weaker)
    valued = any(first_rule(op, args, width, loads_in(args), None, value=True) == rule.name for args, _ in cases)
    assert valued is not rule.inverted


LOOKING_THROUGH = [
    pytest.param(rule, side, id=rule.name)
    for rule in TEST_RULES
    for side in (0, 1)
    if isinstance(rule.test[1 + side], tuple) and not rule.shared
]


@pytest.mark.parametrize(("rule", "side"), LOOKING_THROUGH)
def test_what_a_comparison_looks_through_serves_it_alone(rule: TestRule, side: int) -> None:
    for args, _ in list(compared_by(rule, 64))[::7]:
        assert first_rule(rule.test[0], args, 64, loads_in(args), args[side]) != rule.name


def test_evaluating_wraps_at_the_width() -> None:
    assert evaluate(-1, {}, 32) == 0xFFFFFFFF
    assert isinstance(const(-1), Const)
    assert signed(const(-1).number, 64) == -1


def test_a_form_of_a_true_word_is_what_the_instruction_gives() -> None:
    r = random.Random(1)
    for bits in (16, 32, 64):
        number = r.getrandbits(64)
        assert shaped(Form.SWAP, bits, number) == byte_order(Op.TO_BE, bits, number)
        assert shaped(Form.LITTLE, bits, number) == byte_order(Op.TO_LE, bits, number)


def test_a_number_too_long_for_an_instruction_is_left() -> None:
    load = Load(args=[Param("p")], size=8)
    for number, expected in ((0x8000_0000_0000_0000, "EQ-swap"), (0x0102_0304_0506_0708, None)):
        swap = ByteOrder(args=[load], op=Op.TO_BE, bits=64)
        assert first_rule(Op.EQ, [swap, const(number)], 64, [load], None) == expected
