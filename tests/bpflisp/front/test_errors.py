"""Every file of fixtures/errors says on its lines what is wrong there: `; error: COLUMN [code] "text"`.

What is told and not expected fails, and so does what is expected and not told; `; warning:` likewise. `help "text"`
after it says what is advised.
"""

import re
from pathlib import Path

import pytest

from bpflisp.diagnostics import CompileError, Diagnostic
from bpflisp.driver import compile_source, read_source

FOLDER = Path(__file__).parents[3] / "fixtures" / "errors"
EXPECTATION = re.compile(r'; (error|warning): (\d+) \[([\w-]+)\] "(.*?)"(?: help "(.*?)")?(?=  ; |$)')


def told(path: Path) -> list[Diagnostic]:
    try:
        return list(compile_source(read_source(path)).warnings)
    except CompileError as problem:
        return list(problem.diagnostics)


def expected(path: Path) -> list[tuple[int, str, int, str, str, str]]:
    return [
        (number, kind, int(column), code, text, help)
        for number, line in enumerate(path.read_text().split("\n"), 1)
        for kind, column, code, text, help in EXPECTATION.findall(line)
    ]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.lisp")), ids=lambda path: path.stem)
def test_what_is_told_is_what_is_expected(path: Path) -> None:
    found = told(path)
    wanted = expected(path)
    assert wanted, "the file expects nothing"
    shown = "\n\n".join(d.render() for d in found)
    assert len(found) == len(wanted), shown
    for number, kind, column, code, text, help in wanted:
        matching = [d for d in found if d.span and (d.span.line, d.span.column) == (number, column)]
        matching = [d for d in matching if (d.severity, d.code) == (kind, code) and text in d.problem]
        assert any(help in " ".join(d.help) for d in matching), shown


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.lisp")), ids=lambda path: path.stem)
def test_rendering_has_the_line_and_a_caret(path: Path) -> None:
    for diagnostic in told(path):
        head, source, caret, *rest = diagnostic.render().split("\n")
        assert re.match(rf"{re.escape(str(path))}:\d+:\d+: (error|warning)\[{diagnostic.code}\]: ", head)
        assert source.startswith("  | ")
        assert re.fullmatch(r"  \| +\^+|  \| \^+", caret)
        assert all(line.startswith(("  = because: ", "  = help: ")) for line in rest)


CODE = re.compile(r'(?:fail|warn|warning|error)\(\s*"([a-z]+(?:-[a-z]+)*)"')
WITHOUT_A_PLACE = {"no-program", "not-text", "told"}
"""Of a file as a whole; and what is no error but says that one has been told."""


def test_every_code_has_an_example() -> None:
    folder = Path(__file__).parents[3] / "bpflisp"
    sources = [*folder.glob("front/*.py"), *folder.glob("syntax/*.py"), folder / "driver.py"]
    codes = {code for source in sources for code in CODE.findall(source.read_text())}
    shown = {code for path in FOLDER.glob("*.lisp") for _, _, _, code, _, _ in expected(path)}
    assert len(codes) > 100
    assert codes - shown == WITHOUT_A_PLACE


def test_a_source_without_a_program(tmp_path: Path) -> None:
    empty = tmp_path / "empty.lisp"
    empty.write_text("(defconstant +x+ 1)\n")
    assert [d.code for d in told(empty)] == ["no-program"]
    empty.write_bytes(b"(defprog p () \xff\xfe)")
    with pytest.raises(CompileError, match="not-text"):
        read_source(empty)
