"""The scalar domain: equal to what kernel 6.18 answered, and sound on members, for every kernel's rules."""

from __future__ import annotations

import gc
import itertools
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpflisp.spec.alu import byte_order, compare, compute, signed
from bpflisp.spec.isa import Op
from simulator.program import Program
from simulator.verifier import report, verify
from simulator.verifier.machine import Machine
from simulator.verifier.regs import ZERO
from simulator.verifier.scalar import (
    SINCE,
    UNKNOWN,
    Domain,
    Scalar,
    const,
    describe,
    drop_unused,
    intern_fields,
    interned_count,
    is_consistent,
    rules_of,
    within,
)
from tests import oracle
from tests.simulator.verifier.scalar_cases import Case, Generator, Reader, agrees, answer
from tests.simulator.verifier.scalar_text import printed, scalar_of

FIXTURE = Path(__file__).parents[3] / "fixtures/verifier/scalar-6.18.jsonl"
CASES = [Case.from_json(json.loads(line)) for line in FIXTURE.read_text(encoding="utf-8").splitlines()]
KERNELS = [(5, 10), (6, 1), (6, 12), (6, 18)]
M32, M64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF

ARITHMETIC = [
    Op.ADD, Op.SUB, Op.MUL, Op.AND, Op.OR, Op.XOR, Op.LSH, Op.RSH, Op.ARSH, Op.DIV, Op.MOD, Op.SDIV, Op.SMOD,
]  # fmt: skip
COMPARISONS = [Op.EQ, Op.NE, Op.GT, Op.GE, Op.LT, Op.LE, Op.SGT, Op.SGE, Op.SLT, Op.SLE, Op.SET]

EDGES = [
    0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0x7FFFFFFF, 0x80000000, M32, 1 << 32, (1 << 32) + 1, 0x1_7FFFFFFF,
    (1 << 63) - 1, 1 << 63, (1 << 63) + 1, M64 - 0x80000000, M64 - 0x7FFFFFFF, M64 ^ M32, M64 - 1, M64,
]  # fmt: skip


def hull(numbers: list[int]) -> Scalar:
    """What is known of a number that is one of these: bits and ranges, each by itself."""
    differ = 0
    for number in numbers:
        differ |= number ^ numbers[0]
    lows = [number & M32 for number in numbers]
    ranges = (
        [signed(number, 64) for number in numbers],
        numbers,
        [signed(low, 32) for low in lows],
        lows,
    )
    ends = [end for each in ranges for end in (min(each), max(each))]
    return intern_fields((numbers[0] & ~differ, differ, *ends))  # type: ignore[arg-type]


@pytest.fixture(params=KERNELS, ids=lambda version: ".".join(map(str, version)), scope="module")
def domain(request: pytest.FixtureRequest) -> Domain:
    return Domain(rules_of(request.param))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}-{case.op}-{case.width}")
def test_answers_as_the_kernel_did(case: Case) -> None:
    newest = Domain(rules_of((6, 18)))
    assert agrees(newest, case), (case, answer(newest, case))


def test_the_fixture_has_every_operation() -> None:
    have = {(case.kind, case.op, case.width) for case in CASES}
    want: set[tuple[str, str, int]] = {("alu", op, width) for op in ARITHMETIC for width in (32, 64)}
    want |= {(kind, op, width) for kind in ("taken", "fall", "decide") for op in COMPARISONS for width in (32, 64)}
    want |= {("neg", "neg", 32), ("neg", "neg", 64), ("mov32", "mov", 32), ("sext", "mov", 32), ("sext", "mov", 64)}
    want |= {("end", op, 64) for op in ("le", "be", "bswap")}
    assert not want - have


def test_the_running_kernel_agrees() -> None:
    possible, why = oracle.available()
    if not possible:
        pytest.skip(why)
    newest, seen = Domain(rules_of((6, 18))), 0
    for seed in range(7000, 7120):
        generator = Generator(seed, (6, 7) if seed % 2 else (6, 7, 8, 9))
        reply = oracle.ask(generator.program(), log_level=2)
        if "6.18" not in Path("/proc/version").read_text(encoding="utf-8"):
            pytest.skip("the running kernel is not 6.18")
        for case in Reader(newest, generator.steps, reply.log).cases():
            assert agrees(newest, case), (seed, case, answer(newest, case))
            seen += 1
    assert seen > 1000


