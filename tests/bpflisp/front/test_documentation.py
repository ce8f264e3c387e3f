"""Every example of docs/language: it compiles, the verifier and the kernel take it, and it gives what the page says.

A block of ```lisp is a file if it has a `defprog`; declarations alone hold for the blocks after them on the page; all
else is the body of a program, of the type that stands after `lisp` (xdp where none does). `; => N` says what a body
returns for 64 zero bytes, `; packet: PACKET => N` what it returns for a packet, in the form of the fixtures, and in a
file of several programs `; packet: PACKET => N (name)`. In a block of ```lisp error, `; error: [code]` is told. What is
warned of stands there too, `; warning: [code]`, and nothing else is warned of.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bpflisp import CompileError, compile_text
from bpflisp.diagnostics import Source
from bpflisp.driver import compile_source
from simulator.loader import load
from simulator.run import run
from simulator.world import World
from tests import oracle
from tests.agreement.fixtures import RETURN_VALUES
from tests.agreement.fixtures import packet as packet_of
from tests.bpflisp.front.running import PACKET, engines

FOLDER = Path(__file__).parents[3] / "docs" / "language"
BLOCK = re.compile(r"```lisp *(\w*)\n(.*?)```", re.DOTALL)
RESULT = re.compile(r"^ *; (?:packet: (.+?) )?=> (\w+)(?: \((\w+)\))?$", re.MULTILINE)
ERROR = re.compile(r"; error: \[([\w-]+)\]")
WARNING = re.compile(r"; warning: \[([\w-]+)\]")
SECTIONS = {
    "xdp": "xdp", "tc": "tc", "kprobe": "kprobe/f", "tracepoint": "tracepoint/sched/sched_switch",
    "tracing": "fentry/do_unlinkat",
}  # fmt: skip


@dataclass(frozen=True)
class Example:
    source: str
    kind: str
    results: list[tuple[bytes, int, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def examples(page: Path) -> list[Example]:
    found: list[Example] = []
    declared = ""
    for kind, text in BLOCK.findall(page.read_text()):
        results = [_result(*parts) for parts in RESULT.findall(text)]
        if kind != "error" and "(defprog" not in text and re.match(r"\s*(;[^\n]*\s*)*\(def", text):
            declared += text
            found.append(Example(f"{declared}\n(defprog p () 0)", kind))
            continue
        if "(defprog" not in text and "(with-bpf-session" not in text:
            type_ = kind if kind in SECTIONS else "xdp"
            text = f'{declared}\n(defprog p (:type :{type_} :section "{SECTIONS[type_]}")\n{text})'
        found.append(Example(text, kind, results, ERROR.findall(text), WARNING.findall(text)))
    return found


def _result(packet: str, value: str, program: str) -> tuple[bytes, int, str]:
    number = RETURN_VALUES[value] if value in RETURN_VALUES else int(value, 0)
    return packet_of(packet) if packet else PACKET, number, program or ""


PAGES = sorted(FOLDER.glob("*.md"))
EXAMPLES = [pytest.param(each, id=f"{page.stem}-{at}") for page in PAGES for at, each in enumerate(examples(page), 1)]


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example: Example) -> None:
    if example.errors or example.kind == "error":
        with pytest.raises(CompileError) as caught:
            compile_text(example.source)
        assert sorted({d.code for d in caught.value.errors}) == sorted(set(example.errors))
        return
    compiled = compile_source(Source("example.lisp", example.source))
    told = [each.code for each in compiled.warnings if each.code != "never-called"]  # a page's examples share functions
    assert sorted(told) == sorted(example.warnings), [each.render() for each in compiled.warnings]
    programs = load(compiled.elf)
    for program in programs.values():
        verdict = program.verify("6.18")
        assert verdict.accepted or verdict.code == "unsupported", verdict.message
        if oracle.available()[0] and program.type != "tracing":
            answer = oracle.ask(program)
            assert answer.accepted, answer.log
    for packet, expected, name in example.results:
        for engine in engines():
            outcome = run(programs[name or next(iter(programs))], packet, World(programs), engine)
            assert outcome.fault is None, outcome.fault
            assert outcome.retval == expected & 0xFFFFFFFF, (engine, outcome.retval)


def test_the_index_names_every_page() -> None:
    index = (FOLDER / "README.md").read_text()
    assert [page.name for page in PAGES if page.name != "README.md" and f"({page.name})" not in index] == []


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 100
