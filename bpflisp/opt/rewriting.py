"""Applies the rules of `rules.py` to instructions."""

from __future__ import annotations

from bpflisp.ir.addresses import points
from bpflisp.ir.ssa import Binary, Const, Extend, Instr, Value, const
from bpflisp.opt.facts import greatest
from bpflisp.opt.rules import CONSTANTS, RULES, VARIABLES, Constants, Pattern, Rule
from bpflisp.opt.uses import Uses
from bpflisp.spec.alu import M32, compute
from bpflisp.spec.isa import Op

Bindings = dict[str, Value]

_BY_OPERATION: dict[Op, list[Rule]] = {}
for _rule in RULES:
    _BY_OPERATION.setdefault(_rule.pattern[0], []).append(_rule)


def rewrite(instr: Binary, before: list[Instr], uses: Uses) -> tuple[Value, str] | None:
    """The value that stands for the instruction by the first rule that fits, and the rule's name.

    What has to be computed for it is appended to `before`.
    """
    for rule in _BY_OPERATION.get(instr.op, ()):
        bindings: Bindings = {}
        if match(rule.pattern, instr, instr.width, bindings) and _looks_through(rule.pattern, instr, uses):
            constants = constants_of(bindings, instr.width)
            if rule.when(constants, instr.width):
                return _finish(rule.result, instr, bindings, constants, before), rule.name
    return None


def _looks_through(pattern: tuple[Op, Pattern, Pattern], instr: Binary, uses: Uses) -> bool:
    """Whether the inner operations serve this instruction alone, or compute addresses.

    Otherwise one of them may have been compared, and the kernel would not know the new value's bounds from that.
    """
    parts = (
        [(part, arg) for part, arg in zip(pattern[1:], instr.args, strict=True)] if isinstance(pattern, tuple) else []
    )
    return all(uses.single(arg) or points(arg) for part, arg in parts if isinstance(part, tuple))


def constants_of(bindings: Bindings, width: int) -> Constants:
    """The numbers among what a pattern was matched with, modulo the width."""
    mask = (1 << width) - 1
    return {name: value.number & mask for name, value in bindings.items() if isinstance(value, Const)}


def match(pattern: Pattern, value: Value, width: int, bindings: Bindings) -> bool:
    """Whether a value has the form of a pattern; what its names stand for is entered in `bindings`."""
    if isinstance(pattern, int):
        mask = (1 << width) - 1
        return isinstance(value, Const) and value.number & mask == pattern & mask
    if isinstance(pattern, str):
        if pattern in CONSTANTS and not isinstance(value, Const):
            return False
        return bindings.setdefault(pattern, value) == value
    op, left, right = pattern
    return (
        isinstance(value, Binary)
        and value.op is op
        and value.width == width
        and match(left, value.args[0], width, bindings)
        and match(right, value.args[1], width, bindings)
    )


def _finish(result: Pattern, instr: Binary, bindings: Bindings, constants: Constants, before: list[Instr]) -> Value:
    """A 32-bit operation zero-extends; so where a rule gives one of its operands, that has to be done still."""
    value = _build(result, instr, bindings, constants, before)
    if instr.width == 64 or greatest(value, provable=True) <= M32:
        return value
    extended = Extend(args=[value], bits=32, position=instr.position)
    before.append(extended)
    return extended


def _build(result: Pattern, instr: Binary, bindings: Bindings, constants: Constants, before: list[Instr]) -> Value:
    if isinstance(result, str) and result in VARIABLES:
        return bindings[result]
    number = evaluate(result, constants, instr.width)
    if number is not None:
        return const(number)
    assert isinstance(result, tuple)
    op, left, right = result
    args = [_build(part, instr, bindings, constants, before) for part in (left, right)]
    built = Binary(args=args, op=op, width=instr.width, position=instr.position)
    before.append(built)
    return built


def evaluate(pattern: Pattern, constants: Constants, width: int) -> int | None:
    """The number that a pattern without variables stands for; None where it has some."""
    mask = (1 << width) - 1
    if isinstance(pattern, int):
        return pattern & mask
    if isinstance(pattern, str):
        if pattern.startswith("log "):
            return constants[pattern[4:]].bit_length() - 1
        return constants.get(pattern)
    op, left, right = pattern
    a, b = evaluate(left, constants, width), evaluate(right, constants, width)
    return None if a is None or b is None else compute(op, width, a, b)
