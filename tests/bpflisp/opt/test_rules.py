"""Every rewrite is true for all operands at four bits, and is used on an example."""

import itertools

import pytest

from bpflisp.ir.ssa import Binary, Block, Branch, Const, Edge, Function, Instr, Load, Param, Return, Value, const
from bpflisp.opt.comparisons import simplify_branch
from bpflisp.opt.rewriting import evaluate, rewrite
from bpflisp.opt.rules import CONSTANTS, RULES, TEST_RULES, VARIABLES, Pattern, Rule, TestRule
from bpflisp.opt.uses import Uses
from bpflisp.spec.alu import compare, compute, signed
from bpflisp.spec.isa import Op

BITS = 4


def names(pattern: Pattern) -> set[str]:
    if isinstance(pattern, str):
        return {pattern}
    return set() if isinstance(pattern, int) else names(pattern[1]) | names(pattern[2])


def value_of(pattern: Pattern, numbers: dict[str, int]) -> int:
    if isinstance(pattern, tuple):
        op, left, right = pattern
        return compute(op, BITS, value_of(left, numbers), value_of(right, numbers))
    if isinstance(pattern, str) and pattern in numbers:
        return numbers[pattern]
    found = evaluate(pattern, numbers, BITS)
    assert found is not None
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_holds_for_all_operands_at_four_bits(rule: Rule) -> None:
    bound = sorted(names(rule.pattern))
    assert set(bound) <= VARIABLES | CONSTANTS
    tried = 0
    for numbers in itertools.product(range(1 << BITS), repeat=len(bound)):
        values = dict(zip(bound, numbers, strict=True))
        if rule.when({name: values[name] for name in bound if name in CONSTANTS}, BITS):
            tried += 1
            assert value_of(rule.pattern, values) == value_of(rule.result, values), values
    assert tried


def example(pattern: Pattern, width: int, leaves: dict[str, Value]) -> Value:
    if isinstance(pattern, tuple):
        op, left, right = pattern
        return Binary(args=[example(left, width, leaves), example(right, width, leaves)], op=op, width=width)
    if isinstance(pattern, int):
        return const(pattern & ((1 << width) - 1))
    return leaves[pattern]


def inner(instr: Value) -> list[Instr]:
    """The instruction after those that it uses."""
    return [*(each for arg in instr.args for each in inner(arg)), instr] if isinstance(instr, Instr) else []


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_fires(rule: Rule, width: int) -> None:
    for a, b in itertools.product((3, 4, 40 % width, width - 1), repeat=2):
        leaves: dict[str, Value] = {"x": Param("x"), "y": Param("y"), "a": const(a), "b": const(b)}
        instr = example(rule.pattern, width, leaves)
        assert isinstance(instr, Binary)
        function = Function("f", blocks=[Block(body=list(inner(instr)), end=Return(args=[instr]))])
        found = rewrite(instr, [], Uses(function))
        if found and found[1] == rule.name:
            return
    pytest.fail(f"{rule.name} was never used")


def test_evaluating_wraps_at_the_width() -> None:
    assert evaluate(-1, {}, 32) == 0xFFFFFFFF
    assert isinstance(const(-1), Const)
    assert signed(const(-1).number, 64) == -1


def holds(test: tuple[Op, Pattern, Pattern], numbers: dict[str, int]) -> bool:
    """At four bits: values compare at the top of 64, with sign and without; single bits are looked at as they are."""
    op, left, right = test
    a, b = value_of(left, numbers), value_of(right, numbers)
    return bool(a & b) if op is Op.SET else compare(op, 64, a << 60, b << 60)


@pytest.mark.parametrize("rule", TEST_RULES, ids=lambda rule: rule.name)
def test_a_rule_for_comparisons_holds_for_all_operands_at_four_bits(rule: TestRule) -> None:
    bound = sorted(set().union(*(names(part) for part in rule.test[1:])))
    for values in itertools.product(range(1 << BITS), repeat=len(bound)):
        numbers = dict(zip(bound, values, strict=True))
        if rule.when({name: numbers[name] for name in bound if name in CONSTANTS}, BITS):
            assert holds(rule.test, numbers) == holds(rule.result, numbers), numbers


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("rule", TEST_RULES, ids=lambda rule: rule.name)
def test_a_rule_for_comparisons_fires(rule: TestRule, width: int) -> None:
    """And stays away where the verifier would learn less of a value that needs bounds."""
    for needed in (False, True):
        leaves: dict[str, Value] = {"x": Param("x"), "y": Param("y"), "a": const(3), "b": const(9)}
        op, left, right = rule.test
        args = [example(left, width, leaves), example(right, width, leaves)]
        ends = [Block(end=Return(args=[const(number)])) for number in (1, 2)]
        branch = Branch(args=args, op=op, width=width, then=Edge(ends[0]), other=Edge(ends[1]))
        entry = Block(body=inner(args[0]), end=branch)
        if needed:
            ends[0].body.append(Load(args=[leaves["x"]], size=1))
        simplify_branch(branch, Uses(Function("f", [], [entry, *ends])), [])
        assert (branch.op is rule.result[0] and branch.args[0] is leaves["x"]) == (not needed or not rule.weaker)
