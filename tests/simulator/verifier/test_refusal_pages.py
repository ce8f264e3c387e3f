"""Every page of docs/refusals is true: its first program is refused with the text shown, its second accepted."""

from __future__ import annotations

import ast
import importlib
import platform
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator import verifier, verify
from simulator.program import Program
from simulator.verdict import UNSUPPORTED
from simulator.verifier.advice import ADVICE
from simulator.verifier.refusal import CLASSES, code_of
from tests.simulator.verifier import readable
from tests.simulator.verifier.explore_cases import HOST_BTF, masked
from tests.simulator.verifier.refusal_pages import PAGES, ROWS, WITHOUT_PAGE, index_text, page_text, shown_lines

CODES = [page.code for page in ROWS]


def blocks(code: str, kind: str) -> list[str]:
    text = (PAGES / f"{code}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, flags=re.M | re.S)


def programs(code: str) -> list[Program]:
    return [readable.program(text, code) for text in blocks(code, "asm")]


@pytest.mark.parametrize("page", ROWS, ids=CODES)
def test_pages_are_as_they_are_made(page: object) -> None:
    row = next(one for one in ROWS if one is page)
    assert (PAGES / f"{row.code}.md").read_text(encoding="utf-8") == page_text(row)


def test_every_class_has_its_page_and_the_others_a_paragraph() -> None:
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    assert index == index_text()
    assert {path.stem for path in PAGES.glob("*.md")} - {"README"} == set(CODES) == CLASSES
    assert len(CODES) == len(set(CODES)) >= 55
    assert set(CODES) | set(WITHOUT_PAGE) == set(ADVICE)
    assert not set(CODES) & set(WITHOUT_PAGE)
    assert all(f"- `{code}`: " in index for code in WITHOUT_PAGE)


def codes_in_source() -> Iterator[str]:
    """Each class that our verifier names itself, instead of by the kernel's words: as a constant, or by its name."""
    for file in sorted(Path(verifier.__file__).parent.glob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
                continue
            codes = [word.value for word in call.keywords if word.arg == "code"]
            codes += call.args[1:2] if call.func.id == "Refused" else []
            for code in codes:
                if isinstance(code, ast.Constant):
                    yield code.value
                elif isinstance(code, ast.Name) and code.id.isupper():
                    yield getattr(importlib.import_module(f"simulator.verifier.{file.stem}"), code.id)


def test_our_verifier_names_no_class_that_is_nowhere_explained() -> None:
    named = set(codes_in_source())
    assert {"bad-argument", "load-attributes", "needs-newer-kernel", "attach-target"} <= named
    assert named - set(CODES) - set(WITHOUT_PAGE) == set()


@pytest.mark.parametrize("code", CODES)
def test_our_verifier_says_what_the_page_shows(code: str) -> None:
    made = programs(code)
    btf = HOST_BTF if HOST_BTF.exists() else None
    if made[0].kfuncs and btf is None:
        pytest.skip("needs the BTF of a kernel in /sys/kernel/btf/vmlinux")
    verdict = verify(made[0], kernel_btf=btf)
    assert btf is None or verdict.code != UNSUPPORTED
    shown = blocks(code, "text")[0].strip().splitlines()
    if verdict.code != UNSUPPORTED:
        assert shown[-1].endswith(verdict.message)
        assert shown_lines(masked(verdict.log), verdict.message) == shown
        assert verdict.code == code
        assert code_of(verdict.message) == code
    for mended in made[1:]:
        after = verify(mended, kernel_btf=btf)
        assert after.accepted or (btf is None and (after.code == UNSUPPORTED or mended.kfuncs)), after.message


@pytest.mark.parametrize("code", CODES)
def test_the_kernel_says_what_the_page_shows(code: str) -> None:
    from tests import oracle

    possible, why = oracle.available()
    if not possible:
        pytest.skip(why)
    if not platform.release().startswith("6.18."):
        pytest.skip("the pages have the words of kernel 6.18")
    made = programs(code)
    shown = blocks(code, "text")[0].strip().splitlines()
    answer = oracle.ask(made[0])
    assert shown_lines(masked(answer.log), answer.message) == shown
    assert all(oracle.ask(mended).accepted for mended in made[1:])
