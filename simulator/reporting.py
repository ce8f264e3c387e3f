"""Verdicts for machines: SARIF for code scanning, and annotations of GitHub's checks. For the command line and pytest.

Invariant: what is reported is a refusal, or a program that exceeds its budget; a file's name is given as it was asked
for, and as a URI where the format wants one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from simulator.budgets import Overrun
    from simulator.program import Program
    from simulator.verdict import Verdict

SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"

OVER_BUDGET: Final = "over-budget"
"""The class of a program that is accepted and costs more than its budget allows."""


@dataclass(frozen=True)
class Checked:
    """The verdict of one kernel, as it was asked for, on one program of a file; and by how much it costs too much."""

    file: str
    program: Program
    kernel: str
    verdict: Verdict
    overrun: Overrun | None = None

    @property
    def fine(self) -> bool:
        """Accepted, and within its budget."""
        return self.verdict.accepted and self.overrun is None

    @property
    def source(self) -> tuple[str, int] | None:
        """File and line of the refused instruction, or of the line that grew most; None where the object has none."""
        insn = self.verdict.insn
        before = [line for line in self.program.line_info if insn is not None and line.insn <= insn]
        if before:
            return before[-1].file, before[-1].line
        if self.overrun is None or not self.overrun.grown:
            return None
        grown = self.overrun.grown[0][0]
        files = {line.file.rsplit("/", 1)[-1]: line.file for line in self.program.line_info}
        return (files[grown.file], grown.line) if grown.file in files else None

    @property
    def code(self) -> str:
        """The class of what is reported."""
        return OVER_BUDGET if self.verdict.accepted else self.verdict.code

    @property
    def title(self) -> str:
        """Program and kernel."""
        return f"{self.program.name} on {self.kernel}"

    @property
    def text(self) -> str:
        """What is reported, in a line."""
        said = self.overrun.text if self.overrun is not None else self.verdict.message
        return f"{self.title}: {said or 'refused without a word'}"


def reported(checked: Iterable[Checked]) -> list[Checked]:
    """Those that there is something to say of."""
    return [each for each in checked if not each.fine]


# ---- SARIF 2.1.0 -----------------------------------------------------------------------------------------------------


def sarif(checked: Sequence[Checked]) -> str:
    """A log of one run, with a rule for each class that occurs and a result for each refusal."""
    found = reported(checked)
    codes = sorted({each.code for each in found})
    driver = {"name": "bpflisp", "rules": [_rule(code) for code in codes]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {"%SRCROOT%": {"description": {"text": "The folder that the check was run in."}}},
        "results": [_result(each, codes.index(each.code)) for each in found],
    }
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def joined_sarif(logs: Iterable[str]) -> str:
    """One log of the results of several that `sarif` wrote, each rule once."""
    runs = [json.loads(log)["runs"][0] for log in logs] or [json.loads(sarif([]))["runs"][0]]
    rules = {rule["id"]: rule for run in runs for rule in run["tool"]["driver"]["rules"]}
    order = sorted(rules)
    results = [result | {"ruleIndex": order.index(result["ruleId"])} for run in runs for result in run["results"]]
    driver = runs[0]["tool"]["driver"] | {"rules": [rules[code] for code in order]}
    run = runs[0] | {"tool": {"driver": driver}, "results": results}
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _rule(code: str) -> dict[str, Any]:
    """A class: what it means and what to do, with the page about it where there is one."""
    from simulator.verifier.advice import advice_of
    from simulator.verifier.refusal import CLASSES

    if code == OVER_BUDGET:
        problem, help = "the program costs more than its budget", "look at the lines that grew, or update the budget"
    else:
        problem, help = advice_of(code)
    page = f"docs/refusals/{code}.md" if code in CLASSES else ""
    more = f"\n\nSee `{page}`." if page else ""
    return {
        "id": code,
        "name": "".join(part.capitalize() for part in code.split("-")),
        "shortDescription": {"text": problem},
        "help": {"text": help, "markdown": f"{help}{more}"},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["ebpf"]} | ({"page": page} if page else {}),
    }


def _result(each: Checked, rule: int) -> dict[str, Any]:
    reason = each.verdict.reason if not each.verdict.accepted else None
    because = f". {reason.because}" if reason is not None and reason.because else ""
    identity = "\0".join((each.file, each.program.name, each.kernel, each.code, each.verdict.message))
    return {
        "ruleId": each.code,
        "ruleIndex": rule,
        "level": "error",
        "message": {"text": f"{each.text}{because}"},
        "locations": [
            {
                "physicalLocation": _place(*(each.source or (each.file, 0))),
                "logicalLocations": [{"name": each.program.name, "kind": "function"}],
            }
        ],
        "partialFingerprints": {"refusal/v1": hashlib.sha256(identity.encode()).hexdigest()},
        "properties": {"kernel": each.kernel, "object": each.file, "insn": each.verdict.insn},
    }


def _place(file: str, line: int) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": _artifact(file)}
    if line > 0:
        place["region"] = {"startLine": line}
    return place


def _artifact(file: str) -> dict[str, str]:
    """A file as a URI: relative to the source's root, or absolute where it is given so."""
    path = Path(file)
    if path.is_absolute():
        return {"uri": path.as_uri()}
    return {"uri": quote(path.as_posix()), "uriBaseId": "%SRCROOT%"}


# ---- GitHub ----------------------------------------------------------------------------------------------------------


def github_annotations(checked: Sequence[Checked]) -> list[str]:
    """Workflow commands, a line each, that GitHub shows at the source line."""
    lines = []
    for each in reported(checked):
        file, line = each.source or (each.file, 0)
        place = f"file={_property(file)}" + (f",line={line}" if line > 0 else "")
        word = each.code if each.verdict.accepted else f"refused[{each.code}]"
        lines.append(f"::error {place},title={_property(word)}::{_data(each.text)}")
    return lines


def _data(text: str) -> str:
    """Text of a workflow command: the characters escaped that would end it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