def pairs_of_edges() -> list[list[int]]:
    return [list(pair) for pair in itertools.combinations(EDGES, 2)][::3] + [[edge] for edge in EDGES]


@pytest.mark.parametrize("op", ARITHMETIC)
@pytest.mark.parametrize("width", [32, 64])
def test_arithmetic_keeps_every_result(domain: Domain, op: Op, width: int) -> None:
    sets = pairs_of_edges()[:: 3 if op is Op.MUL else 2]
    for xs in sets:
        for ys in sets[::5]:
            got = domain.alu(op, width, hull(xs), hull(ys))
            for x, y in itertools.product(xs, ys):
                assert compute(op, width, x, y) in got, (op, width, xs, ys, got)


@pytest.mark.parametrize("op", COMPARISONS)
@pytest.mark.parametrize("width", [32, 64])
def test_comparisons_keep_every_pair(domain: Domain, op: Op, width: int) -> None:
    for xs in pairs_of_edges()[::2]:
        for ys in pairs_of_edges()[::7]:
            check_comparison(domain, op, width, xs, ys)


def check_comparison(domain: Domain, op: Op, width: int, xs: list[int], ys: list[int]) -> None:
    a, b = hull(xs), hull(ys)
    went = domain.branch_taken(op, width, a, b)
    outcomes = None if went is not None else domain.refine(op, width, a, b)
    for x, y in itertools.product(xs, ys):
        holds = compare(op, width, x, y)
        if outcomes is None:
            assert went is holds, (op, width, xs, ys)
        else:
            first, second = outcomes[:2] if holds else outcomes[2:]
            assert x in first, (op, width, x, y, a, b, first)
            assert y in second, (op, width, x, y, a, b, second)


@pytest.mark.parametrize("op", COMPARISONS)
@pytest.mark.parametrize("width", [32, 64])
def test_a_register_compared_with_itself(op: Op, width: int) -> None:
    """The kernel narrows both ways, even the one that never is; the other keeps every number."""
    newest = Domain(rules_of((6, 18)))
    for xs in pairs_of_edges():
        taken, fall = newest.refine_same(op, width, hull(xs))
        for x in xs:
            assert x in (taken if compare(op, width, x, x) else fall)


numbers_sets = st.lists(
    st.one_of(st.sampled_from(EDGES), st.integers(0, M64), st.integers(-200, 200).map(lambda number: number & M64)),
    min_size=1,
    max_size=4,
)


@given(st.sampled_from(KERNELS), st.sampled_from(ARITHMETIC), st.sampled_from([32, 64]), numbers_sets, numbers_sets)
@settings(max_examples=400)
def test_arithmetic_at_64_bits(version: tuple[int, int], op: Op, width: int, xs: list[int], ys: list[int]) -> None:
    got = Domain(rules_of(version)).alu(op, width, hull(xs), hull(ys))
    assert all(compute(op, width, x, y) in got for x in xs for y in ys)


@given(st.sampled_from(KERNELS), st.sampled_from(COMPARISONS), st.sampled_from([32, 64]), numbers_sets, numbers_sets)
@settings(max_examples=400)
def test_comparisons_at_64_bits(version: tuple[int, int], op: Op, width: int, xs: list[int], ys: list[int]) -> None:
    check_comparison(Domain(rules_of(version)), op, width, xs, ys)


@given(st.sampled_from(KERNELS), numbers_sets)
@settings(max_examples=200)
def test_moves_at_64_bits(version: tuple[int, int], xs: list[int]) -> None:
    kernel, a = Domain(rules_of(version)), hull(xs)
    for x in xs:
        assert x & M32 in kernel.mov32(a)
        assert -x & M64 in kernel.neg(64, a)
        assert -x & M32 in kernel.neg(32, a)
        for size in (1, 2, 4, 8):
            assert x & (1 << size * 8) - 1 in kernel.zext_to_size(a, size)
        for bits, width in ((8, 32), (16, 32), (8, 64), (16, 64), (32, 64)):
            assert signed(x, bits) & ((1 << width) - 1) in kernel.sext(a, bits, width)
        for op in (Op.TO_LE, Op.TO_BE, Op.SWAP):
            for bits in (16, 32, 64):
                assert byte_order(op, bits, x) in kernel.byte_swap(op, bits, a)


