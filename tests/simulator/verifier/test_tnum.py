"""Tnums: sound on every pair at four bits, sound on members at 64, and exact where the kernel's rule is exact."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpflisp.spec.alu import compute, signed
from bpflisp.spec.isa import Op
from simulator.verifier import tnum
from simulator.verifier.tnum import M64, Tnum

BITS, FULL = 4, 15


def all_tnums(bits: int = BITS) -> list[Tnum]:
    return [(value, mask) for mask in range(1 << bits) for value in range(1 << bits) if not value & mask]


def members(a: Tnum, bits: int = BITS) -> list[int]:
    return [number for number in range(1 << bits) if tnum.contains(a, number)]


def least_tnum(numbers: list[int]) -> Tnum:
    """The least tnum that has all of these."""
    differ = 0
    for number in numbers:
        differ |= number ^ numbers[0]
    return numbers[0] & ~differ, differ


ALL = all_tnums()

BINARY: dict[Op, Callable[[Tnum, Tnum], Tnum]] = {
    Op.ADD: lambda a, b: tnum.add(a, b, FULL),
    Op.SUB: lambda a, b: tnum.sub(a, b, FULL),
    Op.MUL: lambda a, b: tnum.mul(a, b, FULL),
    Op.AND: tnum.and_,
    Op.OR: tnum.or_,
    Op.XOR: tnum.xor,
}


@pytest.mark.parametrize("op", BINARY)
def test_binary_operations_keep_every_result(op: Op) -> None:
    for a in ALL:
        for b in ALL:
            got = BINARY[op](a, b)
            results = [compute(op, BITS, x, y) for x in members(a) for y in members(b)]
            assert not got[0] & got[1]
            assert all(tnum.contains(got, result) for result in results), (a, b, got)
            if op is not Op.MUL:
                assert got == least_tnum(results), (a, b, got)


@pytest.mark.parametrize("old", [tnum.mul_of_masks, tnum.mul_by_parts])
def test_old_multiplication_keeps_every_product(old: Callable[[Tnum, Tnum, int], Tnum]) -> None:
    for a in ALL:
        for b in ALL:
            got = old(a, b, FULL)
            assert not got[0] & got[1]
            assert all(tnum.contains(got, compute(Op.MUL, BITS, x, y)) for x in members(a) for y in members(b))


def test_shifts_are_exact() -> None:
    for a in ALL:
        for count in range(BITS):
            for op, got in (
                (Op.LSH, tnum.shift_left(a, count, FULL)),
                (Op.RSH, tnum.shift_right(a, count)),
                (Op.ARSH, tnum.shift_right_signed(a, count, FULL)),
            ):
                assert got == least_tnum([compute(op, BITS, x, count) for x in members(a)]), (op, a, count)


def test_negation_is_exact() -> None:
    for a in ALL:
        assert tnum.neg(a, FULL) == least_tnum([-x & FULL for x in members(a)])


def test_sets() -> None:
    for a in ALL:
        for b in ALL:
            first, second = set(members(a)), set(members(b))
            assert tnum.within(a, b) == (first <= second)
            assert tnum.overlap(a, b) == bool(first & second)
            assert tnum.union(a, b) == least_tnum(sorted(first | second))
            if first & second:
                assert set(members(tnum.intersect(a, b))) == first & second


def test_span_is_the_least_with_both_ends() -> None:
    for low in range(1 << BITS):
        for high in range(low, 1 << BITS):
            assert tnum.span(low, high) == least_tnum(list(range(low, high + 1)))


def test_step_counts_through_the_members() -> None:
    for a in ALL:
        numbers = members(a)
        for number in range(1 << BITS):
            assert tnum.step(a, number) == next((x for x in numbers if x > number), numbers[-1]), (a, number)


def test_span_of_everything() -> None:
    assert tnum.span(0, M64) == tnum.UNKNOWN


def test_text() -> None:
    assert tnum.text((0, 255)) == "(0x0; 0xff)"


def test_parts() -> None:
    whole = (0x1122334400000000, 0xFF)
    assert tnum.subreg(whole) == (0, 0xFF)
    assert tnum.with_subreg(whole, (5, 0)) == (0x1122334400000005, 0)
    assert tnum.cast((0x12345, 0), 2) == (0x2345, 0)
    assert tnum.is_aligned((8, 0xF0), 8)
    assert not tnum.is_aligned((8, 0xF4), 8)
    assert tnum.is_aligned((1, 0), 0)


@st.composite
def tnum_and_member(draw: st.DrawFn) -> tuple[Tnum, int]:
    mask, number = draw(st.integers(0, M64)), draw(st.integers(0, M64))
    return (number & ~mask, mask), number


@given(tnum_and_member(), tnum_and_member())
def test_binary_operations_at_64_bits(first: tuple[Tnum, int], second: tuple[Tnum, int]) -> None:
    (a, x), (b, y) = first, second
    for op, got in (
        (Op.ADD, tnum.add(a, b)),
        (Op.SUB, tnum.sub(a, b)),
        (Op.MUL, tnum.mul(a, b)),
        (Op.MUL, tnum.mul_of_masks(a, b)),
        (Op.MUL, tnum.mul_by_parts(a, b)),
        (Op.AND, tnum.and_(a, b)),
        (Op.OR, tnum.or_(a, b)),
        (Op.XOR, tnum.xor(a, b)),
    ):
        assert tnum.contains(got, compute(op, 64, x, y))
        assert not got[0] & got[1]


@given(tnum_and_member(), st.integers(0, 63))
def test_shifts_at_64_bits(first: tuple[Tnum, int], count: int) -> None:
    a, x = first
    assert tnum.contains(tnum.shift_left(a, count), x << count & M64)
    assert tnum.contains(tnum.shift_right(a, count), x >> count)
    assert tnum.contains(tnum.shift_right_signed(a, count), (signed(x, 64) >> count) & M64)


@given(tnum_and_member(), tnum_and_member())
def test_sets_at_64_bits(first: tuple[Tnum, int], second: tuple[Tnum, int]) -> None:
    (a, x), (b, y) = first, second
    both = tnum.union(a, b)
    assert tnum.contains(both, x)
    assert tnum.contains(both, y)
    assert tnum.within(a, both)
    assert tnum.within(b, both)
    around_x = (x & ~b[1], b[1])
    assert tnum.overlap(a, around_x)
    assert tnum.contains(tnum.intersect(a, around_x), x)
    if tnum.within(a, b):
        assert tnum.contains(b, x)
    if not tnum.overlap(a, b):
        assert x != y


@given(tnum_and_member())
def test_negation_and_parts_at_64_bits(first: tuple[Tnum, int]) -> None:
    a, x = first
    assert tnum.contains(tnum.neg(a), -x & M64)
    assert tnum.contains(tnum.const(x), x)
    assert tnum.is_const(a) == (a[1] == 0)
    assert tnum.contains(tnum.subreg(a), x & 0xFFFFFFFF)
    for size in (1, 2, 4, 8):
        assert tnum.contains(tnum.cast(a, size), x & (1 << size * 8) - 1)
        assert not (tnum.is_aligned(a, size) and x % size)


@given(tnum_and_member(), tnum_and_member())
def test_low_halves_at_64_bits(first: tuple[Tnum, int], second: tuple[Tnum, int]) -> None:
    (a, x), (b, y) = first, second
    assert tnum.contains(tnum.with_subreg(a, b), x >> 32 << 32 | y & 0xFFFFFFFF)


@given(st.integers(0, M64), st.integers(0, M64), st.integers(0, M64))
def test_spans_at_64_bits(first: int, second: int, third: int) -> None:
    low, between, high = sorted((first, second, third))
    found = tnum.span(low, high)
    assert all(tnum.contains(found, number) for number in (low, between, high))
    assert found == tnum.union(tnum.span(low, between), tnum.span(between, high))


@given(tnum_and_member(), st.integers(0, M64))
def test_steps_at_64_bits(first: tuple[Tnum, int], number: int) -> None:
    """The next member is a member, and none that is known lies between."""
    a, x = first
    after = tnum.step(a, number)
    assert tnum.contains(a, after)
    assert after > number or after == a[0] | a[1]
    assert not number < x < after


def test_small_parts_are_exact() -> None:
    """Alignment, constants and casts of every tnum of four bits, read as the low bits of a number."""
    for a in ALL:
        numbers = members(a)
        assert tnum.is_const(a) == (len(numbers) == 1)
        assert tnum.subreg(a) == tnum.cast(a, 1) == tnum.with_subreg((0, 0), a) == a
        for size in (1, 2, 4, 8):
            assert tnum.is_aligned(a, size) == all(number % size == 0 for number in numbers)
    for number in range(1 << BITS):
        assert members(tnum.const(number)) == [number]


def test_every_operation_has_both_proofs() -> None:
    """Each function of the module is called in a test of all small tnums and in one at 64 bits."""
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    small, wide = set(), set()
    for node in tree.body:
        names = {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}
        if isinstance(node, ast.FunctionDef) and node.name.endswith("_64_bits"):
            wide |= names
        elif not (isinstance(node, ast.FunctionDef) and node.name in ("test_text", "test_parts")):
            small |= names
    functions = {name for name, _ in inspect.getmembers(tnum, inspect.isfunction) if not name.startswith("_")}
    assert not functions - {"text"} - small
    assert not functions - {"text"} - wide


def pairs() -> Iterator[tuple[Tnum, Tnum]]:
    return ((a, b) for a in ALL for b in ALL)


def test_later_multiplication_knows_more_in_all() -> None:
    """Not on every pair: the rules are incomparable. But over all pairs the later one leaves fewer bits unknown."""
    later = sum(tnum.mul(a, b, FULL)[1].bit_count() for a, b in pairs())
    earlier = sum(tnum.mul_of_masks(a, b, FULL)[1].bit_count() for a, b in pairs())
    assert later < earlier
