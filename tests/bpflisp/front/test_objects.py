"""Subprograms, callbacks, globals and strings, by running programs."""

import pytest

from bpflisp import CompileError, compile_text
from bpflisp.diagnostics import Source
from bpflisp.driver import compile_source
from simulator.loader import load
from simulator.run import run
from simulator.world import World
from tests.bpflisp.front.running import PACKET, engines, loaded, result, value
from tests.engines import HERE

ONE = "(ctx ingress-ifindex)"


@pytest.mark.parametrize("scope", ["", "(declare (global))"])
def test_subprogram(scope: str) -> None:
    before = f"(defsubprog weigh (a (b u8) (c i16)) {scope} (+ (* 10 a) b (if (s< c 0) 1000 0)))"
    assert value(f"(weigh (+ 1 {ONE}) (+ {ONE} 260) (- {ONE} 5))", before) == 20 + 5 + 1000


def test_subprogram_returns_early() -> None:
    before = "(defsubprog clamp (x) (when (> x 9) (return 9)) x)"
    assert value(f"(+ (clamp (+ {ONE} 50)) (* 100 (clamp {ONE})))", before) == 109


def test_subprogram_with_context_and_pointer() -> None:
    source = """
    (defstruct pair (a u32) (b u64))
    (defsubprog fill ((c ctx) (p (ptr pair)))
      (setf (pair-b p) (+ (pair-a p) (ctx ingress-ifindex)))
      0)
    (defprog p ()
      (let ((x (make-pair)))
        (setf (pair-a x) 6)
        (fill (ctx-ptr) x)
        (pair-b x)))"""
    assert result(source) == 7


@pytest.mark.parametrize("scope", ["", "(declare (global))"])
def test_subprogram_with_the_context_alone(scope: str) -> None:
    """The kernel verifies a global one by its signature, of which the context is the structure of that name."""
    before = f"(defsubprog arrived ((c ctx) (by u32)) {scope} (+ by (ctx ingress-ifindex)))"
    assert value("(+ (arrived (ctx-ptr) 40) (arrived (ctx-ptr) 1))", before) == 43


def test_subprogram_of_subprogram_and_two_programs() -> None:
    source = """
    (defsubprog one () 1)
    (defsubprog two () (+ (one) (one)))
    (defprog p () (+ (two) (one)))
    (defprog q () (two))"""
    assert result(source) == 3
    assert result(source, name="q") == 2


def test_global_subprogram_that_nothing_calls_is_kept() -> None:
    with_global = compile_text("(defsubprog f (x) (declare (global)) x) (defprog p () 1)")
    without = compile_text("(defsubprog f (x) x) (defprog p () 1)")
    assert len(with_global) > len(without)


def test_bpf_loop() -> None:
    source = """
    (defstruct state (sum u64) (limit u64))
    (defsubprog step (index (s (ptr state)))
      (setf (state-sum s) (+ (state-sum s) index))
      (>= index (state-limit s)))
    (defprog p ()
      (let ((s (make-state)))
        (setf (state-limit s) 4)
        (bpf-loop 100 step s 0)
        (state-sum s)))"""
    assert result(source) == 10


GLOBALS = """
(defglobal counter u64)
(defglobal start u32 40)
(defglobal limit u16 7 :constant t)
(defglobal table (array u16 4) '(10 20 30 40))
(defglobal name (array u8 8) "abc" :constant t)
(defstruct pair (a u32) (b u64))
(defglobal state pair)
(defglobal low i8 -3)
(defglobal pairs (array pair 3))
(defglobal grid (array (array u16 3) 2) '((1 2 3) (4 5 6)))
(defenum colour RED (GREEN 5) BLUE)
(defsubprog shade ((c colour)) (+ c 1))
(defsubprog second-of ((p (ptr pair)))
  (declare (global))
  (if p (pair-b p) 77))
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("counter", 0),
        ("(progn (incf counter 5) (incf counter) counter)", 6),
        ("(+ start limit)", 47),
        ("(progn (setf start 1) start)", 1),
        ("(aref table 2)", 30),
        (f"(aref table (logand {ONE} 3))", 20),
        (f"(progn (setf (aref table (logand {ONE} 3)) 5) (incf (aref table 1) 2) (aref table 1))", 7),
        ("(aref name 2)", 99),
        ("(progn (setf (pair-b state) 9) (pair-b (addr-of state)))", 9),
        ("(progn (atomic-add (addr-of counter) 0 3) counter)", 3),
        ("(s< low 0)", 1),
        ("(let ((counter 5)) counter)", 5),
        ("(progn (setf (pair-b (aref pairs 2)) 9) (+ (pair-b (aref pairs 2)) (pair-b (aref pairs 1))))", 9),
        (f"(progn (incf (pair-b (aref pairs (logand {ONE} 1))) 4) (pair-b (aref pairs 1)))", 4),
        ("(aref grid 1 2)", 6),
        (f"(aref grid (logand {ONE} 1) 1)", 5),
        (f"(aref grid 1 (logand {ONE} 1))", 5),
        ("(progn (setf (aref grid 0 1) 9) (incf (aref grid 0 1)) (+ (load u16 (aref grid 0) 2) (aref grid 0 1)))", 20),
        ("(let ((c colour GREEN) (p (struct-alloc 8))) (store colour p 0 BLUE) (+ c (load colour p)))", 11),
        ("(+ (cast colour #x100000005) (shade BLUE) (sizeof colour))", 16),
        ("(let ((p (make-pair))) (setf (pair-b p) 8) (second-of p))", 8),
    ],
)
def test_global(body: str, expected: int) -> None:
    assert value(body, GLOBALS) == expected


def test_sections_of_globals() -> None:
    names = set(loaded(f"{GLOBALS}(defprog p () (+ counter start limit))").maps)
    assert {name.rsplit(".", 1)[-1] for name in names} == {"bss", "data", "rodata"}


def test_trace_printk() -> None:
    source = '(defprog p () (trace-printk "one %d two %x" 7 255) (trace-printk "plain") 0)'
    program = loaded(source)["p"]
    for engine in HERE:
        outcome = run(program, PACKET, World(), engine)
        assert list(outcome.trace) == ["one 7 two ff", "plain"]


def test_trace_printk_with_a_string_and_with_many_values() -> None:
    source = '(defprog p () (trace-printk "%s %d" "port" 80) (trace-printk "%d %d %d %d %x" 1 2 3 4 255) 0)'
    program = loaded(source)["p"]
    for engine in ("reference", "python"):
        outcome = run(program, PACKET, World(), engine)
        assert list(outcome.trace) == ["port 80", "1 2 3 4 ff"]


def test_a_subprogram_may_stand_before_the_struct_of_its_parameter() -> None:
    source = """
    (defsubprog twice ((p (ptr pair))) (* 2 (pair-b p)))
    (defstruct pair (a u32) (b u64))
    (defprog p () (let ((x (make-pair))) (setf (pair-b x) 21) (twice x)))"""
    assert result(source) == 42


LOCKED = """
(defstruct entry (n u64) (lock bpf-spin-lock))
(defmap m :type :array :key-size 4 :value-type entry :max-entries 1)
(defprog p ()
  (when-let ((e (getmap m 0)))
    (spin-lock (entry-lock-ptr e))
    (incf (entry-n e) 5)
    (spin-unlock (entry-lock-ptr e))
    (return (entry-n e)))
  0)
