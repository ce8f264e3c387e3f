"""`block`, `flet`, `labels`, `symbol-macrolet`: what they mean, on every engine."""

import pytest

from bpflisp import compile_text
from simulator.loader import load
from tests.bpflisp.front.running import value

ONE = "(ctx ingress-ifindex)"
BEFORE = """
(defmap m :type :hash :key-size 4 :value-size 8 :max-entries 4)
(defmap r :type :ringbuf :max-entries 4096)
(define-symbol-macro first-count (getmap m 1))
"""

BLOCKS = [
    ("(block nil 3)", 3),
    (f"(+ 1 (block foo (when {ONE} (return-from foo 4)) 2))", 5),
    (f"(+ 1 (block foo (when (= 2 {ONE}) (return-from foo 4)) 2))", 3),
    ("(+ 1 (block foo (return-from foo)))", 1),
    ("(block a (block b (return-from a 3)) 4)", 3),
    ("(+ 1 (block a (dotimes (i 10) (when (= i 5) (return-from a i))) 77))", 6),
    ("(block a (return 5) 6)", 5),
    ("(+ 2 (block a (with-ringbuf (e r 8) (store u64 e 0 1) (return-from a 5)) 3))", 7),
    ("(let ((p (block a (when-let ((p (map-lookup m 1))) (return-from a p)) 0))) (if p (load u64 p) 9))", 9),
]

FUNCTIONS = [
    ("(flet ((f (x) (+ x 1))) (f 5))", 6),
    ("(flet ((f () 7)) (+ (f) (f)))", 14),
    (f"(let ((y {ONE})) (flet ((f (x) (incf y x))) (let ((y 100)) (f 5) (f y)) y))", 106),
    ("(labels ((f (x) (+ x 1)) (g (x) (f (f x)))) (g 5))", 7),
    ("(flet ((f (x) 1)) (flet ((f (x) (+ 1 (f x)))) (f 0)))", 2),
    (f"(flet ((f (x) (when (= x {ONE}) (return-from f 9)) x)) (+ (f 1) (* 100 (f 3))))", 309),
    (f"(flet ((f ((x u8)) x)) (f (+ 299 {ONE})))", 44),
    (f"(flet ((f (x) (declare (type i8 x)) x)) (s< (f (+ 199 {ONE})) 0))", 1),
    ("(flet ((f (x) (return x))) (f 5) 6)", 5),
    ("(flet ((f () (dotimes (i 3) (break)) 2)) (dotimes (i 2) (f)) 7)", 7),
    ("(dotimes (i 5) (flet ((f () (when (= i 3) (return i)) (continue))) (f)))", 3),
    ("(+ (with-ringbuf (e r 8) (flet ((f () (store u64 e 0 1) (return 4))) (f)) 5) 3)", 4),
]

SYMBOLS = [
    ("(symbol-macrolet ((x (+ 1 2))) (* x 2))", 6),
    ("(symbol-macrolet ((x (getmap m 1))) (setf x 5) (incf x) (incf x) x)", 7),
    ("(symbol-macrolet ((x 5)) (let ((x 6)) (+ x (symbol-macrolet ((x 1)) x))))", 7),
    ("(let ((x 6)) (symbol-macrolet ((x 1)) x))", 1),
    ("(progn (setf first-count 4) (incf first-count) (let ((first-count 2)) (+ first-count (getmap m 1))))", 7),
]


@pytest.mark.parametrize(("body", "expected"), BLOCKS + FUNCTIONS + SYMBOLS)
def test_value(body: str, expected: int) -> None:
    assert value(body, BEFORE) == expected


def test_a_local_function_is_no_subprogram() -> None:
    """Its body stands at the call: the object has the one function."""
    elf = compile_text("(defprog p () (flet ((f (x) (* x 5))) (f (f (ctx ingress-ifindex)))))")
    assert load(elf)["p"].verify("6.18").accepted
    assert len(load(elf)) == 1
