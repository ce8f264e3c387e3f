"""Whatever the text, compiling gives an object or says what is wrong: no other exception, and it ends."""

import os
import random
import re
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpflisp import CompileError, compile_text

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
