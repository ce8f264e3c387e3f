"""Every rewrite is true for all operands at four bits, and is used on an example."""

import itertools

import pytest

from bpflisp.ir.ssa import Binary, Block, Const, Function, Instr, Param, Return, Value, const
from bpflisp.opt.rewriting import evaluate, rewrite
from bpflisp.opt.rules import CONSTANTS, RULES, VARIABLES, Pattern, Rule
from bpflisp.opt.uses import Uses
from bpflisp.spec.alu import compute, signed

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
