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


WITHOUT_PAGE = {
    "bad-argument": "The kernel refuses an instruction, mostly a call, with an error number and no word: as "
    "bpf_trace_vprintk and its like with a length of data that is no multiple of 8. The log ends with the instruction.",
    "load-attributes": "bpf(2) refuses the program before its verifier runs, with an error number and no log: an "
    "attach type that is none of the program type's, unknown flags, no instructions or too many.",
    "needs-newer-kernel": "Ours: `--kernel` names one that does not have what the program uses. Such a kernel refuses "
    "it in one way or another; the message says what is missing and which kernel brought it.",
    "unsupported": "Ours: the program uses what our verifier does not model. It says nothing about the kernel: load "
    "the program there, or give the kernel's types where the message asks for them.",
    "refused": "The kernel's message is in no class yet. It is shown as it is.",
}
"""The classes that no words of the kernel lead to, and so have no page: what they mean."""

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
    others = WITHOUT_PAGE.items()
    rows = [f"- [{page.code}]({page.code}.md): {advice_of(page.code).problem}" for page in ROWS]
    return (
        "# Refusals\n\nThe classes that a refusal may have: `bpflisp check` prints them as `refused[class]`, and\n"
        "`bpflisp explain LOG` finds them in a kernel's log. Each page has a program that kernel 6.18.44 refused with\n"
        "the text shown. Programs are written as the kernel's log writes them, with labels; lines with % name\n"
        "type, attach type and maps, and one with {1..65} stands for 65 lines. The pages are made by\n"
        "`python -m tests.simulator.verifier.refusal_pages`.\n\n"
        + "\n".join(rows)
        + "\n\n## Classes without a page\n\nNo words of the kernel lead to these:\n\n"
        + "\n".join(textwrap.fill(f"- `{code}`: {text}", 118, subsequent_indent="  ") for code, text in others)
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