@given(numbers_sets, numbers_sets)
def test_forks_keep_every_number(xs: list[int], ys: list[int]) -> None:
    newest = Domain(rules_of((6, 18)))
    for op in (Op.AND, Op.OR):
        if forked := newest.fork(op, hull(xs), hull(ys)):
            assert all(any(x in part for part in forked) for x in xs)


def test_forks_where_a_mask_meets_minus_one_or_zero() -> None:
    newest = Domain(rules_of((6, 18)))
    assert newest.fork(Op.AND, hull([0, M64]), const(12)) == (const(-1), const(0))
    assert newest.fork(Op.AND, hull([0, M64]), hull([1, 2])) is None
    assert newest.fork(Op.XOR, hull([0, M64]), const(12)) is None
    low = newest.fork(Op.OR, hull([0, M32, 1 << 32]), const(12))
    assert low is not None
    assert (low[0].const32, low[1].const32) == (M32, 0)


def test_equal_knowledge_is_one_object() -> None:
    newest = Domain(rules_of((6, 18)))
    first = newest.alu(Op.AND, 64, UNKNOWN, const(255))
    assert first is newest.load_result(1)
    assert first is scalar_of("scalar(smin=smin32=0,smax=umax=smax32=umax32=255,var_off=(0x0; 0xff))")
    assert const(-1) is const(M64)
    assert const(M64).const == M64


def test_dropping_gives_memory_back_and_keeps_what_is_held() -> None:
    rare = 0x5EED << 32
    held = const(rare)
    before = interned_count()
    for number in range(100):
        const(rare + 1 + number)
    assert interned_count() == before + 100
    drop_unused()
    assert interned_count() <= before
    assert const(rare) is held
    assert const(rare + 1) is const(rare + 1)
    assert const(0) is ZERO


