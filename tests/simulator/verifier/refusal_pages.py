"""The pages of `docs/refusals`: for each class a program that the kernel refused, its words, why, and a mended program.

`python -m tests.simulator.verifier.refusal_pages` writes them, from the rows of `fixtures/verifier/refusals.json`, the
programs in `fixtures/verifier/explore` and the kernel's answers kept beside them. A test holds the pages to these and
runs both programs.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import NamedTuple

from simulator.verifier.advice import advice_of
from tests.simulator.verifier.explore_cases import FIXTURES, answers, texts

PAGES = Path(__file__).parents[3] / "docs" / "refusals"
SHOWN_LINES = 6


class Page(NamedTuple):
    """One class: the programs' names, the mended one "" where there is none, and why the kernel refuses."""

    code: str
    refused: str
    mended: str
    why: str


ROWS = tuple(Page(**row) for row in json.loads((FIXTURES / "refusals.json").read_text(encoding="utf-8")))


def shown_lines(log: str, message: str) -> list[str]:
    """The end of a log, up to its message."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    end = max((at for at, line in enumerate(lines) if line.endswith(message)), default=len(lines) - 1)
    return lines[max(0, end + 1 - SHOWN_LINES) : end + 1]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith(";") else ".")


def page_text(page: Page) -> str:
    """One page."""
    programs = {name: text.strip("\n") for _, name, text in texts()}
    answer = answers()[page.refused]
    advice = advice_of(page.code)
    shown = shown_lines(str(answer["log"]), str(answer["message"]))
    parts = [
        f"# {page.code}",
        _sentence(advice.problem),
        "## A program that is refused",
        f"```asm\n{programs[page.refused]}\n```",
        "Kernel 6.18.44 says:",
        "```text\n" + "\n".join(shown) + "\n```",
        "## Why",
        textwrap.fill(page.why, 118),
        "## Mend",
        textwrap.fill(_sentence(advice.help), 118),
    ]
    if page.mended:
        parts += ["This one is accepted:", f"```asm\n{programs[page.mended]}\n```"]
    return "\n\n".join(parts) + "\n"


def index_text() -> str:
    """The page that leads to the others."""
    rows = [f"- [{page.code}]({page.code}.md): {advice_of(page.code).problem}" for page in ROWS]
    return (
        "# Refusals\n\nThe classes that a refusal may have: `bpflisp check` prints them as `refused[class]`, and\n"
        "`bpflisp explain LOG` finds them in a kernel's log. Each page has a program that kernel 6.18.44 refused with\n"
        "the text shown. Programs are written as the kernel's log writes them, with labels; lines with % name\n"
        "type, attach type and maps. The pages are made by `python -m tests.simulator.verifier.refusal_pages`.\n\n"
        + "\n".join(rows)
        + "\n"
    )


def write() -> None:
    """Writes the pages and their index."""
    PAGES.mkdir(parents=True, exist_ok=True)
    for page in ROWS:
        (PAGES / f"{page.code}.md").write_text(page_text(page), encoding="utf-8")
    (PAGES / "README.md").write_text(index_text(), encoding="utf-8")
    print(f"{len(ROWS)} pages")


if __name__ == "__main__":
    write()
