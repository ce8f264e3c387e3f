"""What comes out, instruction by instruction, for small functions: `shapes.txt` has text and code side by side."""

from pathlib import Path

import pytest

from bpflisp.back import compile_function
from bpflisp.ir.parse import parse_function
from bpflisp.opt import run
from bpflisp.spec.text import insn_text

SHAPES = Path(__file__).parent / "shapes.txt"


def read_shapes() -> list[tuple[str, str, str, str]]:
    """(title, mcpu, function, code). `=== TITLE (MCPU)` begins one, `---` its code."""
    found = []
    for section in SHAPES.read_text().split("\n=== ")[1:]:
        head, _, text = section.partition("\n")
        title, _, mcpu = head.rpartition(" ")
        body, _, code = text.partition("---\n")
        found.append((title, mcpu.strip("()"), body, code.strip()))
    return found


@pytest.mark.parametrize(("title", "mcpu", "body", "expected"), [pytest.param(*s, id=s[0]) for s in read_shapes()])
def test_code_comes_out_like_that(title: str, mcpu: str, body: str, expected: str) -> None:
    function = parse_function("program @f(%ctx) {\n" + body.strip("\n") + "\n}\n")
    run(function, 2, check=True)
    code = compile_function(function, mcpu)
    assert "\n".join(insn_text(insn) for insn in code.insns) == expected
