"""What programs have of Common Lisp beyond the book: each form by its value, on every engine."""

import pytest

from bpflisp.diagnostics import Source
from bpflisp.driver import compile_source
from tests.bpflisp.front.running import result, value

ONE = "(ctx ingress-ifindex)"

FORMS = [
    (f"(1+ {ONE})", 2),
    (f"(+ 5 (1- {ONE}))", 5),
    (f"(+ (zerop {ONE}) (* 10 (zerop (1- {ONE}))))", 10),
    (f"(+ (min 5 {ONE} 9) (max 2 {ONE} 7))", 8),
    ("(let ((n 0)) (+ (min (incf n) 5) (* 10 n)))", 11),
    (f"(min {ONE} (- 0 1))", 1),
    (f"(eq {ONE} 1)", 1),
    (f"(logand (lognot {ONE}) 255)", 254),
    (f"(+ (evenp {ONE}) (* 2 (oddp {ONE})))", 2),
    (f"(+ (logtest {ONE} 3) (logtest {ONE} 6))", 1),
    (f"(+ (logbitp 0 {ONE}) (logbitp 1 {ONE}))", 1),
    (f"(rem 17 (+ 4 {ONE}))", 2),
    ("(let ((x 1)) (+ (* 10 (prog1 x (setf x 5))) x))", 15),
    ("(let ((x 1) (y 2)) (setq x 4 y x) y)", 4),
    ("(let ((x 1) (y 2)) (psetf x y y x) (+ (* 10 x) y))", 21),
    ("(let ((i 0) (p (struct-alloc 16))) (psetf i 8 (load u8 (+ p i)) 5) (+ i (load u8 p)))", 13),
    ("(let ((x 1) (y 2) (z 3)) (rotatef x y z) (+ (* 100 x) (* 10 y) z))", 231),
    ("(macrolet ((dbl (x) `(* 2 ,x))) (macrolet ((q (x) `(dbl (dbl ,x)))) (q 4)))", 16),
    ("(let ((x 300)) (declare (type (unsigned-byte 8) x)) x)", 44),
]

LOOPS = [
    (f"(let ((s 0) (n (logand (+ {ONE} 4) 7))) (dotimes (i n) (incf s i)) s)", 10),
    (f"(let ((s 0)) (dotimes (i (logand {ONE} 3) (+ i 10 s)) (incf s 5)))", 16),
    (f"(let ((s 0)) (dotimes (i (+ 5 (logand {ONE} 3))) (when (= i 3) (break)) (incf s 5)) s)", 15),
    (f"(let ((s 0) (n i8 (cast i8 (- {ONE} 4)))) (dotimes (i n) (incf s)) s)", 0),
    ("(let ((n 3) (s 0)) (dotimes (i n) (setf n 100) (incf s)) s)", 3),
    ("(let ((s 0)) (dotimes (i 3 (+ s i)) (incf s i)))", 6),
    ("(let ((i 0) (s 0)) (until (>= i 10) (incf s i) (incf i)) s)", 45),
    ("(let ((s 0)) (dolist (x '(1 2 3 4)) (when (= x 2) (continue)) (when (= x 4) (break)) (incf s x)) s)", 4),
    ("(let ((s 0)) (dolist (x +ports+) (incf s x)) s)", 523),
    ("(let ((s 0)) (dolist (x '(1 2)) (dolist (y '(10 20)) (incf s (* x y)))) s)", 90),
    ("(let ((s 0)) (dolist (x '(1 2)) (dotimes (i 3) (when (= i x) (break)) (incf s 1))) s)", 3),
    ("(dolist (x '(3 4 5)) (when (> x 3) (return x)))", 4),
    ("(dolist (x nil) (return 5))", 0),
    # A mask that bounds a loop stays, also where it changes nothing: the verifier knows nothing of remainders.
    (f"(let ((a u8 (1+ {ONE})) (s 0)) (dotimes (i (logand (mod 3 a) 3)) (incf s 5)) s)", 5),
    (f"(let ((a u8 {ONE}) (s 0)) (dotimes (i (logand (mod 1 a) 3)) (unless (mod i 152) (break)) (incf s)) s)", 0),
]

