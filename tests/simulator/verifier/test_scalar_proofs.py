"""Every operation on scalars keeps every number: of all sets at small widths, and of loosened sets at 64 bits.

The code has its widths built in, so "small" is a window of five neighbours around each place where a width or a sign
ends: all sets of them, each as the least scalar that has it, and every pair of those. At 64 bits the scalars are looser
than their sets, each bound by itself, as deduction leaves them.
"""

from __future__ import annotations

import ast
import inspect
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpflisp.spec.alu import byte_order, compare, compute, signed
from bpflisp.spec.isa import Op
from simulator.verifier.scalar import Domain, Scalar, const, rules_of
from simulator.verifier.scalar.bounds import (
    _deduce_before_6_8,
    as_fields,
    deduce,
    is_consistent,
    sync,
)
from simulator.verifier.scalar.value import Fields, intern_fields
from simulator.verifier.tnum import span
from tests.simulator.verifier.test_scalar import ARITHMETIC, COMPARISONS, KERNELS, M32, M64, hull, numbers_sets

WINDOWS = {
    "zero": [number & M64 for number in range(-2, 3)],
    "sign of 32 bits": list(range((1 << 31) - 2, (1 << 31) + 3)),
    "end of 32 bits": list(range((1 << 32) - 3, (1 << 32) + 2)),
    "sign of 64 bits": list(range((1 << 63) - 2, (1 << 63) + 3)),
}
NEWEST = (6, 18)
EVERYWHERE = [(NEWEST, name) for name in WINDOWS] + [((6, 1), "zero"), ((5, 10), "sign of 32 bits")]

Proof = Callable[[Domain, list[list[int]]], None]


def sets_of(window: list[int]) -> list[list[int]]:
    """The sets of these numbers, one for each scalar that is the least of some: the largest."""
    largest: dict[Scalar, list[int]] = {}
    for size in range(1, len(window) + 1):
        for numbers in itertools.combinations(window, size):
            largest[hull(list(numbers))] = list(numbers)
    return list(largest.values())


@pytest.fixture(params=EVERYWHERE, ids=lambda one: f"{one[0][0]}.{one[0][1]} {one[1]}", scope="module")
def place(request: pytest.FixtureRequest) -> tuple[Domain, list[list[int]]]:
    version, name = request.param
    return Domain(rules_of(version)), sets_of(WINDOWS[name])


def results(op: Op, width: int, window: list[int]) -> dict[tuple[int, int], int]:
    return {(x, y): compute(op, width, x, y) for x in window for y in window}


@pytest.mark.parametrize("op", ARITHMETIC)
@pytest.mark.parametrize("width", [32, 64])
def test_arithmetic_of_all_sets(place: tuple[Domain, list[list[int]]], op: Op, width: int) -> None:
    domain, sets = place
    table = results(op, width, sorted({number for numbers in sets for number in numbers}))
    for xs, ys in itertools.product(sets, sets):
        got = domain.alu(op, width, hull_of(xs), hull_of(ys))
        assert all(number in got for number in {table[x, y] for x in xs for y in ys}), (xs, ys, got)


_HULLS: dict[tuple[int, ...], Scalar] = {}


def hull_of(numbers: list[int]) -> Scalar:
    """`hull`, remembered."""
    key = tuple(numbers)
    if key not in _HULLS:
        _HULLS[key] = hull(numbers)
    return _HULLS[key]


@pytest.mark.parametrize("op", COMPARISONS)
@pytest.mark.parametrize("width", [32, 64])
def test_comparisons_of_all_sets(place: tuple[Domain, list[list[int]]], op: Op, width: int) -> None:
    domain, sets = place
    for xs, ys in itertools.product(sets, sets):
        keeps_pairs(domain, op, width, hull_of(xs), hull_of(ys), list(itertools.product(xs, ys)))


def keeps_pairs(domain: Domain, op: Op, width: int, a: Scalar, b: Scalar, pairs: list[tuple[int, int]]) -> None:
    went = domain.branch_taken(op, width, a, b)
    outcomes = None if went is not None else domain.refine(op, width, a, b)
    for x, y in pairs:
        holds = compare(op, width, x, y)
        if outcomes is None:
            assert went is holds, (op, width, x, y, a, b)
        else:
            first, second = outcomes[:2] if holds else outcomes[2:]
            assert x in first, (op, width, x, y, a, b)
            assert y in second, (op, width, x, y, a, b)


