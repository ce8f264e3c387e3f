"""Arithmetic, comparison, byte order and casts. All of it at 64 bits; numbers that are known are computed here."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import gcd

from bpflisp.front import tree
from bpflisp.front.check import Checker, core
from bpflisp.front.tree import Tree
from bpflisp.front.types import U64, UNKNOWN, Number, Pointer, Region, Type
from bpflisp.spec import alu
from bpflisp.spec.isa import Op
from bpflisp.syntax.forms import Cons, Symbol, element_span, fail, text

_MASK = (1 << 64) - 1

_OPERATIONS = {
    "+": Op.ADD, "*": Op.MUL, "-": Op.SUB, "/": Op.DIV, "MOD": Op.MOD, "LOGAND": Op.AND, "LOGIOR": Op.OR,
    "LOGXOR": Op.XOR, "BIT-AND": Op.AND, "BIT-OR": Op.OR, "BIT-XOR": Op.XOR, "S/": Op.SDIV, "SMOD": Op.SMOD,
}  # fmt: skip
_SHIFTS = {
    "<<": Op.LSH, ">>": Op.RSH, ">>>": Op.ARSH, "ASH-LEFT": Op.LSH, "ASH-RIGHT": Op.RSH, "ASH-RIGHT-SIGNED": Op.ARSH,
}  # fmt: skip
_COMPARISONS = {
    "=": Op.EQ, "/=": Op.NE, ">": Op.GT, ">=": Op.GE, "<": Op.LT, "<=": Op.LE, "S>": Op.SGT, "S>=": Op.SGE,
    "S<": Op.SLT, "S<=": Op.SLE,
}  # fmt: skip
_DIVISIONS = (Op.DIV, Op.MOD, Op.SDIV, Op.SMOD)


def head_of(form: Cons) -> str:
    """The name that a form starts with, in upper case."""
    assert isinstance(form.car, Symbol)
    return form.car.name


def is_known(node: Tree) -> bool:
    """Whether a node is a number that is known, and no error."""
    return isinstance(node, tree.Number) and node.type is not UNKNOWN


def is_zero(node: Tree) -> bool:
    """Whether a node is the number 0."""
    return isinstance(node, tree.Number) and node.value == 0 and node.type is not UNKNOWN


def binary(op: Op, left: Tree, right: Tree) -> Tree:
    """Arithmetic; on known numbers, its result."""
    kind = _result(op, left.type, right.type)
    if isinstance(left, tree.Number) and isinstance(right, tree.Number) and kind is not UNKNOWN:
        return tree.Number(value=alu.compute(op, 64, left.value, right.value), type=U64, span=left.span)
    if isinstance(kind, Pointer):
        kind = replace(kind, align=_alignment(kind.align, right if isinstance(left.type, Pointer) else left))
    return tree.Binary(op=op, left=left, right=right, type=kind, span=left.span)


def _alignment(align: int, moved_by: Tree) -> int:
    """What is known of an address's alignment once it has been moved."""
    if isinstance(moved_by, tree.Binary) and moved_by.op is Op.MUL:
        moved_by = moved_by.right
    return gcd(align, moved_by.value) if isinstance(moved_by, tree.Number) else 1


def _result(op: Op, left: Type, right: Type) -> Type:
    if left is UNKNOWN or right is UNKNOWN:
        return UNKNOWN
    moves = op in (Op.ADD, Op.SUB)
    if isinstance(left, Pointer) and moves and not isinstance(right, Pointer):
        return replace(left, struct=None, size=None)
    if isinstance(right, Pointer) and op is Op.ADD and not isinstance(left, Pointer):
        return replace(right, struct=None, size=None)
    return U64


