"""Line information: each statement's code has the line that the statement starts on, at every level."""

from __future__ import annotations

import pytest

from bpflisp import compile_text
from bpflisp.spec.isa import Kind
from simulator.loader import load
from simulator.program import Program

SOURCE = """\
(defmacro put (offset value)
  `(store u8 data ,offset ,value))
(defstruct pair (a u8) (b u8))
(defsubprog write-b ((p (ptr pair)))
  (setf (pair-b p) 90)
  (store u8 p 40 91)
  0)
(defprog p (:type :xdp)
  (with-packet (data end :min-len 64)
    (store u8 data 30 10)
    (setf (load u8 data 3) 11
          (load u8 data 5)
          (+ (load u8 data 20) 12))
    (put 7 13)
    (when (> (load u8 data 22) 4)
      (store u8 data 9 14)
      (put 11
           15))
    (dotimes (i 3)
      (incf (load u8 data 13) i))
    (case (load u8 data 24)
      (1 (store u8 data 15 16))
      (t (store u8 data 17 17)))
    (write-b data)
    (let ((x (load u8 data 26)))
      (if (= x 5)
          (store u8 data 19 18)
          (setf (load u8 data 21) 19
                (load u8 data 23) x)))
    (return 1))
  2)
"""

# The offset that a store writes to -> the line of its statement.
STORES = {1: 5, 30: 10, 3: 11, 5: 12, 7: 14, 9: 16, 11: 17, 13: 20, 15: 22, 17: 23, 19: 27, 21: 28, 23: 29, 40: 6}
LOADS = {20: 13, 22: 15, 24: 21, 26: 25}


def line_of(program: Program, slot: int) -> int:
    """The line that the kernel quotes for an instruction: that of the last record at or before it."""
    return next(line.line for line in reversed(program.line_info) if line.insn <= slot)


@pytest.mark.parametrize("opt", [0, 1, 2])
@pytest.mark.parametrize("mcpu", ["v1", "v3", "v4"])
def test_every_statement_has_its_line(opt: int, mcpu: str) -> None:
    program = load(compile_text(SOURCE, "lines.lisp", opt=opt, mcpu=mcpu), name="t")["p"]
    stores, loads = {}, {}
    for slot, insn in enumerate(program.code):
        if insn is None:
            continue
        if insn.row.kind in (Kind.STORE, Kind.STORE_IMM) and insn.dst != 10:
            stores[insn.off] = line_of(program, slot)
        if insn.row.kind is Kind.LOAD and insn.src != 10:
            loads[insn.off] = line_of(program, slot)
    assert {off: stores.get(off) for off in STORES} == STORES
    assert {off: loads.get(off) for off in LOADS} == LOADS


def test_a_line_is_quoted_as_it_stands_in_the_source() -> None:
    program = load(compile_text(SOURCE, "lines.lisp"), name="t")["p"]
    lines = SOURCE.splitlines()
    for record in program.line_info:
        assert (record.file, record.text) == ("lines.lisp", lines[record.line - 1])
        assert 1 <= record.column <= len(record.text)
    assert program.line_info[0].insn == 0
