"""Verdicts as text, JSON, SARIF, GitHub annotations and JUnit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from simulator import Checked


def write(form: str, checked: Sequence[Checked], unread: Mapping[str, str]) -> str:
    """The verdicts in one of `FORMATS`, with a final newline unless there is nothing to say.

    `unread` has the files that cannot be read, with the reason; forms that list what was tested say it, too.
    """
    text = _junit(checked, unread) if form == "junit" else FORMATS[form](checked)
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
            lines += _overrun(each)
        else:
            head, _, rest = refusal(each.program, verdict, each.file).render().partition("\n")
            lines += [click.style(head, fg="red"), *([rest] if rest else [])]
        lines += [f"  = note: {warning}" for warning in verdict.warnings]
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
    } | _budgeted(each)


def _budgeted(each: Checked) -> dict[str, Any]:
    """Of a program that exceeds its budget: what is allowed, and the lines that grew, with the difference."""
    if each.overrun is None:
        return {}
    grown = [
        {"file": spent.file, "line": spent.line, "text": spent.text, "processed": spent.processed, "more": more}
        for spent, more in each.overrun.grown
    ]
    return {"budget": each.overrun.allowed, "grown": grown}


def _json(checked: Sequence[Checked]) -> str:
    return json.dumps([as_dict(each) for each in checked], indent=2)


def _overrun(each: Checked) -> list[str]:
    """What a program costs more than its budget allows, and where."""
    over = each.overrun
    if over is None:
        return []
    head = f"{each.file}: {click.style('over-budget', fg='red')}: {each.text}"
    return [head, *over.told]


def _sarif(checked: Sequence[Checked]) -> str:
    from simulator import sarif

    return sarif(checked)


def _github(checked: Sequence[Checked]) -> str:
    from simulator import github_annotations

    return "\n".join(github_annotations(checked))


def _junit(checked: Sequence[Checked], unread: Mapping[str, str]) -> str:
    from xml.etree import ElementTree as Xml

    root = Xml.Element("testsuites", name="bpflisp check")
    for file in dict.fromkeys([*(each.file for each in checked), *unread]):
        own = [each for each in checked if each.file == file]
        failures, errors = sum(not each.fine for each in own), int(file in unread)
        counts = {"tests": len(own) + errors, "failures": failures, "errors": errors, "skipped": 0}
        suite = Xml.SubElement(root, "testsuite", {"name": _xml(file)} | {key: str(n) for key, n in counts.items()})
        for each in own:
            name = f"{each.program.name}[{each.kernel}]"
            case = Xml.SubElement(suite, "testcase", classname=_xml(file), name=_xml(name), time="0")
            if not each.fine:
                failure = Xml.SubElement(case, "failure", type=each.code, message=_xml(each.text))
                failure.text = _xml("\n".join(_overrun(each)) if each.verdict.accepted else each.verdict.log)
        if file in unread:
            case = Xml.SubElement(suite, "testcase", classname=_xml(file), name="load", time="0")
            Xml.SubElement(case, "error", type="unreadable", message=_xml(unread[file]))
    for key in ("tests", "failures", "errors"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode", xml_declaration=True)


def _xml(text: str) -> str:
    """Text without the characters that no XML document may have, however they are written."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


FORMATS: Final[Mapping[str, Callable[[Sequence[Checked]], str]]] = {
    "text": _text,
    "json": _json,
    "sarif": _sarif,
    "github": _github,
    "junit": partial(_junit, unread={}),
}
"""The forms of output by name."""