@core(*_OPERATIONS)
def _arithmetic(checker: Checker, form: Cons) -> Tree:
    name = head_of(form)
    op = _OPERATIONS[name]
    args = checker.args(form, 1)
    values = [checker.value(arg) for arg in args]
    if len(values) == 1:
        if op is Op.SUB:
            return with_span(checker, binary(op, tree.Number(value=0), values[0]))
        if op in _DIVISIONS:
            raise fail("argument-count", f"`{name.lower()}` takes at least 2 arguments, not 1")
    total = values[0]
    for arg, value in zip(args[1:], values[1:], strict=True):
        if op in _DIVISIONS and is_zero(value):
            problem = f"`{name.lower()}` divides by zero"
            raise fail("division-by-zero", problem, element_span(arg), because=f"`{text(arg.car)}` is 0")
        _check_pointers(checker, op, total, value, name)
        _check_null(op, total, args[0])
        _check_null(op, value, arg)
        total = binary(op, total, value)
    return with_span(checker, total)


def _check_null(op: Op, node: Tree, cell: Cons) -> None:
    """Refuse to compute with an address that may be null: it is tested first."""
    maybe_null = isinstance(node.type, Pointer) and node.type.maybe_null
    if op in (Op.ADD, Op.SUB) and maybe_null and not isinstance(node, tree.Read | tree.Binary):
        problem = f"`{text(cell.car, 60)}` may be null here, and nothing is added to null"
        help = f"test it first: (when-let ((v {text(cell.car, 60)})) ...)"
        raise fail("maybe-null", problem, element_span(cell), help=help)


def with_span(checker: Checker, node: Tree) -> Tree:
    """The node, shown at the form that is being checked."""
    node.span = checker.span
    return node


def _check_pointers(checker: Checker, op: Op, left: Tree, right: Tree, name: str) -> None:
    """Warn of arithmetic that no address survives: the kernel refuses it in a program without its privileges too."""
    if op in (Op.ADD, Op.SUB):
        if op is Op.ADD and isinstance(left.type, Pointer) and isinstance(right.type, Pointer):
            checker.warn("pointer-arithmetic", "two addresses are added", help="an address and a number can be added")
        return
    for node in (left, right):
        if (
            isinstance(node.type, Pointer)
            and node.type.region is not Region.KERNEL
            and node.type.region is not Region.OTHER
        ):
            checker.warn("pointer-arithmetic", f"`{name.lower()}` is applied to {node.type.name}")


@core(*_SHIFTS)
def _shift(checker: Checker, form: Cons) -> Tree:
    value, count = (checker.value(arg) for arg in checker.args(form, 2, 2))
    _check_count(count, checker.args(form, 2, 2)[1])
    return with_span(checker, binary(_SHIFTS[head_of(form)], value, count))


def _check_count(count: Tree, arg: Cons) -> None:
    if isinstance(count, tree.Number) and count.type is not UNKNOWN and count.value >= 64:
        shown = alu.signed(count.value, 64)
        problem = f"the shift count {shown} is not within 0 to 63"
        raise fail("shift-count", problem, element_span(arg), because="a word has 64 bits")


@core("ash")
def _ash(checker: Checker, form: Cons) -> Tree:
    """Left by a positive count, right, logically, by a negative one; the count must be known."""
    value_cell, count_cell = checker.args(form, 2, 2)
    value = checker.value(value_cell)
    count = checker.constant(count_cell, "the count of `ash`")
    _check_count(tree.Number(value=abs(count)), count_cell)
    op = Op.LSH if count >= 0 else Op.RSH
    return with_span(checker, binary(op, value, tree.Number(value=abs(count))))


@core(*_COMPARISONS)
def _comparison(checker: Checker, form: Cons) -> Tree:
    """All neighbours are compared, each operand evaluated once, as Common Lisp does."""
    op = _COMPARISONS[head_of(form)]
    args = checker.args(form, 2)
    values = [checker.value(arg) for arg in args]
    for left, right, cell in zip(values, values[1:], args[1:], strict=False):
        _check_comparison(checker, op, left, right, cell)
    if len(values) == 2:
        return compare(op, values[0], values[1], checker)
    return _chained(checker, op, values)


def compare(op: Op, left: Tree, right: Tree, checker: Checker) -> Tree:
    """A comparison; of known numbers, its result."""
    if isinstance(left, tree.Number) and isinstance(right, tree.Number) and is_known(left) and is_known(right):
        return tree.Number(value=int(alu.compare(op, 64, left.value, right.value)), span=checker.span)
    kind = UNKNOWN if UNKNOWN in (left.type, right.type) else U64
    return tree.Compare(op=op, left=left, right=right, type=kind, span=checker.span)


