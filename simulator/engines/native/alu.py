"""Arithmetic: what each operation becomes. rcx and rdx are free to use; results are what `bpflisp.spec.alu` says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bpflisp.spec.isa import Op
from simulator.engines.native.encode import RAX, RCX, RDX, Code

_PLAIN: Final[Mapping[Op, str]] = {Op.ADD: "add", Op.SUB: "sub", Op.OR: "or", Op.AND: "and", Op.XOR: "xor"}
_SHIFTS: Final[Mapping[Op, str]] = {Op.LSH: "shl", Op.RSH: "shr", Op.ARSH: "sar"}
_EXTENDED: Final[Mapping[Op, int]] = {Op.MOVSX8: 1, Op.MOVSX16: 2, Op.MOVSX32: 4}
_DIVISIONS: Final = frozenset({Op.DIV, Op.MOD, Op.SDIV, Op.SMOD})

ATOMIC_OPS: Final[Mapping[Op, str]] = {Op.ADD: "add", Op.OR: "or", Op.AND: "and", Op.XOR: "xor"}
"""What atomic instructions do between the read and the write."""

BRANCHES: Final[Mapping[Op, tuple[str, str]]] = {
    Op.EQ: ("cmp", "e"), Op.NE: ("cmp", "ne"), Op.GT: ("cmp", "a"), Op.GE: ("cmp", "ae"), Op.LT: ("cmp", "b"),
    Op.LE: ("cmp", "be"), Op.SGT: ("cmp", "g"), Op.SGE: ("cmp", "ge"), Op.SLT: ("cmp", "l"), Op.SLE: ("cmp", "le"),
    Op.SET: ("test", "ne"),
}  # fmt: skip
"""Comparison -> the instruction that compares, and the condition under which the branch is taken."""


OPPOSITE: Final[Mapping[str, str]] = {
    "e": "ne", "ne": "e", "a": "be", "be": "a", "b": "ae", "ae": "b", "g": "le", "le": "g", "l": "ge", "ge": "l",
}  # fmt: skip
"""The conditions that hold where these do not."""


def arithmetic(out: Code, op: Op, wide: bool, to: int, source: int | None, imm: int) -> None:
    """`to = to op (source | imm)`; `source` is None where the immediate is meant."""
    if op is Op.MOV:
        _move(out, wide, to, source, imm)
    elif op in _PLAIN:
        if source is None:
            out.op_imm(_PLAIN[op], to, imm, wide)
        else:
            out.op(_PLAIN[op], to, source, wide=wide)
    elif op is Op.MUL:
        if source is None:
            out.op("imul_imm32", to, to, imm, wide=wide)
        else:
            out.op("imul", source, to, wide=wide)
    elif op in _SHIFTS:
        _shift(out, _SHIFTS[op], wide, to, source, imm)
    elif op in _EXTENDED:
        assert source is not None
        out.op(f"load_signed{_EXTENDED[op]}", source, to, wide=wide)
    else:
        assert op in _DIVISIONS, op
        _divide(out, op, wide, to, source, imm)


def _move(out: Code, wide: bool, to: int, source: int | None, imm: int) -> None:
    if source is not None:
        out.op("mov", to, source, wide=wide)
    else:
        out.move(to, imm if wide else imm & 0xFFFFFFFF)


def _shift(out: Code, name: str, wide: bool, to: int, source: int | None, imm: int) -> None:
    """The count's low bits alone mean something, here as there."""
    count = imm & (63 if wide else 31)
    if source is not None:
        out.op("mov", RCX, source)
        out.op(name + "_cl", to, wide=wide)
    elif count:
        out.op(name + "_imm8", to, imm=count, wide=wide)
    if not wide and (source is not None or not count):
        out.op("mov", to, to, wide=False)  # A shift by 0 leaves the upper half alone on some processors.


def _divide(out: Code, op: Op, wide: bool, to: int, source: int | None, imm: int) -> None:
    """By 0 the quotient is 0 and the remainder the dividend; both are asked for before, since x86 traps, as it does
    for the least number by -1."""
    quotient, signed = op in (Op.DIV, Op.SDIV), op in (Op.SDIV, Op.SMOD)
    by_zero, by_minus_one, done = object(), object(), object()
    if source is None:
        if imm == 0 or (signed and imm == -1):
            _divided_by_special(out, quotient, wide, to, imm == 0)
            return
        out.move(RCX, imm if wide else imm & 0xFFFFFFFF)
    else:
        out.op("mov", RCX, source, wide=wide)
        out.op("test", RCX, RCX, wide=wide)
        out.branch("e", by_zero)
        if signed:
            out.op_imm("cmp", RCX, -1, wide)
            out.branch("e", by_minus_one)
    if to != RAX:
        out.push(RAX)
        out.op("mov", RAX, to)
    if signed:
        out.sign_to_rdx(wide)
    else:
        out.move(RDX, 0)
    out.op("idiv" if signed else "div", RCX, wide=wide)
    out.op("mov", to, RAX if quotient else RDX, wide=wide)
    if to != RAX:
        out.pop(RAX)
    if source is None:
        return
    out.jump(done)
    out.label(by_zero)
    _divided_by_special(out, quotient, wide, to, zero=True)
    if signed:
        out.jump(done)
        out.label(by_minus_one)
        _divided_by_special(out, quotient, wide, to, zero=False)
    out.label(done)


def _divided_by_special(out: Code, quotient: bool, wide: bool, to: int, zero: bool) -> None:
    """Division by 0, or a signed one by -1."""
    if quotient and not zero:
        out.op("neg", to, wide=wide)
    elif quotient or not zero:
        out.move(to, 0)
    elif not wide:
        out.op("mov", to, to, wide=False)


def byte_order(out: Code, op: Op, bits: int, to: int) -> None:
    """The low `bits` bits, their bytes reversed but for TO_LE, zero-extended."""
    if op is Op.TO_LE:
        if bits == 16:
            out.op("load2", to, to, wide=False)
        elif bits == 32:
            out.op("mov", to, to, wide=False)
        return
    out.swap(to, wide=bits == 64)
    if bits == 16:
        out.op("shr_imm8", to, imm=16, wide=False)
