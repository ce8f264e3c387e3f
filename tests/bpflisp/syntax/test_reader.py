"""The reader: every literal, spans, packages, and what is wrong with a text."""

from fractions import Fraction

import pytest

from bpflisp.diagnostics import Source
from bpflisp.syntax.forms import Character, Cons, FormError, element_span, text
from bpflisp.syntax.reader import END, Reader


def read(source: str) -> object:
    return Reader(Source("t", source), lambda form: form).read()


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("42", "42"),
        ("-42", "-42"),
        ("+42", "42"),
        ("42.", "42"),
        ("#xFf", "255"),
        ("#x-1F", "-31"),
        ("#b1010", "10"),
        ("#o17", "15"),
        ("#3r201", "19"),
        ("#36rZZ", "1295"),
        ("4/6", "2/3"),
        ("1.5", "1.5"),
        ("1e3", "1000.0"),
        ("2d0", "2.0"),
        ("1+", "1+"),
        ("Foo-Bar", "foo-bar"),
        ("whistler:foo", "foo"),
        ("whistler::foo", "foo"),
        ("#:foo", "foo"),
        (":key", ":key"),
        ('"a\\"b\\\\"', '"a\\"b\\\\"'),
        ("'a", "'a"),
        ("#'car", "#'car"),
        ("`(a ,b ,@c)", "`(a ,b ,@c)"),
        ("(a . b)", "(a . b)"),
        ("(a b . (c d))", "(a b c d)"),
        ("()", "nil"),
        ("nil", "nil"),
        ("#(1 2)", "#(1 2)"),
        ("#\\a", "#\\a"),
        ("#\\Space", "#\\space"),
        ("; comment\n 7", "7"),
        ("#| block #| nested |# |# 7", "7"),
        ("(1 #| inside |# 2)", "(1 2)"),
        ("#+bpflisp 1 2", "1"),
        ("#-bpflisp 1 2", "2"),
        ("(#+sbcl 1 2)", "(2)"),
        ("#+(or sbcl bpflisp) 1 2", "1"),
        ("#+(and sbcl bpflisp) 1 2", "2"),
        ("#+(not sbcl) 1 2", "1"),
        ("#+sbcl #.(error) 2", "2"),
        ("|Foo bar|", "foo bar"),
    ],
)
def test_reads(source: str, shown: str) -> None:
    assert text(read(source)) == shown


def test_kinds() -> None:
    assert read("4/6") == Fraction(2, 3)
    assert read("#\\Newline") == Character("\n")
    assert read("foo") is read("FOO")
    assert read("|foo|") is not read("foo")
    assert read("  ; nothing") is END


def test_spans() -> None:
    form = read("(foo\n  (bar 12)  baz)")
    assert isinstance(form, Cons)
    assert form.span is not None
    assert (form.span.line, form.span.column, form.span.end) == (1, 1, 21)
    inner = form.cdr
    assert isinstance(inner, Cons)
    span = element_span(inner)
    assert span is not None
    assert (span.line, span.column, span.text) == (2, 3, "(bar 12)")
    last = inner.cdr
    assert isinstance(last, Cons)
    assert last.car_span is not None
    assert (last.car_span.line, last.car_span.column, last.car_span.text) == (2, 13, "baz")


@pytest.mark.parametrize(
    ("source", "code", "column"),
    [
        ("(a b", "unclosed-paren", 1),
        ("(a (b)", "unclosed-paren", 1),
        (")", "unmatched-paren", 1),
        ('"abc', "unclosed-string", 1),
        ("#| a", "unclosed-comment", 1),
        ("'", "end-of-text", 1),
        ("(a . )", "unmatched-paren", 6),
        ("( . a)", "stray-dot", 3),
        ("(a . b c)", "stray-dot", 8),
        ("#xg", "bad-number", 1),
        ("#40r1", "bad-number", 1),
        ("1/0", "bad-number", 1),
        ("#<foo>", "bad-dispatch", 1),
        ("foo:", "bad-symbol", 1),
        ("(" * 400 + ")" * 400, "too-deep", 301),
        ("'" * 400 + "a", "too-deep", 301),
    ],
)
def test_errors(source: str, code: str, column: int) -> None:
    with pytest.raises(FormError) as caught:
        read(source)
    diagnostic = caught.value.diagnostic
    assert diagnostic.code == code
    assert diagnostic.span is not None
    assert diagnostic.span.column == column


def test_reading_goes_on_after_an_error() -> None:
    reader = Reader(Source("t", "(a #xg)\n(b)"))
    with pytest.raises(FormError):
        reader.read()
    reader.recover()
    assert text(reader.read()) == "(b)"
    assert reader.read() is END