def _chained(checker: Checker, op: Op, values: list[Tree]) -> Tree:
    """Evaluate all operands, then compare. `/=` of more than two compares every pair."""
    binds: list[Tree] = []
    reads: list[Tree] = []
    for index, value in enumerate(values):
        local = tree.Local(f"operand{index}", value.type)
        binds.append(tree.Assign(local=local, value=value, type=value.type, span=value.span))
        reads.append(tree.Read(local=local, type=value.type, span=value.span))
    pairs = list(pairwise(reads))
    if op is Op.NE:
        pairs = [(a, b) for index, a in enumerate(reads) for b in reads[index + 1 :]]
    tests = [compare(op, a, b, checker) for a, b in pairs]
    return tree.Progn(items=[*binds, tree.Logic(conjunction=True, items=tests, span=checker.span)], span=checker.span)


_UNSIGNED_ORDER = (Op.GT, Op.GE, Op.LT, Op.LE)


def _check_comparison(checker: Checker, op: Op, left: Tree, right: Tree, cell: Cons) -> None:
    """Warn of comparisons that have one outcome, or not the one that signs suggest."""
    name = next(name for name, each in _COMPARISONS.items() if each is op).lower()
    _check_range(checker, op, left, right, name)
    if op not in _UNSIGNED_ORDER:
        return
    _check_null_test(checker, left, right, name)
    if is_zero(right) and op in (Op.LT, Op.GE):
        outcome = "never" if op is Op.LT else "always"
        checker.warn(
            "constant-comparison",
            f"`{name}` of 0 {outcome} holds",
            because=f"`{name}` compares unsigned",
            help=f"`s{name}` compares signed",
        )
        return
    for node in (left, right):
        if isinstance(node, tree.Read) and node.local.declared and node.local.declared.signed:
            checker.warn(
                "unsigned-comparison",
                f"`{name}` compares unsigned, and `{node.local.name.lower()}` is a {node.local.declared.name}",
                help=f"`s{name}` compares signed",
            )
            return


def _check_range(checker: Checker, op: Op, left: Tree, right: Tree, name: str) -> None:
    """Warn where a narrow value is compared with a number that it cannot be."""
    turned = {Op.GT: Op.LT, Op.LT: Op.GT, Op.GE: Op.LE, Op.LE: Op.GE}
    if isinstance(left, tree.Number) and not isinstance(right, tree.Number):
        left, right, op = right, left, turned.get(op, op)
    kind = left.type
    if not is_known(right) or not isinstance(right, tree.Number) or not isinstance(kind, Number):
        return
    if isinstance(left, tree.Read) and left.local.declared is None and (checker.loops or left.local.assigned):
        return  # What a loop's later turns give it is not known yet.
    if not isinstance(left, tree.Read | tree.Load | tree.ContextLoad | tree.Extend | tree.Swap):
        return
    greatest = (1 << kind.bits) - 1
    beyond = right.value >= greatest if op in (Op.GT, Op.LE) else right.value > greatest
    if kind.bits < 64 and not kind.signed and beyond and op in (Op.EQ, Op.NE, *_UNSIGNED_ORDER):
        outcome = "never" if op in (Op.EQ, Op.GT, Op.GE) else "always"
        shown = alu.signed(right.value, 64) if right.value >> 63 else right.value
        problem = f"`{name}` of a {kind.name} and {shown} {outcome} holds"
        checker.warn("constant-comparison", problem, because=f"a {kind.name} is at most {greatest}")


def _check_null_test(checker: Checker, left: Tree, right: Tree, name: str) -> None:
    """Warn where an address that may be null is tested in a way that the verifier does not take for a test."""
    for node, other in ((left, right), (right, left)):
        if isinstance(node.type, Pointer) and node.type.maybe_null and isinstance(other.type, Number):
            problem = f"`{name}` of an address that may be null is no test that the kernel takes for one"
            checker.warn("pointer-comparison", problem, help="(when pointer ...), or (when-let ((p ...)) ...)")
            return