"""

TIMED = """
(defstruct entry (n u64) (t bpf-timer))
(defmap m :type :array :key-size 4 :value-type entry :max-entries 1)
(defsubprog fired ((map ptr) (key ptr) (e (ptr entry))) (incf (entry-n e)) 0)
(defprog p ()
  (when-let ((e (getmap m 0)))
    (timer-init (entry-t-ptr e) m 1)
    (timer-set-callback (entry-t-ptr e) fired)
    (return (timer-start (entry-t-ptr e) 1000000 0)))
  9)
"""

DYNPTR = """
(defmap r :type :ringbuf :max-entries 4096)
(defprog p ()
  (let ((d (struct-alloc 16)) (b (struct-alloc 8)))
    (ringbuf-reserve-dynptr r 8 0 d)
    (when-let ((x (dynptr-data d 0 8))) (store u64 x 0 5))
    (dynptr-read b 8 d 0 0)
    (ringbuf-discard-dynptr d 0)
    (load u64 b)))
"""


@pytest.mark.parametrize(
    ("source", "expected"), [(LOCKED, 5), (TIMED, 0), (DYNPTR, 5)], ids=["lock", "timer", "dynptr"]
)
def test_what_the_kernel_manages(source: str, expected: int) -> None:
    assert result(source) == expected


def test_strncmp() -> None:
    source = """
    (defprog p (:type :kprobe :section "kprobe/f")
      (let ((b (struct-alloc 8)))
        (store u32 b 0 #x636261)
        (+ (strncmp b 4 "abc") (* 10 (/= 0 (strncmp b 4 "abd"))))))"""
    assert load(compile_text(source))["p"].type == "kprobe"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("(defsubprog f (x) (f x)) (defprog p () (f 1))", "recursion"),
        ("(defsubprog f (x) (g x)) (defsubprog g (x) (f x)) (defprog p () (f 1))", "recursion"),
        ("(defsubprog f (x) x) (defprog p () (f))", "argument-count"),
        ("(defsubprog f (a b c d e g) 0) (defprog p () 0)", "argument-count"),
        ("(defsubprog f () (ctx data)) (defprog p () (f))", "no-context"),
        ("(defsubprog f ((p ptr)) 0) (defprog p () (f 5))", "argument-kind"),
        ("(defsubprog f ((p nothing)) 0) (defprog p () (f 5))", "bad-parameter"),
        ("(defsubprog f () (skb-load-bytes 0 0 0 0)) (defprog p () (f))", "helper-not-allowed"),
        ("(defsubprog f () nowhere) (defprog p () 0)", "unbound-variable"),
        ("(defprog p () (bpf-loop 5 nobody 0 0))", "unknown-subprogram"),
        ("(defglobal g u8 300) (defprog p () g)", "bad-value"),
        ("(defglobal g (array u8 2) '(1 2 3)) (defprog p () 0)", "bad-value"),
        ("(defglobal g u8 3 :constant t) (defprog p () (setf g 1))", "constant-assigned"),
        ("(defglobal g (array u8 2)) (defprog p () (setf g 1))", "bad-place"),
        ("(defglobal g (array u8 2)) (defprog p () (aref g 2))", "array-index"),
        ("(defglobal p u8) (defprog p () 0)", "duplicate"),
        ("(defprog p () (addr-of x))", "unknown-global"),
    ],
)
def test_errors(text: str, code: str) -> None:
    with pytest.raises(CompileError) as caught:
        compile_text(text)
    assert code in [d.code for d in caught.value.errors]


def test_uncalled_subprogram_is_warned_of() -> None:
    warnings = compile_source(Source("t", "(defsubprog f (x) x) (defprog p () 1)")).warnings
    assert [w.code for w in warnings] == ["never-called"]


def test_engines_are_those_of_this_machine() -> None:
    assert set(HERE) <= set(engines())