ADDRESSES = [
    ("(let ((x u32 7)) (let ((p (stack-addr x))) (setf x 8) (+ x (* 10 (load u32 p)))))", 78),
    ("(let ((x u32 7)) (store u8 (stack-addr x) 1 1) x)", 263),
    ("(let ((x i8 7)) (store u8 (stack-addr x) 0 255) (s< x 0))", 1),
    ("(let ((x 7)) (setf x 9) (load u64 (stack-addr x)))", 9),
    (f"(let ((k 0)) (if {ONE} (store u32 (stack-addr k) 0 32)) k)", 32),
    (f"(let ((k 3)) (if (not {ONE}) (store u32 (stack-addr k) 0 32)) k)", 3),
    (
        "(let ((k 3) (s 0)) (dotimes (i 4) (incf s k) (store u32 (stack-addr k) 0 (+ 1 i)) (when (= i 2) (setf k 100)))"
        " (+ (* 1000 k) s))",
        4106,
    ),
    (f"(let ((a u32 {ONE}) (b i8 {ONE})) (store u8 (stack-addr b) 0 (and a (/= a (setf a b)))))", 0),
    ("(let ((s 0)) (dotimes (i 4) (let ((p (stack-addr i))) (store u64 p 0 (+ 10 (load u64 p))) (incf s i))) s)", 46),
]


@pytest.mark.parametrize(("body", "expected"), FORMS + LOOPS)
def test_form(body: str, expected: int) -> None:
    assert value(body, "(defconstant +ports+ '(80 443))") == expected


@pytest.mark.parametrize(("body", "expected"), ADDRESSES)
def test_a_variable_is_what_lies_at_its_address_until_it_is_assigned(body: str, expected: int) -> None:
    assert value(body) == expected


def test_a_key_that_is_written_through_its_address() -> None:
    before = "(defmap m :type :hash :key-size 8 :value-size 1 :max-entries 4)"
    body = """
    (let ((key 0))
      (store u32 (stack-addr key) 0 32)
      (store u32 (stack-addr key) 4 5)
      (setf (getmap m key) 9)
      (getmap m #x500000020))"""
    assert value(body, before) == 9


def test_an_own_macro_takes_precedence() -> None:
    assert value("(min 4 5)", "(defmacro min (a b) `(+ ,a ,b))") == 9


def test_defsetf() -> None:
    before = """
    (defmacro low (p) `(load u32 ,p 0))
    (defsetf high (p) (new) `(store u32 ,p 4 ,new))
    (defmacro high (p) `(load u32 ,p 4))
    (defsetf twice set-twice)
    (defmacro set-twice (p new) `(store u32 ,p 0 (* 2 ,new)))"""
    body = "(let ((p (struct-alloc 8))) (setf (high p) 7 (twice p) 4) (incf (high p) 2) (+ (* 10 (high p)) (low p)))"
    assert value(body, before) == 98


SESSION = """
(asdf:load-system "whistler/loader")
(in-package #:whistler)
(defun run (&optional (path "/lib/libffi.so"))
  (format *error-output* "loading~%")
  (whistler/loader:with-bpf-session ()
    (bpf:map seen :type :hash :key-size 4 :value-size 8 :max-entries 10)
    (bpf:prog p (:type :xdp)
      (incf (getmap seen 1))
      (getmap seen 1))
    (bpf:attach p path "ffi_call")
    (map 'list #'print (list 1 2))
    (handler-case (loop (sleep 1)) (error () nil))))
(run (second sb-ext:*posix-argv*))
"""


def test_the_bpf_part_of_a_session_is_compiled() -> None:
    assert result(SESSION) == 1
    assert [w.code for w in compile_source(Source("t.lisp", SESSION)).warnings] == ["host-part"]


RECORDS = "(defstruct g (m (array (array u16 2) 2)))(defstruct s (a u8) (b (array u8 3)) (c i32) (d (array u16 2)))\n"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("#.(length (encode-s (make-s-record :a 1)))", 12),
        ("#.(aref (encode-s (make-s-record :b (vector 7 8 9))) 2)", 8),
        ("#.(let ((r (make-s-record :a 1))) (setf (s-record-a r) 6) (incf (s-record-a r)) (s-record-a r))", 7),
        ("#.(aref (encode-g (make-g-record :m '((1 2) (3 4)))) 6)", 4),
        ("#.(aref (aref (g-record-m (decode-g #(1 0 2 0 3 0 4 0))) 1) 0)", 3),
        ("#.(s-record-c (decode-s (encode-s (make-s-record :c -5))))", -5 & 0xFFFFFFFF),
        ("#.(aref (s-record-d (decode-s (append '(0 0) (coerce (encode-s (make-s-record :d '(1 2))) 'list)) 2)) 1)", 2),
    ],
)
def test_records_at_compile_time(body: str, expected: int) -> None:
    assert value(body, RECORDS) == expected


def test_a_variable_that_grows_in_a_loop_is_not_taken_for_narrow() -> None:
    text = """
    (defprog p (:type :xdp)
      (with-packet (data end :min-len 1)
        (let ((x (load u8 data)))
          (dotimes (i 4)
            (when (= x 300) (return 1))
            (setf x (+ x 100)))))
      2)"""
    assert compile_source(Source("t", text)).warnings == ()