@pytest.mark.parametrize("op", COMPARISONS)
@pytest.mark.parametrize("width", [32, 64])
def test_comparisons_with_itself_of_all_sets(place: tuple[Domain, list[list[int]]], op: Op, width: int) -> None:
    domain, sets = place
    for xs in sets:
        keeps_itself(domain, op, width, hull_of(xs), xs)


def keeps_itself(domain: Domain, op: Op, width: int, a: Scalar, numbers: list[int]) -> None:
    taken, fall = domain.refine_same(op, width, a)
    for x in numbers:
        assert x in (taken if compare(op, width, x, x) else fall), (op, width, x, a)


def test_moves_of_all_sets(place: tuple[Domain, list[list[int]]]) -> None:
    domain, sets = place
    for xs in sets:
        keeps_moved(domain, hull_of(xs), xs)


def keeps_moved(domain: Domain, a: Scalar, numbers: list[int]) -> None:
    """Every operation of one operand."""
    for x in numbers:
        assert x & M32 in domain.mov32(a)
        assert -x & M64 in domain.neg(64, a)
        assert -x & M32 in domain.neg(32, a)
        assert x in domain.set_range(a)
        for size in (1, 2, 4, 8):
            assert x & (1 << size * 8) - 1 in domain.zext_to_size(a, size)
            assert x & (1 << size * 8) - 1 in domain.load_result(size)
            assert signed(x & (1 << size * 8) - 1, size * 8) & M64 in domain.load_result(size, signed=True)
        for bits, width in ((8, 32), (16, 32), (8, 64), (16, 64), (32, 64)):
            assert signed(x, bits) & ((1 << width) - 1) in domain.sext(a, bits, width), (x, a, bits, width)
        for op in (Op.TO_LE, Op.TO_BE, Op.SWAP):
            for bits in (16, 32, 64):
                assert byte_order(op, bits, x) in domain.byte_swap(op, bits, a), (x, a, op, bits)


def test_constants_added_of_all_sets(place: tuple[Domain, list[list[int]]]) -> None:
    domain, sets = place
    for xs, delta in itertools.product(sets, (-(1 << 31), -2, -1, 0, 1, 5, (1 << 31) - 1)):
        keeps_sums(domain, hull_of(xs), xs, delta)


def keeps_sums(domain: Domain, a: Scalar, numbers: list[int], delta: int) -> None:
    for x in numbers:
        assert x + delta & M64 in domain.add_const(a, delta)
        assert x + delta & M64 in domain.unsettled_sum(a, delta)


def test_forks_of_all_sets(place: tuple[Domain, list[list[int]]]) -> None:
    domain, sets = place
    for xs, ys in itertools.product(sets, sets):
        keeps_forked(domain, hull_of(xs), xs, hull_of(ys))


def keeps_forked(domain: Domain, a: Scalar, numbers: list[int], b: Scalar) -> None:
    for op in (Op.AND, Op.OR):
        if forked := domain.fork(op, a, b):
            assert all(any(x in part for part in forked) for x in numbers), (a, b)


# ---- deduction -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [deduce, _deduce_before_6_8])
def test_deduction_in_one_width_of_all_bounds(rule: Callable[..., tuple[int, int, int, int]]) -> None:
    """All bounds of numbers of three bits that have a member; the rules take the sign bit as an argument."""
    for umin, umax in itertools.combinations_with_replacement(range(8), 2):
        for smin, smax in itertools.combinations_with_replacement(range(-4, 4), 2):
            members = [x for x in range(umin, umax + 1) if smin <= signed(x, 3) <= smax]
            if not members:
                continue
            low, high, least, greatest = rule((smin, smax, umin, umax), 4)
            for x in members:
                assert low <= signed(x, 3) <= high, (smin, smax, umin, umax)
                assert least <= x <= greatest, (smin, smax, umin, umax)


@pytest.mark.parametrize("version", KERNELS)
@pytest.mark.parametrize("window", WINDOWS)
def test_deduction_across_widths_of_all_bounds(version: tuple[int, int], window: str) -> None:
    """All bounds whose ends are in the window, with nothing known of the low half, or all that its numbers show."""
    rules, numbers = rules_of(version), WINDOWS[window][:4]
    lows = [number & M32 for number in numbers]
    signs = sorted(signed(number, 64) for number in numbers)
    low_signs = [signed(low, 32) for low in lows]
    loose = (-(1 << 31), (1 << 31) - 1, 0, M32)
    tight = (min(low_signs), max(low_signs), min(lows), max(lows))
    ordered = sorted(numbers)
    for umin, umax in itertools.combinations_with_replacement(ordered, 2):
        for smin, smax in itertools.combinations_with_replacement(signs, 2):
            members = [x for x in numbers if umin <= x <= umax and smin <= signed(x, 64) <= smax]
            for low, (value, mask) in itertools.product((loose, tight), ((0, M64), span(umin, umax))):
                synced = sync((value, mask, smin, smax, umin, umax, *low), rules)
                assert all(x in synced for x in members), (umin, umax, smin, smax, low, synced)


