"""Applies the rules of `rules.py`: matching, conditions, and building what a rule gives."""

from __future__ import annotations

from functools import cache

from bpflisp.ir.addresses import points
from bpflisp.ir.ssa import Binary, ByteOrder, Compare, Const, Extend, Instr, Position, Value, const
from bpflisp.lean import dataclass
from bpflisp.opt.facts import greatest
from bpflisp.opt.rules import (
    CONSTANTS,
    RING,
    RULES,
    SIZES,
    TEST_RULES,
    VARIABLES,
    Compound,
    Constants,
    Form,
    Pattern,
    Rule,
    TestRule,
)
from bpflisp.opt.uses import Uses
from bpflisp.spec.alu import M32, compute, signed
from bpflisp.spec.isa import Op

Kind = Op | Form


@dataclass(frozen=True, slots=True)
class Word:
    """How many bits words, halves of them and bytes have, and which sizes forms may have. Tests have smaller ones."""

    bits: int
    byte: int
    sizes: tuple[int, ...]

    def constants(self) -> Constants:
        """The sizes that have names of their own."""
        return {"byte": self.byte, "half": self.bits // 2}


WORD = Word(64, 8, (8, 16, 32, 64))


class Context:
    """What a rewrite may ask (who uses a value) and where it puts new instructions."""

    def __init__(self, uses: Uses, before: list[Instr] | None = None) -> None:
        self.uses = uses
        self.before: list[Instr] = [] if before is None else before

    def greatest(self, value: Value, result: Value) -> int:
        """A bound of `value`, by which `result`, another form of it, may be replaced by it."""
        provable = self.uses.needs_bounds(result)
        return max(greatest(each, provable) for each in self.uses.stands_for(value))


@dataclass(slots=True)
class Found:
    """What a pattern was matched with: values by name, sizes by name, and the width of a comparison inside."""

    values: dict[str, Value]
    sizes: Constants
    inner_width: int = 64


# Rules by what they look at


def kind_of(value: Value) -> Kind | None:
    """What a pattern calls the instruction; None for one that no pattern has."""
    match value:
        case Binary() | Compare():
            return value.op
        case Extend():
            return Form.SIGN if value.signed else Form.ZERO
        case ByteOrder():
            return Form.LITTLE if value.op is Op.TO_LE else Form.SWAP
    return None


def _head(pattern: Pattern) -> Kind | None:
    return pattern[0] if isinstance(pattern, tuple) else None


def _first(pattern: Compound) -> Pattern:
    """The operand that a rule looks at first."""
    return pattern[2] if isinstance(pattern[0], Form) else pattern[1]


@cache
def _rules_for(kind: Kind, below: Kind | None) -> tuple[Rule, ...]:
    """Those for an operation whose first operand is of the kind `below`."""
    return tuple(rule for rule in RULES if rule.pattern[0] is kind and _head(_first(rule.pattern)) in (None, below))


@cache
def test_rules_for(op: Op, below: Kind | None) -> tuple[TestRule, ...]:
    """Those for a comparison whose left operand is of the kind `below`."""
    return tuple(rule for rule in TEST_RULES if rule.test[0] is op and _head(rule.test[1]) in (None, below))


# Values


def rewrite(instr: Instr, context: Context) -> tuple[Value, str] | None:
    """The value that stands for the instruction by the first rule that fits, and the rule's name.

    What has to be computed for it is appended to `context.before`.
    """
    kind = kind_of(instr)
    if kind is None:
        return None
    width = instr.width if isinstance(instr, Binary | Compare) else 64
    for rule in _rules_for(kind, kind_of(instr.args[0])):
        found = Found({}, {})
        if not match(rule.pattern, instr, width, width, found) or not _allowed(rule, instr, found, context):
            continue
        constants = _numbers(found, width, rule.bounded, instr, context)
        for chosen in with_sizes(rule.result, constants, WORD):
            if rule.when(chosen, width) and is_short(rule.short, chosen, width):
                return _finish(rule.result, instr, width, found, chosen, context), rule.name
    return None


def _allowed(rule: Rule, instr: Instr, found: Found, context: Context) -> bool:
    if rule.numbers and any(points(value) for value in found.values.values()):
        return False
    if rule.weaker and context.uses.needs_bounds(instr):
        return False
    return rule.shared or _looks_through(rule.pattern, instr, context.uses)


def _looks_through(pattern: Compound, instr: Instr, uses: Uses) -> bool:
    """Whether the inner operations serve this instruction alone, or compute addresses.

    Otherwise one of them may have been compared, and the kernel would not know the new value's bounds from that.
    """
    parts = pattern[2:] if isinstance(pattern[0], Form) else pattern[1:]
    return all(
        uses.single(arg) or points(arg) for part, arg in zip(parts, instr.args, strict=True) if isinstance(part, tuple)
    )


def _numbers(found: Found, width: int, bounded: str, result: Value, context: Context) -> Constants:
    """The numbers among what a pattern was matched with, modulo the width; sizes; the bounds that are asked for."""
    mask = (1 << width) - 1
    constants = {name: value.number & mask for name, value in found.values.items() if isinstance(value, Const)}
    for name in bounded:
        constants[f"top {name}"] = context.greatest(found.values[name], result)
    return {**WORD.constants(), **found.sizes, **constants}


def bind(
    rule: TestRule, test: Value, args: list[Value], width: int, context: Context
) -> tuple[Found, Constants] | None:
    """What a rule's comparison is matched with, and its numbers; None where it does not fit."""
    found = Found({}, {})
    if not all(match(part, arg, width, width, found) for part, arg in zip(rule.test[1:], args, strict=True)):
        return None
    constants = _numbers(found, width, "", test, context)
    for name in rule.bounded:
        constants[f"top {name}"] = context.greatest(found.values[name], found.values[name])
    return (found, constants) if rule.when(constants, width) and is_short(rule.short, constants, width) else None


# Matching


def match(pattern: Pattern, value: Value, width: int, seen: int, found: Found) -> bool:
    """Whether a value has the form of a pattern; what its names stand for is entered in `found`.

    `seen` low bits of the value are looked at: operations whose low bits depend on low bits alone may be wider.
    """
    if isinstance(pattern, int):
        mask = (1 << width) - 1
        return isinstance(value, Const) and value.number & mask == pattern & mask
    if isinstance(pattern, str):
        if pattern in CONSTANTS and not isinstance(value, Const):
            return False
        return found.values.setdefault(pattern, value) == value
    kind, first, second = pattern
    if kind_of(value) is not kind:
        return False
    if isinstance(value, Extend | ByteOrder):
        assert isinstance(first, str)
        return _has_size(first, value.bits, found) and match(second, value.args[0], 64, value.bits, found)
    assert isinstance(value, Binary | Compare)
    if isinstance(value, Compare):
        found.inner_width = width = value.width
    elif value.width != width and not (value.op in RING and value.width >= seen):
        return False
    left, right = value.args
    return match(first, left, width, width, found) and match(second, right, width, width, found)


def _has_size(name: str, bits: int, found: Found) -> bool:
    if name in SIZES:
        return found.sizes.setdefault(name, bits) == bits
    return WORD.constants()[name] == bits


def with_sizes(result: Pattern, constants: Constants, word: Word) -> list[Constants]:
    """The constants with each choice of a size that the result has and the pattern has not."""
    open_sizes = [name for name in SIZES if name not in constants and _mentions(result, name)]
    choices = [constants]
    for name in open_sizes:
        choices = [{**each, name: size} for each in choices for size in word.sizes]
    return choices


def _mentions(pattern: Pattern, name: str) -> bool:
    return pattern == name or (isinstance(pattern, tuple) and any(_mentions(part, name) for part in pattern[1:]))


def is_short(short: Pattern | None, constants: Constants, width: int) -> bool:
    """Whether a rule's number, if it has one, fits into an instruction."""
    if short is None or width == 32:
        return True
    number = evaluate(short, constants, width)
    assert number is not None
    return -(1 << 31) <= signed(number, 64) < 1 << 31


# Building


def _finish(result: Pattern, instr: Instr, width: int, found: Found, constants: Constants, context: Context) -> Value:
    """A 32-bit operation zero-extends; so where a rule gives one of its operands, that has to be done still."""
    value = build(result, width, found, constants, context, instr.position)
    if width == 64 or isinstance(instr, Compare) or greatest(value, provable=True) <= M32:
        return value
    return _append(Extend(args=[value], bits=32, position=instr.position), context)


def build(
    result: Pattern, width: int, found: Found, constants: Constants, context: Context, position: Position | None
) -> Value:
    """The value that a result stands for; what it takes is appended, simplified in its turn."""
    if isinstance(result, str) and result in VARIABLES:
        return found.values[result]
    number = evaluate(result, constants, width)
    if number is not None:
        return const(number)
    assert isinstance(result, tuple)
    kind, first, second = result
    if isinstance(kind, Op):
        args = [build(part, width, found, constants, context, position) for part in (first, second)]
        return _append(Binary(args=args, op=kind, width=width, position=position), context)
    assert isinstance(first, str)
    bits = constants[first]
    if kind is Form.NARROW:
        return build(second, bits, found, constants, context, position)
    inner = build(second, width, found, constants, context, position)
    if kind is Form.SWAP:
        return _append(ByteOrder(args=[inner], op=Op.TO_BE, bits=bits, position=position), context)
    if bits == 64:
        return inner
    return _append(Extend(args=[inner], bits=bits, signed=kind is Form.SIGN, position=position), context)


def _append(instr: Instr, context: Context) -> Value:
    found = rewrite(instr, context)
    if found is not None:
        return found[0]
    context.before.append(instr)
    return instr


# Numbers


def evaluate(pattern: Pattern, constants: Constants, width: int, word: Word = WORD) -> int | None:
    """The number that a pattern without variables stands for; None where it has some."""
    mask = (1 << width) - 1
    if isinstance(pattern, int):
        return pattern & mask
    if isinstance(pattern, str):
        if pattern.startswith("log "):
            return constants[pattern[4:]].bit_length() - 1
        return constants.get(pattern)
    kind, first, second = pattern
    if isinstance(kind, Op):
        a, b = evaluate(first, constants, width, word), evaluate(second, constants, width, word)
        return None if a is None or b is None else compute(kind, width, a, b)
    assert isinstance(first, str)
    bits = constants[first]
    number = evaluate(second, constants, bits if kind is Form.NARROW else word.bits, word)
    return None if number is None else shaped(kind, bits, number, word)


def shaped(form: Form, bits: int, number: int, word: Word = WORD) -> int:
    """What a form makes of a number: of its low `bits`."""
    number &= (1 << bits) - 1
    if form is Form.SIGN:
        return signed(number, bits) & ((1 << word.bits) - 1)
    if form is not Form.SWAP:
        return number
    bytes = [number >> at & ((1 << word.byte) - 1) for at in range(0, bits, word.byte)]
    return sum(byte << at * word.byte for at, byte in enumerate(reversed(bytes)))