# Casts and byte order


def extend(node: Tree, kind: Number) -> Tree:
    """The value as that type has it: truncated, and extended by its sign."""
    if kind.bits == 64:
        node.type = kind if isinstance(node.type, Number) else node.type
        return node
    if isinstance(node, tree.Number) and node.type is not UNKNOWN:
        low = node.value & ((1 << kind.bits) - 1)
        value = alu.signed(low, kind.bits) & _MASK if kind.signed else low
        return tree.Number(value=value, type=kind, span=node.span)
    if fits(node, kind):
        return node
    return tree.Extend(operand=node, bits=kind.bits, signed=kind.signed, type=kind, span=node.span)


def fits(node: Tree, kind: Number) -> bool:
    """Whether the value is surely that type's already: what made it shows how wide it is."""
    bits: int
    match node:
        case tree.Load(size=size, signed=signed):
            return size * 8 == kind.bits and signed == kind.signed
        case tree.Extend(bits=bits, signed=signed):
            return (bits, signed) == (kind.bits, kind.signed)
        case tree.Swap(bits=bits):
            return bits <= kind.bits and not kind.signed
        case tree.Compare() | tree.Not():
            return True
    return False


@core("cast")
def _cast(checker: Checker, form: Cons) -> Tree:
    type_cell, value_cell = checker.args(form, 2, 2)
    kind = checker.scalar_type(type_cell)
    value = checker.value(value_cell)
    if value.type is UNKNOWN:
        return value
    if isinstance(value.type, Pointer) and kind.bits < 64:
        raise fail("narrow-pointer", f"{value.type.name} does not fit into a {kind.name}", element_span(value_cell))
    return with_span(checker, extend(value, kind))


_SWAPS = {"NTOHS": 16, "HTONS": 16, "NTOHL": 32, "HTONL": 32, "NTOHLL": 64, "HTONLL": 64}


def swap(node: Tree, bits: int) -> Tree:
    """The low bits in the other byte order."""
    if isinstance(node, tree.Number) and node.type is not UNKNOWN:
        return tree.Number(value=alu.byte_order(Op.TO_BE, bits, node.value), type=Number(bits), span=node.span)
    kind = UNKNOWN if node.type is UNKNOWN else Number(bits)
    return tree.Swap(operand=node, bits=bits, type=kind, span=node.span)


@core(*_SWAPS)
def _swap(checker: Checker, form: Cons) -> Tree:
    bits = _SWAPS[head_of(form)]
    cell = checker.args(form, 1, 1)[0]
    value = checker.value(cell)
    if isinstance(value, tree.Number) and value.value >= 1 << bits and value.type is not UNKNOWN:
        checker.warn("truncated", f"`{text(cell.car)}` has more than {bits} bits", element_span(cell))
    return with_span(checker, swap(value, bits))


@core("log2")
def _log2(checker: Checker, form: Cons) -> Tree:
    """The place of the highest bit, 0 of 0: by halving, for all of the 64 bits."""
    value = checker.value(checker.args(form, 1, 1)[0])
    if isinstance(value, tree.Number):
        return with_span(checker, tree.Number(value=max(value.value.bit_length() - 1, 0), type=value.type))
    left, result = tree.Local("log2-left"), tree.Local("log2")
    zero = tree.Number(value=0)
    steps: list[Tree] = [tree.Assign(local=left, value=value), tree.Assign(local=result, value=zero)]
    for half in (32, 16, 8, 4, 2, 1):
        count = tree.Number(value=half)
        shifted = tree.Assign(local=left, value=tree.Binary(op=Op.RSH, left=tree.Read(local=left), right=count))
        added = tree.Assign(local=result, value=tree.Binary(op=Op.ADD, left=tree.Read(local=result), right=count))
        above = tree.Compare(op=Op.GE, left=tree.Read(local=left), right=tree.Number(value=1 << half))
        steps.append(tree.If(test=above, then=tree.Progn(items=[shifted, added]), other=zero))
    return tree.Progn(items=[*steps, tree.Read(local=result)], span=checker.span)
