"""Whatever the text, compiling gives an object or says what is wrong: no other exception, and it ends."""

import os
import random
import re
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpflisp import CompileError, compile_text
from bpflisp.front import check_all
from bpflisp.front.check import CORE, LIBRARY
from bpflisp.front.check_helpers import call_helper
from bpflisp.syntax import special

FIXTURES = Path(__file__).parents[3] / "fixtures"
EXAMPLES = int(os.environ.get("BPFLISP_FUZZ", "60"))
TOKEN = re.compile(r"\s+|;[^\n]*|[()'`]|,@?|\"[^\"]*\"|[^\s()'`,\";]+")
SOURCES = [
    TOKEN.findall(path.read_text())
    for path in sorted([*FIXTURES.glob("programs/*/program.lisp"), *FIXTURES.glob("errors/*.lisp")])
]
WORDS = sorted({token for tokens in SOURCES for token in tokens if token.strip() and not token.startswith(";")})


def compiles_or_tells(text: str) -> None:
    problem: CompileError | None = None
    try:
        elf = compile_text(text)
    except CompileError as caught:
        problem = caught
    if problem is None:
        assert elf.startswith(b"\x7fELF")
    else:
        assert problem.errors
        assert all(d.render() for d in problem.diagnostics)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text())
def test_random_text(text: str) -> None:
    compiles_or_tells(text)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from([*WORDS, "(", ")", "(", ")", " "]), max_size=40))
def test_random_words_in_a_program(words: list[str]) -> None:
    compiles_or_tells("(defprog p (:type :xdp)\n" + " ".join(words) + ")")


@settings(max_examples=EXAMPLES * 2, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_mutated_programs(seed: int) -> None:
    chooser = random.Random(seed)
    tokens = list(chooser.choice(SOURCES))
    for _ in range(chooser.randint(1, 4)):
        at = chooser.randrange(len(tokens))
        match chooser.randrange(4):
            case 0:
                del tokens[at]
            case 1:
                tokens.insert(at, " " + chooser.choice(WORDS) + " ")
            case 2:
                tokens[at] = " " + chooser.choice(WORDS) + " "
            case _:
                other = chooser.randrange(len(tokens))
                tokens[at], tokens[other] = tokens[other], tokens[at]
        if not tokens:
            break
    compiles_or_tells("".join(tokens))


# Every form, with arguments of every shape

SHAPES = [
    "", "x", "5", "(x)", "((x))", "x y", "5 5 5", "() ()", "(x y z)", "((x 1)) y", "(5) 5", '"a" "b"', "nil nil nil",
    "(a . b) c", "((a . b)) c", ":x :y", "u8 m 0 1", "m 1 2", "(v m 8) 1", "(v m 8 :flags) 1", "((f (x) x)) (f 1)",
    "((f)) (f)", "s x a", "s x a 5", "'(1 2)", "(i '(1 2)) i", "(i '(a)) i", "x . y",
]  # fmt: skip
OPTIONS = [
    "", "x", "x (y)", "x ((y))", "x (y u8)", "x (:type)", "x (:type :xdp) . 5", "x :type", "x :type :hash :key-size",
    "x (a (array u8))", "x (a (array (array) 1))", "x (a :offset)", "x (a :offset x :type u8)", "x u8 5 :constant",
    "x (array (array u8 2) 2) '(1 2)", "x ((a b c)) 1", "x (A (B) C)", "() (bpf:map) (bpf:prog)", '"a" "b"',
    "x :type :prog-array :key-size 4 :value-size 4 :max-entries 3 :programs 5",
    "x :type :prog-array :key-size 4 :value-size 4 :max-entries 3 :programs ((1))",
]  # fmt: skip
BODY = """(defmap m :type :hash :key-size 4 :value-size 8 :max-entries 4) (defstruct s (a u32) (b (array u8 3)))
(defprog p () (let ((x 5)) ({} {})))"""
MACRO = "(defmacro m () ({} {})) (defprog p () (m))"
TOP = "({} {}) (defprog p () 0)"


def malformed() -> list[str]:
    check_all.load()
    in_bodies = [name.lower() for name, handler in {**CORE, **LIBRARY}.items() if handler is not call_helper]
    in_macros = [name.name.lower() for name in special.table()]
    at_the_top = ["defmap", "defprog", "defstruct", "defunion", "defheader", "defenum", "defglobal", "defsubprog",
                  "include", "with-bpf-session"]  # fmt: skip
    made = [BODY.format(name, shape) for name in in_bodies for shape in SHAPES]
    made += [MACRO.format(name, shape) for name in in_macros for shape in SHAPES]
    return made + [TOP.format(name, shape) for name in at_the_top for shape in OPTIONS]


def test_malformed_forms() -> None:
    """A sample of them, ten times as many as of random texts."""
    texts = malformed()
    assert len(texts) > 8000
    for text in random.Random(EXAMPLES).sample(texts, min(EXAMPLES * 10, len(texts))):
        compiles_or_tells(text)