def test_a_process_that_verifies_much_keeps_a_bounded_number_of_scalars(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop over ever new numbers leaves none behind; the next verdict, and the one object for each, are as before."""
    monkeypatch.setattr(report, "_MOST_KEPT", 100)
    drop_unused()
    held = interned_count()  # by constants, and by other tests of this process
    counting = bytes.fromhex("b700000000000000 0700000001000000 a500feff88130000 b700000000000000 9500000000000000")
    first = Program(counting, "xdp").verify()
    assert first.accepted
    assert interned_count() < held + 1000
    assert Program(counting, "xdp").verify().insns_processed == first.insns_processed > 5000
    assert const(0) is ZERO


@pytest.mark.parametrize("level", [0, 1, 2, 4])
@pytest.mark.parametrize("last", ["b700000000000000", "bf80000000000000"], ids=["accepted", "refused"])
def test_an_exploration_leaves_no_garbage(monkeypatch: pytest.MonkeyPatch, level: int, last: str) -> None:
    """What it used comes back with the last reference: a process that verifies much does not grow until a search."""
    machines: list[weakref.ref[Machine]] = []
    made = Machine.__init__

    def noted(self: Machine, *arguments: Any) -> None:
        made(self, *arguments)
        machines.append(weakref.ref(self))

    monkeypatch.setattr(Machine, "__init__", noted)
    gc.disable()
    try:
        code = bytes.fromhex(f"b701000001000000 5501000000000000 {last} 9500000000000000")
        verdict = verify(Program(code, "xdp"), log_level=level)
        assert verdict.log or not level
        assert machines
        assert all(machine() is None for machine in machines)
    finally:
        gc.enable()


def test_within_is_every_bound() -> None:
    byte, word = Domain(rules_of((6, 18))).load_result(1), Domain(rules_of((6, 18))).load_result(2)
    assert within(word, byte)
    assert not within(byte, word)
    assert within(UNKNOWN, const(-7))
    assert not within(const(1), const(2))


def test_ranges_of_results() -> None:
    newest = Domain(rules_of((6, 18)))
    got = newest.set_range(smin=-4095, smax=64, smin32=-4095, smax32=64)
    assert describe(got) == "scalar(smin=smin32=-4095,smax=smax32=64)"
    assert newest.set_range(umin=3, umax=3) is const(3)


def test_contradicting_bounds_are_forgotten() -> None:
    """Equal they would be both a multiple of 2**30 and in 8..127; 6.18 does not see it, and forgets the bounds."""
    a = scalar_of(
        "scalar(smax=0x7fffffffc0000000,umax=0xffffffffc0000000,smax32=0x40000000,umax32=0xc0000000,"
        "var_off=(0x0; 0xffffffffc0000000))"
    )
    b = scalar_of("scalar(smin=umin=umin32=8,smax=umax=0xffffffff,smin32=-128,smax32=127,var_off=(0x0; 0xffffffff))")
    fall_a, fall_b = Domain(rules_of((6, 18))).refine(Op.NE, 32, a, b)[2:]
    assert describe(fall_a) == "scalar(var_off=(0x0; 0xffffffff00000000))"
    assert fall_a.umax == M64
    assert describe(fall_b) == "0"
    assert is_consistent(a.fields)
    assert not is_consistent((0, M64, 5, 4, 5, 4, 0, 0, 0, 0))


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-1",
        "0xffff8000",
        "scalar()",
        "scalar(smin=smin32=0,smax=umax=smax32=umax32=255,var_off=(0x0; 0xff))",
        "scalar(smin=0,smax=umax=0xffffffff,smin32=0xc0008000,smax32=6,var_off=(0x0; 0xffffffff))",
        "scalar(smin=smin32=-3,smax=-1,umin=0xfffffffffffffffd,umin32=0xfffffffd,var_off=(0xfffffffffffffffd; 0x2))",
    ],
)
def test_text_reads_back(text: str) -> None:
    assert describe(scalar_of(text)) == text
    assert repr(scalar_of(text)) == text


def test_text_of_links_is_read() -> None:
    assert printed("Pscalar(id=12+8,umax=9)").link == "12"
    assert printed("scalar(id=1)").scalar is UNKNOWN


WORD = "scalar(smin=smin32=0,smax=umax=smax32=umax32=0xffff,var_off=(0x0; 0xffff))"
SIGNED = "scalar(smin=smin32=-8,smax=smax32=7)"
ABOVE = "scalar(smin=umin=0x100000000,smax=umax=0x1000000ff,var_off=(0x100000000; 0xff))"
SINGLE = "scalar(smin=smin32=0,smax=umax=smax32=umax32=64,var_off=(0x0; 0x40))"
ODD = "scalar(smin=umin=smin32=umin32=252,smax=umax=0x17fffffff,umax32=0x7fffffff,var_off=(0xfc; 0x17fffff03))"
CROSSING = "scalar(smin=smin32=-1,smax=smax32=128,umin=umin32=128,var_off=(0x80; 0xffffffffffffff7f))"
SPREAD = "scalar(smin=smin32=-1,smax=smax32=270,umin=umin32=270,var_off=(0x10e; 0xfffffffffffffef1))"

# The question, then the answer without the rule and with it.
RULE_CASES = {
    "mul-of-masks": (
        ("alu", Op.MUL, ODD, "-245"),
        "scalar(smin=0x80000000000000c0,umin=umin32=192,smin32=0x800000c0,var_off=(0xc0; 0xffffffffffffff3f))",
        "scalar()",
    ),
    "low-bits-from-whole-range": (
        (
            "taken",
            Op.GE,
            "scalar(smin=umin=0x100000000,smax=umax=0x1000000ff,var_off=(0x100000000; 0xff))",
            "0x1000000ff",
        ),
        "scalar(smin=umin=0x1000000ff,smax=umax=0x1000000ff,smin32=0,smax32=umax32=255,var_off=(0x100000000; 0xff))",
        "0x1000000ff",
    ),
    "ranges-across-widths": (
        ("taken", Op.LT, SIGNED, WORD),
        SIGNED,
        "scalar(smin=smin32=0,smax=umax=smax32=umax32=7,var_off=(0x0; 0x7))",
    ),
    "unknown-operands": (("alu", Op.OR, WORD, WORD), "scalar()", WORD),
    "mul-signed-bounds": (
        ("alu", Op.MUL, SIGNED, "3"),
        "scalar()",
        "scalar(smin=smin32=-24,smax=smax32=21)",
    ),
    "add-sub-both-overflow": (
        ("alu", Op.ADD, "-2", CROSSING),
        "scalar(smin=smin32=-3,smax=smax32=126)",
        "scalar(smin=smin32=-3,smax=smax32=126,umin=umin32=126,umax=0xfffffffffffffffd,umax32=0xfffffffd)",
    ),
    "neg-bounds": (("neg", Op.NEG, SIGNED, SIGNED), "scalar()", "scalar(smin=smin32=-7,smax=smax32=8)"),
    "mul-union": (
        ("alu", Op.MUL, SPREAD, "-29"),
        "scalar(smin=smin32=-7830,smax=smax32=29,umin=umin32=8,var_off=(0x8; 0xfffffffffffffff7))",
        "scalar(smin=smin32=-7830,smax=smax32=29)",
    ),
    "byte-swap-bits": (("swap16", Op.SWAP, WORD, WORD), "scalar()", WORD),
    "fork-on-mask": (("fork", Op.AND, "scalar(smin=smin32=-1,smax=smax32=0)", "12"), "None", "(-1, 0)"),
    "tnum-single-number": (
        ("taken", Op.GT, SINGLE, "8"),
        "scalar(smin=umin=smin32=umin32=9,smax=umax=smax32=umax32=64,var_off=(0x0; 0x40))",
        "64",
    ),
}


def asked(domain: Domain, kind: str, op: Op, first: str, second: str) -> str:
    a, b = scalar_of(first), scalar_of(second)
    match kind:
        case "alu":
            return describe(domain.alu(op, 64, a, b))
        case "taken":
            return describe(domain.refine(op, 64, a, b)[0])
        case "neg":
            return describe(domain.neg(64, a))
        case "swap16":
            return describe(domain.byte_swap(op, 16, a))
        case _:
            return repr(domain.fork(op, a, b))


@pytest.mark.parametrize("rule", SINCE)
def test_every_rule_shows(rule: str) -> None:
    """Without a rule are the kernels before it; the last of them is asked, and the first that has it."""
    question, without, with_it = RULE_CASES[rule]
    major, minor = SINCE[rule]
    before = rules_of((major, minor)) - {rule}
    assert asked(Domain(before), *question) == without
    assert asked(Domain(before | {rule}), *question) == with_it


def test_before_6_8_only_known_numbers_decide() -> None:
    older, later = Domain(rules_of((6, 1))), Domain(rules_of((6, 12)))
    word, negative = scalar_of(WORD), scalar_of("scalar(smin=0x8000000000000000,smax=-1,umin=0x8000000000000000)")
    assert older.branch_taken(Op.LT, 64, word, negative) is None
    assert later.branch_taken(Op.LT, 64, word, negative) is True
    assert older.branch_taken(Op.LT, 64, word, const(1 << 16)) is True
    assert older.branch_taken(Op.EQ, 64, word, const(1 << 16)) is None
    assert later.branch_taken(Op.EQ, 64, word, const(1 << 16)) is False


def test_before_6_8_equality_combines_64_bits() -> None:
    older = Domain(rules_of((6, 1)))
    word, signed_byte = scalar_of(WORD), scalar_of(SIGNED)
    both = older.refine(Op.EQ, 64, word, signed_byte)
    assert both[0].umax == both[1].umax == 7
    assert both[2:] == (word, signed_byte)
    assert older.refine(Op.EQ, 32, word, signed_byte) == (word, signed_byte) * 2
    assert older.refine_same(Op.LT, 64, word) == (word, word)
    assert older.refine(Op.GT, 64, const(9), word)[1].umax == 8
