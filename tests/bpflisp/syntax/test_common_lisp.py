"""Forms of Common Lisp at compile time give what a Common Lisp gives: fixtures/lisp/forms.lisp has its answers."""

import re
from pathlib import Path

import pytest

from bpflisp.syntax.forms import FormError, text
from tests.bpflisp.syntax.test_lisp_library import evaluated

FORMS = Path(__file__).parents[3] / "fixtures" / "lisp" / "forms.lisp"
CASES = re.findall(r"^(?!;)(.+)\n; => (.*)$", FORMS.read_text(), re.MULTILINE)


def answer(source: str) -> str:
    try:
        return text(evaluated(source), 10_000)
    except FormError:
        return "ERROR"


@pytest.mark.parametrize(("source", "expected"), CASES, ids=range(len(CASES)))
def test_it_gives_what_common_lisp_gives(source: str, expected: str) -> None:
    written = re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], expected)
    assert answer(source) == written, source


def test_there_are_cases() -> None:
    assert len(CASES) > 800
