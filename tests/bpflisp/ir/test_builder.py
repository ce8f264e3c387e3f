"""The builder makes SSA of variables, in every shape of control flow."""

import pytest

from bpflisp.ir.builder import Builder
from bpflisp.ir.ssa import const
from bpflisp.ir.text import print_function
from bpflisp.ir.validate import validate
from bpflisp.spec.isa import Op


def test_a_variable_that_both_arms_write_meets_in_a_parameter() -> None:
    b = Builder("f")
    then, other, join = b.block(), b.block(), b.block()
    b.branch(Op.EQ, b.params[0], const(0), then, other)
    for arm, number in ((then, 1), (other, 2)):
        b.seal(arm)
        b.start(arm)
        b.write_variable("v", const(number))
        b.jump(join)
    b.seal(join)
    b.start(join)
    b.ret(b.read_variable("v"))
    function = b.finish()
    validate(function)
    assert "b3(%0):\n  return %0" in print_function(function)


def test_a_variable_that_a_loop_only_reads_needs_no_parameter() -> None:
    b = Builder("f")
    head, body, done = b.block(), b.block(), b.block()
    b.write_variable("i", const(0))
    b.write_variable("limit", b.call_helper(7))
    b.jump(head)
    b.start(head)
    b.branch(Op.LT, b.read_variable("i"), b.read_variable("limit"), body, done)
    b.seal(body)
    b.seal(done)
    b.start(body)
    b.write_variable("i", b.add(b.read_variable("i"), const(1)))
    b.jump(head)
    b.seal(head)
    b.start(done)
    b.ret(b.read_variable("limit"))
    function = b.finish()
    validate(function)
    assert [len(block.params) for block in function.blocks] == [0, 1, 0, 0]


def test_reading_before_writing_is_an_error_in_the_entry_and_0_in_dead_code() -> None:
    b = Builder("f")
    with pytest.raises(KeyError, match="read before it is written"):
        b.read_variable("v")
    dead = b.block()
    b.ret(const(1))
    b.seal(dead)
    b.start(dead)
    assert b.read_variable("v") == const(0)
    b.ret(b.read_variable("v"))
    assert len(b.finish().blocks) == 1


def test_a_closed_block_takes_no_instruction_and_a_sealed_one_no_edge() -> None:
    b = Builder("f")
    other = b.block()
    b.seal(other)
    with pytest.raises(ValueError, match="sealed"):
        b.jump(other)
    b = Builder("f")
    b.ret(const(0))
    assert not b.open
    with pytest.raises(ValueError, match="closed"):
        b.ret(const(0))


def test_thousands_of_joins_need_no_recursion() -> None:
    b = Builder("f")
    b.write_variable("v", const(0))
    for number in range(5000):
        then, join = b.block(), b.block()
        b.branch(Op.EQ, b.params[0], const(number), then, join)
        b.seal(then)
        b.start(then)
        b.write_variable("w", const(number))
        b.jump(join)
        b.seal(join)
        b.start(join)
    b.ret(b.read_variable("v"))
    function = b.finish()
    assert sum(len(block.params) for block in function.blocks) == 0
