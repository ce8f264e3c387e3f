"""`Domain`: the scalar operations of one kernel, each answer kept, so that asking again is one dictionary lookup."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from bpflisp.spec.isa import Op
from simulator.verifier.scalar import alu, branch, branch_before_6_8
from simulator.verifier.scalar.bounds import (
    ACROSS,
    as_fields,
    checked,
    settle,
    sign_extend32,
    sign_extend64,
    truncate,
    zero_extend32,
)
from simulator.verifier.scalar.rules import Rules
from simulator.verifier.scalar.value import UNKNOWN, Scalar, const

K = TypeVar("K")
V = TypeVar("V")
Pair = tuple[Scalar, Scalar]
Outcomes = tuple[Scalar, Scalar, Scalar, Scalar]


class Memo(dict[K, V], Generic[K, V]):
    """A function as the dictionary of its answers: `memo[key]` computes what it has not seen."""

    __slots__ = ("compute",)

    def __init__(self, compute: Callable[[K], V]) -> None:
        super().__init__()
        self.compute = compute

    def __missing__(self, key: K) -> V:
        answer = self[key] = self.compute(key)
        return answer


class Domain:
    """Scalar arithmetic and comparisons as a kernel with these `rules` (see `rules.rules_of`) reasons.

    The methods are for reading; the hot path takes a `..._memo` once an instruction and indexes it with the operands:
    `domain.alu_memo(Op.ADD, 64)[a, b]`.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._alu: dict[tuple[Op, int], Memo[Pair, Scalar]] = {}
        self._taken: dict[tuple[Op, int], Memo[Pair, bool | None]] = {}
        self._refine: dict[tuple[Op, int], Memo[Pair, Outcomes]] = {}
        self._refine_same: dict[tuple[Op, int], Memo[Scalar, Pair]] = {}
        self._unary: dict[tuple[str, int, int], Memo[Scalar, Scalar]] = {}

    def alu_memo(self, op: Op, width: int) -> Memo[Pair, Scalar]:
        """(a, b) -> what `a op b` leaves known; `width` is 32 or 64."""
        memo = self._alu.get((op, width))
        if memo is None:
            rules = self.rules
            memo = self._alu[op, width] = Memo(lambda pair: alu.transfer(rules, op, width, *pair))
        return memo

    def taken_memo(self, op: Op, width: int) -> Memo[Pair, bool | None]:
        """(a, b) -> whether the branch is always or never taken; None where it may be either."""
        memo = self._taken.get((op, width))
        if memo is None:
            decide = branch.taken if ACROSS in self.rules else branch_before_6_8.taken
            memo = self._taken[op, width] = Memo(lambda pair: decide(op, width, *pair))
        return memo

    def refine_memo(self, op: Op, width: int) -> Memo[Pair, Outcomes]:
        """(a, b) -> a and b where the branch is taken, a and b where it is not."""
        memo = self._refine.get((op, width))
        if memo is None:
            rules = self.rules
            narrow = branch.refine if ACROSS in rules else branch_before_6_8.refine
            memo = self._refine[op, width] = Memo(lambda pair: narrow(rules, op, width, *pair))
        return memo

    def refine_same_memo(self, op: Op, width: int) -> Memo[Scalar, Pair]:
        """A register compared with itself -> it where the branch is taken, it where it is not."""
        memo = self._refine_same.get((op, width))
        if memo is None:
            rules = self.rules
            narrow = branch.refine_same if ACROSS in rules else branch_before_6_8.refine_same
            memo = self._refine_same[op, width] = Memo(lambda a: narrow(rules, op, width, a))
        return memo

    def _unary_memo(
        self, name: str, bits: int, width: int, compute: Callable[[Scalar], Scalar]
    ) -> Memo[Scalar, Scalar]:
        memo = self._unary.get((name, bits, width))
        if memo is None:
            memo = self._unary[name, bits, width] = Memo(compute)
        return memo

    def alu(self, op: Op, width: int, a: Scalar, b: Scalar) -> Scalar:
        """What `a op b` leaves known of the register."""
        return self.alu_memo(op, width)[a, b]

    def fork(self, op: Op, a: Scalar, b: Scalar) -> tuple[Scalar, Scalar] | None:
        """The number to go on with and the one to explore the same instruction with later; None where `a` stays one.

        To be asked before an `AND` or `OR` of either width with an operand `b` of known bits; see `alu.fork`.
        """
        return alu.fork(self.rules, op, a, b)

    def add_const(self, a: Scalar, delta: int) -> Scalar:
        """What `a + delta` leaves known, 64 bits wide."""
        return self.alu_memo(Op.ADD, 64)[a, const(delta)]

    def unsettled_sum(self, a: Scalar, delta: int) -> Scalar:
        """What `a + delta` leaves known where nothing is deduced from the sum of each pair of bounds."""
        return alu.unsettled_sum(self.rules, a, const(delta))

    def branch_taken(self, op: Op, width: int, a: Scalar, b: Scalar) -> bool | None:
        """Whether `a op b` always (True) or never (False) holds; None where both may be."""
        return self.taken_memo(op, width)[a, b]

    def refine(self, op: Op, width: int, a: Scalar, b: Scalar) -> Outcomes:
        """(a, b) where the branch is taken, then (a, b) where it is not."""
        return self.refine_memo(op, width)[a, b]

    def refine_same(self, op: Op, width: int, a: Scalar) -> Pair:
        """Of a register compared with itself: where the branch is taken, and where it is not."""
        return self.refine_same_memo(op, width)[a]

    def mov32(self, a: Scalar) -> Scalar:
        """The low 32 bits, zero-extended, by a 32-bit move."""
        rules = self.rules
        return self._unary_memo("mov32", 32, 32, lambda x: settle(zero_extend32(x.fields), rules))[a]

    def sext(self, a: Scalar, bits: int, width: int) -> Scalar:
        """The low `bits` bits, sign-extended to `width`: MOVSX and signed loads."""
        rules = self.rules
        if width == 64:
            return self._unary_memo("sext", bits, width, lambda x: checked(sign_extend64(x, bits)))[a]
        return self._unary_memo("sext", bits, width, lambda x: checked(sign_extend32(x, bits, rules)))[a]

    def neg(self, width: int, a: Scalar) -> Scalar:
        """What `-a` leaves known."""
        rules = self.rules
        return self._unary_memo("neg", 0, width, lambda x: alu.negate(rules, width, x))[a]

    def byte_swap(self, op: Op, bits: int, a: Scalar) -> Scalar:
        """What a change of byte order of the low `bits` bits, by `TO_LE`, `TO_BE` or `SWAP`, leaves known."""
        rules = self.rules
        return self._unary_memo(op, bits, 64, lambda x: alu.byte_swap(rules, op, bits, x))[a]

    def zext_to_size(self, a: Scalar, size: int) -> Scalar:
        """The low `size` bytes, zero-extended, after a narrow load; all 8 change nothing."""
        if size == 8:
            return a
        rules = self.rules
        return self._unary_memo("zext", size, 64, lambda x: truncate(x, size, rules))[a]

    def load_result(self, size: int, signed: bool = False) -> Scalar:
        """What a load of `size` unknown bytes leaves known."""
        if size == 8:
            return UNKNOWN
        return self.sext(UNKNOWN, size * 8, 64) if signed else self.zext_to_size(UNKNOWN, size)

    def set_range(
        self,
        a: Scalar = UNKNOWN,
        *,
        smin: int | None = None,
        smax: int | None = None,
        umin: int | None = None,
        umax: int | None = None,
        smin32: int | None = None,
        smax32: int | None = None,
        umin32: int | None = None,
        umax32: int | None = None,
    ) -> Scalar:
        """`a` with the bounds that are given in place of its own, and what follows from them."""
        given = (smin, smax, umin, umax, smin32, smax32, umin32, umax32)
        kept = a.fields[2:]
        new = [old if bound is None else bound for bound, old in zip(given, kept, strict=True)]
        return settle(as_fields([a.value, a.mask, *new]), self.rules)
