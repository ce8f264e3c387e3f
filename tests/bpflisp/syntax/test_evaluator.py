"""Common Lisp at compile time: each form, the lambda lists, backquote, `loop`, `format`; and that all of it ends."""

import pytest

from bpflisp.diagnostics import Source
from bpflisp.syntax.evaluator import Interpreter
from bpflisp.syntax.forms import FormError, text
from bpflisp.syntax.reader import END, Reader


def evaluated(source: str) -> str:
    interpreter = Interpreter()
    reader = Reader(Source("t", source), interpreter.toplevel)
    value: object = None
    while (form := reader.read()) is not END:
        value = interpreter.toplevel(form)
    return text(value, 2000)


CASES = [
    ("(+ 1 2 3)", "6"),
    ("(/ 6 4)", "3/2"),
    ("(expt 2 100)", str(2**100)),
    ("(ash 1 70)", str(1 << 70)),
    ("(ash -8 -1)", "-4"),
    ("(floor 7 2)", "3"),
    ("(multiple-value-list (floor -7 2))", "(-4 1)"),
    ("(multiple-value-list (truncate -7 2))", "(-3 -1)"),
    ("(mod -7 2)", "1"),
    ("(rem -7 2)", "-1"),
    ("(logand 12 10)", "8"),
    ("(integer-length 255)", "8"),
    ("(< 1 2 3)", "t"),
    ("(= 1 1 2)", "nil"),
    ("(min 3 1 2)", "1"),
    ("(if nil 1)", "nil"),
    ("(cond (nil 1) ((+ 1 1)) (t 3))", "2"),
    ("(case 'b (a 1) ((b c) 2) (t 3))", "2"),
    ("(case 9 (1 2) (otherwise 3))", "3"),
    ("(let ((x 1) (y 2)) (setf x 5) (list x y))", "(5 2)"),
    ("(let* ((x 1) (y (+ x 1))) (psetq x y y x) (list x y))", "(2 1)"),
    ("(let ((l (list 1 2 3))) (setf (second l) 9) (push 0 l) (pop l) l)", "(1 9 3)"),
    ("(let ((l nil)) (setf (getf l :a) 1) (getf l :a))", "1"),
    ("(let ((h (make-hash-table :test 'equal))) (setf (gethash '(1 2) h) 5) (incf (gethash '(1 2) h) 2) "
     "(gethash (list 1 2) h))", "7"),
    ("(multiple-value-bind (v p) (gethash 1 (make-hash-table)) (list v p))", "(nil nil)"),
    ("(funcall (lambda (x &optional (y 2) &key (z 3) w) (list x y z w)) 1 5 :w 9)", "(1 5 3 9)"),
    ("(defun f (a &rest r &key b &allow-other-keys) (list a b r)) (f 1 :b 2 :c 3)", "(1 2 (:b 2 :c 3))"),
    ("(defun f (a &aux (b (* a 2))) (list a b)) (f 4)", "(4 8)"),
    ("(defmacro m ((a (b c)) &body body) `(list ,a ,b ,c ,@body)) (m (1 (2 3)) 4 5)", "(1 2 3 4 5)"),
    ("(defmacro m (&whole w a . r) `',(list a r (length w))) (m 1 2 3)", "(1 (2 3) 4)"),
    ("(defmacro m (&key (a 1 a-p)) (list 'list a (if a-p t nil))) (list (m) (m :a 2))", "((1 nil) (2 t))"),
    ("(destructuring-bind (a (b &optional c) . d) '(1 (2) 3 4) (list a b c d))", "(1 2 nil (3 4))"),
    ("`(1 ,(+ 1 1) ,@(list 3 4) . 5)", "(1 2 3 4 . 5)"),
    ("`#(1 ,(+ 1 1))", "#(1 2)"),
    ("(let ((x '(1 2))) `(a ,@x))", "(a 1 2)"),
    ("`(a `(b ,(c ,(+ 1 2))))", "(a `(b ,(c 3)))"),
    ("(let ((x 'y)) `(a `(b ,',x)))", "(a `(b ,'y))"),
    ("(let ((l '(1 2))) `(a `(b ,@',l)))", "(a `(b ,@'(1 2)))"),
    ("(defmacro def (n) `(defmacro ,n (x) `(+ ,x ,,5))) (def plus5) (plus5 2)", "7"),
    ("(flet ((f (x) (* x 2))) (f 4))", "8"),
    ("(labels ((even (n) (if (= n 0) t (odd (- n 1)))) (odd (n) (if (= n 0) nil (even (- n 1))))) (even 10))", "t"),
    ("(macrolet ((twice (x) `(* 2 ,x))) (twice 4))", "8"),
    ("(block b (dotimes (i 10) (when (= i 4) (return-from b i))))", "4"),
    ("(defun f (x) (when x (return-from f 5)) 6) (list (f t) (f nil))", "(5 6)"),
    ("(dolist (x '(1 2 3) 'done) x)", "done"),
    ("(let ((s 0)) (dotimes (i 4 s) (incf s i)))", "6"),
    ("(do ((i 0 (+ i 1)) (l nil (cons i l))) ((= i 3) l))", "(2 1 0)"),
    ("(mapcar #'+ '(1 2 3) '(10 20 30))", "(11 22 33)"),
    ("(mapcan (lambda (x) (list x x)) '(1 2))", "(1 1 2 2)"),
    ("(reduce #'+ '(1 2 3) :initial-value 10)", "16"),
    ("(reduce #'max '(1 5 3))", "5"),
    ("(sort (list 3 1 2) #'<)", "(1 2 3)"),
    ("(sort '((b 2) (a 1)) #'< :key #'second)", "((a 1) (b 2))"),
    ("(remove-if #'evenp '(1 2 3 4))", "(1 3)"),
    ("(find 2 '((1 a) (2 b)) :key #'first)", "(2 b)"),
    ("(position 'c '(a b c))", "2"),
    ("(assoc 'b '((a . 1) (b . 2)))", "(b . 2)"),
    ("(member 2 '(1 2 3))", "(2 3)"),
    ("(some #'evenp '(1 2))", "t"),
    ("(every #'evenp '(1 2))", "nil"),
    ("(apply #'+ 1 '(2 3))", "6"),
    ("(append '(1) '(2 3) nil '(4))", "(1 2 3 4)"),
    ("(subseq '(1 2 3 4) 1 3)", "(2 3)"),
    ('(subseq "hello" 1 3)', '"el"'),
    ('(concatenate \'string "a" "b")', '"ab"'),
    ("(string-downcase 'foo)", '"foo"'),
    ("(intern (format nil \"~a-~a\" 'foo 'bar))", "foo-bar"),
    ("(symbolp 'a)", "t"),
    ("(typep 5 '(or string integer))", "t"),
    ("(eq (gensym) (gensym))", "nil"),
    ("(equal '(1 (2)) (list 1 (list 2)))", "t"),
    ("(loop for i from 1 to 5 collect i)", "(1 2 3 4 5)"),
    ("(loop for i from 5 downto 1 by 2 collect i)", "(5 3 1)"),
    ("(loop for i below 4 sum i)", "6"),
    ("(loop for x in '(1 2 3 4) when (evenp x) collect x else collect 0)", "(0 2 0 4)"),
    ("(loop for x in '(a b c) for i from 0 append (list x i))", "(a 0 b 1 c 2)"),
    ("(loop for (a b) in '((1 2) (3 4)) collect (+ a b))", "(3 7)"),
    ("(loop for (a . b) on '(1 2 3) collect (list a b))", "((1 (2 3)) (2 (3)) (3 nil))"),
    ("(loop for (a b) on '(1 2 3 4) by #'cddr collect (cons a b))", "((1 . 2) (3 . 4))"),
    ("(loop for c across \"ab\" collect (char-code c))", "(97 98)"),
    ("(loop with s = 0 for i from 1 to 3 do (incf s i) finally (return s))", "6"),
    ("(loop for i from 0 while (< i 3) maximize i)", "2"),
    ("(loop for x = 1 then (* x 2) until (> x 20) collect x)", "(1 2 4 8 16)"),
    ("(loop repeat 3 collect 'x)", "(x x x)"),
    ("(loop for x in '(1 2) collect x into a finally (return (reverse a)))", "(2 1)"),
    ("(loop for x in '(1 2 3) thereis (and (> x 1) x))", "2"),
    ("(loop for x in '(1 2 3) always (< x 4))", "t"),
    ("(loop for k being the hash-keys of (let ((h (make-hash-table))) (setf (gethash 1 h) 2) h) collect k)", "(1)"),
    ("(let ((n 0)) (loop (incf n) (when (= n 5) (return n))))", "5"),
    ('(format nil "~a ~s ~d ~x ~b ~o" "s" "s" 10 255 5 8)', '"s \\"s\\" 10 FF 101 10"'),
    ('(format nil "~5d|~5,\'0d|~:d|~@d" 42 42 1234567 5)', '"   42|00042|1,234,567|+5"'),
    ('(format nil "~{~a~^, ~}" \'(1 2 3))', '"1, 2, 3"'),
    ('(format nil "~:{~a=~a ~}" \'((a 1) (b 2)))', '"A=1 B=2 "'),
    ('(format nil "~[zero~;one~:;many~] ~:[no~;yes~]" 5 t)', '"many yes"'),
    ('(format nil "~(~a~) ~a~%~~" \'foo :key)', '"foo KEY\n~"'),
    ("(handler-case (error \"no\") (error (e) (list 'caught e)))", '(caught "no")'),
    ("(ignore-errors (error \"no\"))", "nil"),
    ("(defvar *x* 1) (defun f () *x*) (let ((*x* 2)) (list (f) *x*))", "(2 2)"),
    ("(eval-when (:compile-toplevel :load-toplevel) (defun f () 3)) (f)", "3"),
    ("#.(+ 1 2)", "3"),
    ("(defun g () 4) #.(g)", "4"),
    ("(macroexpand-1 '(foo))", "(foo)"),
    ("(values 1 2)", "1"),
    ("(prog1 1 2)", "1"),
    ("(coerce '(1 2) 'vector)", "#(1 2)"),
    ("(remove-duplicates '(1 2 1))", "(2 1)"),
    ("(string= 'foo \"FOO\")", "t"),
    ("(parse-integer \"ff\" :radix 16)", "255"),
    ("(nthcdr 2 '(1 2 3))", "(3)"),
    ("(last '(1 2 3))", "(3)"),
    ("(butlast '(1 2 3))", "(1 2)"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "shown"), CASES)
