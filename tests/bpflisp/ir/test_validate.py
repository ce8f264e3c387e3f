"""The validator finds each broken rule, and nothing in what is whole."""

from collections.abc import Callable

import pytest

from bpflisp.ir import ssa
from bpflisp.ir.parse import parse_function
from bpflisp.ir.ssa import Function, const
from bpflisp.ir.validate import InvalidFunctionError, find_problems, validate
from bpflisp.spec.isa import Op

TEXT = """
program @f(%ctx) {
  slot $0 8 align 8
b0:
  %0 = ctxload4 %ctx + 0
  branch eq %0, 1, b1, b2(%0)
b1:
  %1 = add %0, 2
  zero $0 + 0, 8
  jump b2(%1)
b2(%2):
  return %2
}
"""


def test_a_whole_function_has_no_problems() -> None:
    assert list(find_problems(parse_function(TEXT))) == []


def use_before_definition(f: Function) -> None:
    f.blocks[2].end = ssa.Return(args=[f.blocks[1].body[0]])


def missing_argument(f: Function) -> None:
    f.blocks[1].terminator.edges()[0].args.clear()


def no_end(f: Function) -> None:
    f.blocks[1].end = None


def jump_to_entry(f: Function) -> None:
    f.blocks[1].end = ssa.Jump(to=ssa.Edge(f.entry))


def jump_outside(f: Function) -> None:
    f.blocks[1].end = ssa.Jump(to=ssa.Edge(ssa.Block(end=ssa.Return())))


def unreachable(f: Function) -> None:
    f.blocks.append(ssa.Block(end=ssa.Return(), name="lost"))


def wrong_operation(f: Function) -> None:
    f.blocks[1].body[0] = ssa.Binary(args=[const(1), const(2)], op=Op.EQ)
    f.blocks[1].terminator.edges()[0].args[:] = [const(1)]


def outside_the_slot(f: Function) -> None:
    zero = f.blocks[1].body[1]
    assert isinstance(zero, ssa.Zero)
    zero.size = 9


def too_many_operands(f: Function) -> None:
    f.blocks[1].body[0].args.append(const(1))


def result_of_nothing(f: Function) -> None:
    f.blocks[2].end = ssa.Return(args=[f.blocks[1].body[1]])


def terminator_inside(f: Function) -> None:
    f.blocks[1].body.append(ssa.Return())


def twice(f: Function) -> None:
    f.blocks[1].body.append(f.blocks[1].body[0])


@pytest.mark.parametrize(
    ("breaks", "problem"),
    [
        (use_before_definition, "need not be defined: return %"),
        (missing_argument, "an edge with 0 arguments for 1 parameters"),
        (no_end, "blocks without an end"),
        (jump_to_entry, "a jump to the entry"),
        (jump_outside, "jumps out of the function"),
        (unreachable, "cannot be reached: \\['lost'\\]"),
        (wrong_operation, "a field out of range"),
        (outside_the_slot, "a field out of range: zero"),
        (too_many_operands, "a wrong number of operands: "),
        (result_of_nothing, "uses what has no result"),
        (terminator_inside, "a terminator inside block"),
        (twice, "an instruction comes twice"),
    ],
)
def test_what_is_broken_is_found(breaks: Callable[[Function], None], problem: str) -> None:
    function = parse_function(TEXT)
    breaks(function)
    with pytest.raises(InvalidFunctionError, match=problem):
        validate(function)
