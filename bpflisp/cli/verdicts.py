"""Verdicts as text, JSON, SARIF, GitHub annotations and JUnit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from simulator import Program, Verdict

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


@dataclass(frozen=True)
class Checked:
    """The verdict of one kernel, as it was asked for, on one program of a file."""

    file: str
    program: Program
    kernel: str
    verdict: Verdict

    @property
    def source(self) -> tuple[str, int] | None:
        """File and line of the refused instruction; None where the object does not tell."""
        insn = self.verdict.insn
        before = [line for line in self.program.line_info if insn is not None and line.insn <= insn]
        return (before[-1].file, before[-1].line) if before else None

    @property
    def title(self) -> str:
        """Program and kernel."""
        return f"{self.program.name} on {self.kernel}"


def write(form: str, checked: Sequence[Checked]) -> str:
    """The verdicts in one of `FORMATS`, with a final newline unless there is nothing to say."""
    text = FORMATS[form](checked)
    return f"{text}\n" if text else ""


def _text(checked: Sequence[Checked]) -> str:
    from simulator.results import refusal

    lines = []
    for each in checked:
        verdict = each.verdict
        if verdict.accepted:
            word = click.style("accepted", fg="green")
            count = f"{verdict.insns_processed} instructions processed"
            lines.append(f"{each.file}: {each.program.name}: {word} by {verdict.kernel}, {count}")
            lines += [f"  = note: {warning}" for warning in verdict.warnings]
        else:
            head, _, rest = refusal(each.program, verdict, each.file).render().partition("\n")
            lines += [click.style(head, fg="red"), *([rest] if rest else [])]
    return "\n".join(lines)


def as_dict(each: Checked) -> dict[str, Any]:
    """One verdict with the keys that the contract names."""
    program, verdict = each.program, each.verdict
    return {
        "file": each.file,
        "program": program.name,
        "section": program.section,
        "type": program.type,
        "kernel": each.kernel,
        "accepted": verdict.accepted,
        "code": verdict.code or None,
        "message": verdict.message or None,
        "insn": verdict.insn,
        "line": each.source[1] if each.source else None,
        "insns_processed": verdict.insns_processed,
    }


def _json(checked: Sequence[Checked]) -> str:
    return json.dumps([as_dict(each) for each in checked], indent=2)


def _refused(checked: Sequence[Checked]) -> list[Checked]:
    return [each for each in checked if not each.verdict.accepted]


def _sarif(checked: Sequence[Checked]) -> str:
    refused = _refused(checked)
    rules = [{"id": code, "name": code} for code in sorted({each.verdict.code for each in refused})]
    run = {
        "tool": {"driver": {"name": "bpflisp", "rules": rules}},
        "results": [_sarif_result(each) for each in refused],
    }
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _sarif_result(each: Checked) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": each.source[0] if each.source else each.file}}
    if each.source:
        place["region"] = {"startLine": max(1, each.source[1])}
    return {
        "ruleId": each.verdict.code,
        "level": "error",
        "message": {"text": f"{each.title}: {each.verdict.message}"},
        "locations": [{"physicalLocation": place, "logicalLocations": [{"name": each.program.name}]}],
    }


def _github(checked: Sequence[Checked]) -> str:
    lines = []
    for each in _refused(checked):
        file, line = each.source or (each.file, 0)
        place = f"file={_property(file)}" + (f",line={line}" if line else "")
        title = _property(f"refused[{each.verdict.code}]")
        lines.append(f"::error {place},title={title}::{_data(f'{each.title}: {each.verdict.message}')}")
    return "\n".join(lines)


def _data(text: str) -> str:
    """Text of a workflow command: the characters escaped that would end it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _junit(checked: Sequence[Checked]) -> str:
    from xml.etree import ElementTree as Xml

    failures = str(len(_refused(checked)))
    suite = Xml.Element("testsuite", name="bpflisp check", tests=str(len(checked)), failures=failures, errors="0")
    for each in checked:
        case = Xml.SubElement(suite, "testcase", classname=each.file, name=f"{each.program.name}[{each.kernel}]")
        if not each.verdict.accepted:
            failure = Xml.SubElement(case, "failure", type=each.verdict.code, message=each.verdict.message)
            failure.text = each.verdict.log
    root = Xml.Element("testsuites")
    root.append(suite)
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode", xml_declaration=True)


FORMATS: Final[Mapping[str, Callable[[Sequence[Checked]], str]]] = {
    "text": _text,
    "json": _json,
    "sarif": _sarif,
    "github": _github,
    "junit": _junit,
}
"""The forms of output by name."""
