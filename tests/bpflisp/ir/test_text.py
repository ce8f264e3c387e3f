"""The text form and its parser are inverses, and what is no function is refused with its line."""

import pytest

from bpflisp.ir.parse import ParseError, parse_function, parse_module
from bpflisp.ir.text import print_function, print_module

EVERYTHING = """\
map @hits
data @greeting .rodata align 1 0x686900
program @all(%ctx) {
  slot $0 16 align 8
b0:
  %0 = ctxload4 %ctx + 0
  %1 = ctxload4.scalar %ctx + 12
  ctxstore4 %ctx + 8, %1
  %2 = add %0, 14
  %3 = mul32 %2, -3
  %4 = sdiv %3, %2
  %5 = cmp.le32 %4, 7
  %6 = sext16 %5
  %7 = be16 %6
  %8 = bswap64 %7
  %9 = load4 %0 + 12
  %10 = loads2 %0 + -8 core 0 "sk_buff" "0:3"
  zero $0 + 0, 16
  store8 $0 + 8, %10
  atomic.add8 $0 + 8, 1
  %11 = atomic.add4.fetch $0 + 8, 1
  %12 = atomic.cmpxchg8 $0 + 8, %11, 5
  %13 = call helper 1 (map @hits, $0)
  %14 = call subprogram @sub (%13, data @greeting + 1)
  %15 = call kfunc @bpf_rdonly_cast (%14, type 5)
  %16 = call helper 181 (10, func @sub, 0, 0)
  %17 = asm 0xb7 0 0 0 42 0 () gives r0 clobbers r1 r2
  asm 0x07 1 0 0 42 0 (r1 = %16) clobbers r1
  branch set32 %16, 4, b2(%17, 3), b1
b1:
  jump b2(0, %16)
b2(%18, %19):
  %20 = add %18, %19
  return %20
}
subprogram @sub(%a, %b) {
b0:
  branch sgt %a, %b, b1, b2
b1:
  unreachable
b2:
  return
}
"""


def test_printing_what_was_parsed_gives_the_text_back() -> None:
    assert print_module(parse_module(EVERYTHING)) == EVERYTHING


def test_positions_are_printed_on_demand() -> None:
    text = "program @f(%ctx) {\nb0:\n  return 1 !3:7 'a.lisp'\n}\n"
    assert print_function(parse_function(text), positions=True) == text


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("frobnicate 1", "line 3: frobnicate is no instruction"),
        ("%1 = store4 $0 + 0, 1", "line 3: a result where there is none"),
        ("return %7", "%7 is used and never defined"),
        ("jump b9", "b9 is jumped to and not there"),
        ("return 1 2", "line 3: 2 is too much"),
        ("return ?", "line 3: cannot read"),
    ],
)
def test_nonsense_is_refused_with_its_line(line: str, problem: str) -> None:
    with pytest.raises(ParseError, match=problem):
        parse_function(f"program @f(%ctx) {{\nb0:\n  {line}\n  return\n}}\n".replace("  return\n}", "}"))
