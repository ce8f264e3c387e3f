"""Each pass, text to text: `cases/PASS.txt` holds functions before and after, each pair under its name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bpflisp.ir.parse import parse_function
from bpflisp.ir.text import print_function
from bpflisp.ir.validate import validate
from bpflisp.opt import PASSES

CASES = Path(__file__).parent / "cases"
RUN = {step.name: step.run for step in PASSES}


def read_cases() -> Iterator[tuple[str, str, str, str]]:
    """(pass, title, before, after). A title follows `===`, the result `---`; functions need no first and last line."""
    for path in sorted(CASES.glob("*.txt")):
        for section in path.read_text().split("\n=== ")[1:]:
            title, _, text = section.partition("\n")
            before, _, after = text.partition("---\n")
            yield path.stem, title, before, after


def complete(body: str) -> str:
    return "program @f(%ctx) {\n" + body.strip("\n") + "\n}\n"


@pytest.mark.parametrize(
    ("name", "title", "before", "after"), [pytest.param(*c, id=f"{c[0]}: {c[1]}") for c in read_cases()]
)
def test_a_pass_turns_one_text_into_the_other(name: str, title: str, before: str, after: str) -> None:
    function = parse_function(complete(before))
    validate(function)
    changed = RUN[name](function)
    validate(function)
    assert print_function(function) == complete(after)
    assert changed == (print_function(parse_function(complete(before))) != complete(after))


def test_every_pass_has_a_case() -> None:
    assert {case[0] for case in read_cases()} == set(RUN)
