"""Every page of docs/refusals is true: its first program is refused with the text shown, its second accepted."""

from __future__ import annotations

import platform
import re

import pytest

from simulator import verify
from simulator.program import Program
from simulator.verdict import UNSUPPORTED
from simulator.verifier.advice import ADVICE
from simulator.verifier.explain import PAGES as LINKED
from simulator.verifier.refusal import code_of
from tests.simulator.verifier import readable
from tests.simulator.verifier.explore_cases import HOST_BTF, masked
from tests.simulator.verifier.refusal_pages import PAGES, ROWS, index_text, page_text, shown_lines

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


def test_there_is_a_page_for_each_class_that_is_linked() -> None:
    assert (PAGES / "README.md").read_text(encoding="utf-8") == index_text()
    assert {path.stem for path in PAGES.glob("*.md")} - {"README"} == set(CODES) == set(LINKED)
    assert set(CODES) <= set(ADVICE)
    assert len(CODES) >= 45


@pytest.mark.parametrize("code", CODES)
def test_our_verifier_says_what_the_page_shows(code: str) -> None:
    made = programs(code)
    btf = HOST_BTF if made[0].kfuncs and HOST_BTF.exists() else None
    if made[0].kfuncs and btf is None:
        pytest.skip("needs the BTF of a kernel in /sys/kernel/btf/vmlinux")
    verdict = verify(made[0], kernel_btf=btf)
    shown = blocks(code, "text")[0].strip().splitlines()
    if verdict.code != UNSUPPORTED:
        assert shown[-1].endswith(verdict.message)
        assert shown_lines(masked(verdict.log), verdict.message) == shown
        assert verdict.code == code
        assert code_of(verdict.message) == code
    for mended in made[1:]:
        after = verify(mended, kernel_btf=HOST_BTF if HOST_BTF.exists() else None)
        assert after.accepted or after.code == UNSUPPORTED or (mended.kfuncs and not HOST_BTF.exists()), after.message


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