def test_value(source: str, shown: str) -> None:
    assert evaluated(source) == shown


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("(loop)", "runaway"),
        ("(defun f () (f)) (f)", "runaway"),
        ("(defun f (n) (+ 1 (f n))) (f 1)", "runaway"),
        ("(defmacro m () '(m)) (m)", "runaway"),
        ("(do () (nil))", "runaway"),
        ("(dotimes (i 100000000))", "runaway"),
        ("(expt 7 1000000000)", "too-big"),
        ("(ash 1 100000000000)", "too-big"),
        ("(let ((x 3)) (loop (setf x (* x x))))", "too-big"),
        ('(let ((s "ab")) (loop (setf s (concatenate \'string s s))))', "too-big"),
        ("(let ((s (list 1))) (loop (setf s (append s s))))", "too-big"),
        ("(make-list 100000000000)", "too-big"),
        ("(let ((x (list 1))) (setf (cdr x) x) (length x))", "too-big"),
        ("(let ((x (list 1))) (setf (car x) x) (equal x x) x)", "runaway"),
        ("(car 5)", "bad-argument"),
        ("(undefined 1)", "undefined-function"),
        ("(+ x 1)", "unbound-variable"),
        ("(+ 1 'a)", "bad-argument"),
        ("(/ 1 0)", "division-by-zero"),
        ("(mod 1 0)", "division-by-zero"),
        ("(defun f (a) a) (f)", "argument-count"),
        ("(defun f (&key a) a) (f :b 1)", "unknown-keyword"),
        ("(defmacro m (a) a) (m 1 2)", "argument-count"),
        ("(let ((5 1)) 2)", "bad-name"),
        ("(setf (foo) 1)", "bad-place"),
        ("(setf x)", "odd-setf"),
        (",x", "stray-comma"),
        ("(return 5)", "bad-return"),
        ("(error \"oh ~a\" 1)", "user-error"),
        ("(assert (= 1 2))", "assertion"),
        ("(format nil \"~q\" 1)", "bad-format"),
        ("(loop for x froom 1)", "bad-loop"),
        ("(aref #(1 2) 7)", "bad-argument"),
        ("(funcall 5)", "bad-call"),
    ],
)  # fmt: skip
def test_error(source: str, code: str) -> None:
    with pytest.raises(FormError) as caught:
        evaluated(source)
    assert caught.value.diagnostic.code == code
    assert caught.value.diagnostic.span is not None