# ---- at 64 bits ------------------------------------------------------------------------------------------------------


@st.composite
def loosened(draw: st.DrawFn) -> tuple[Fields, list[int]]:
    """Fields that have all of some numbers, each bound and the bits looser than need be by themselves."""
    numbers = draw(numbers_sets)
    value, mask, *ends = hull(numbers).fields
    mask |= draw(st.sampled_from((0, 0, M32, M64 ^ M32, M64)) | st.integers(0, M64))
    limits = (-(1 << 63), (1 << 63) - 1, 0, M64, -(1 << 31), (1 << 31) - 1, 0, M32)
    loose = []
    for position, (end, limit) in enumerate(zip(ends, limits, strict=True)):
        step = draw(st.sampled_from((0, 0, 1, 7, 1 << 16, 1 << 31, 1 << 32, 1 << 64)))
        loose.append(min(end + step, limit) if position % 2 else max(end - step, limit))
    return as_fields([value & ~mask, mask, *loose]), numbers


versions = st.sampled_from(KERNELS)


@given(versions, loosened())
@settings(max_examples=100)
def test_deduction_at_64_bits(version: tuple[int, int], one: tuple[Fields, list[int]]) -> None:
    fields, numbers = one
    synced = sync(fields, rules_of(version))
    assert all(x in synced for x in numbers), (fields, synced)
    assert is_consistent(synced.fields)
    assert all(x in Domain(rules_of(version)).set_range(intern_fields(fields)) for x in numbers)


@given(versions, st.sampled_from(ARITHMETIC), st.sampled_from([32, 64]), loosened(), loosened())
@settings(max_examples=100)
def test_arithmetic_of_loose_bounds_at_64_bits(
    version: tuple[int, int], op: Op, width: int, first: tuple[Fields, list[int]], second: tuple[Fields, list[int]]
) -> None:
    got = Domain(rules_of(version)).alu(op, width, intern_fields(first[0]), intern_fields(second[0]))
    assert all(compute(op, width, x, y) in got for x in first[1] for y in second[1]), got


@given(versions, st.sampled_from(COMPARISONS), st.sampled_from([32, 64]), loosened(), loosened())
@settings(max_examples=100)
def test_comparisons_of_loose_bounds_at_64_bits(
    version: tuple[int, int], op: Op, width: int, first: tuple[Fields, list[int]], second: tuple[Fields, list[int]]
) -> None:
    domain, pairs = Domain(rules_of(version)), list(itertools.product(first[1], second[1]))
    keeps_pairs(domain, op, width, intern_fields(first[0]), intern_fields(second[0]), pairs)
    keeps_itself(domain, op, width, intern_fields(first[0]), first[1])


@given(versions, loosened(), loosened(), st.integers(-(1 << 31), (1 << 31) - 1))
@settings(max_examples=60)
def test_moves_of_loose_bounds_at_64_bits(
    version: tuple[int, int], first: tuple[Fields, list[int]], second: tuple[Fields, list[int]], delta: int
) -> None:
    domain, a = Domain(rules_of(version)), intern_fields(first[0])
    keeps_moved(domain, a, first[1])
    keeps_sums(domain, a, first[1], delta)
    keeps_forked(domain, a, first[1], const(second[1][0]))


# ---- none is left out ------------------------------------------------------------------------------------------------


def test_every_operation_has_both_proofs() -> None:
    """Each public operation of `Domain` is called in a test of all sets and in one at 64 bits, or by what they call."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(keeps_pairs)))  # type: ignore[arg-type]
    calls = {
        node.name: {
            inner.attr if isinstance(inner, ast.Attribute) else inner.id
            for inner in ast.walk(node)
            if isinstance(inner, ast.Attribute | ast.Name)
        }
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }
    for end in ("_of_all_sets", "_64_bits"):
        reached = {name for test, names in calls.items() if test.endswith(end) for name in names}
        reached |= {name for helper in reached & calls.keys() for name in calls[helper]}
        public = {name for name, _ in inspect.getmembers(Domain, inspect.isfunction) if not name.startswith("_")}
        operations = {name for name in public if not name.endswith("_memo")}
        assert not operations - reached, (end, operations - reached)
