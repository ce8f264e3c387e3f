"""For each rule of `bpflisp.spec.rules` a program that shows it: our answer is another with the rule turned round.

`fixtures/verifier/rules/shown.json` names them: rule -> kernel and program. `python -m
tests.simulator.verifier.rule_cases` looks for programs of the rules that it lacks, among those of `kernel_cases` and
`explore_cases`, and writes what it finds.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

from bpflisp.spec import helpers, kernels
from bpflisp.spec.btf import Btf, read_btf
from bpflisp.spec.rules import RULES
from simulator import verify
from simulator.verifier.ways import ways_of
from tests.simulator.verifier import explore_cases, kernel_cases, readable

SHOWN = kernel_cases.RULES / "shown.json"
ASKED = ("6.18.44", "6.12.117", "6.1.192", "5.10.262", "7.3.4")
"""The kernels whose rules are turned round, in this order."""


@contextmanager
def turned_round(rule: str) -> Iterator[None]:
    """Every kernel has the rule that did not, and the other way round."""
    asked = kernels._has

    def has(version: kernels.Version, name: str) -> bool:
        return asked(version, name) != (name == rule)

    def forget() -> None:
        ways_of.cache_clear()
        helpers.proto.cache_clear()

    with mock.patch.object(kernels, "_has", has):
        forget()
        try:
            yield
        finally:
            forget()


def texts() -> dict[str, str]:
    """Every program by name, those that were written to show a rule first."""
    found = dict(kernel_cases.rule_texts())
    later = [(name, text) for topic, name, text in explore_cases.texts() if topic != "rules"]
    for name, text in [*((n, t) for topic, n, t in explore_cases.texts() if topic == "rules"), *later]:
        found.setdefault(name, text)
    return found


@cache
def running_types() -> Btf | None:
    """The types of the running kernel, where it is the one that the tables are exact for."""
    here = explore_cases.HOST_BTF.exists() and platform.release().startswith("6.18.")
    return read_btf(explore_cases.HOST_BTF) if here else None


def answer(text: str, name: str, kernel: str) -> tuple[Any, ...]:
    """What we say of a program: verdict, message, count and log."""
    types = running_types() if kernel == kernel_cases.RUNNING else None
    verdict = verify(readable.program(text, name), kernel=kernel, kernel_btf=types)
    return verdict.accepted, verdict.message, verdict.insns_processed, verdict.log


def table() -> dict[str, list[str]]:
    """Rule -> [kernel, program]."""
    found: dict[str, list[str]] = json.loads(SHOWN.read_text(encoding="utf-8")) if SHOWN.exists() else {}
    return found


def main() -> int:
    """Looks for programs of the rules that have none; exit code 1 where some are left without."""
    known, programs = table(), texts()
    usual: dict[tuple[str, str], tuple[Any, ...]] = {}
    for rule in RULES:
        if rule.name not in known:
            found = _looked_for(rule.name, programs, usual)
            print(rule.name, *(found or ["-"]), flush=True)
            if found is not None:
                known[rule.name] = found
    ordered = {rule.name: known[rule.name] for rule in RULES if rule.name in known}
    SHOWN.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    return 0 if len(ordered) == len(RULES) else 1


def _looked_for(rule: str, programs: dict[str, str], usual: dict[tuple[str, str], tuple[Any, ...]]) -> list[str] | None:
    own = [name for name in programs if name.partition(",")[0] == rule]
    for kernel in ASKED:
        for name in own or programs:
            before = usual.get((kernel, name)) or usual.setdefault((kernel, name), answer(programs[name], name, kernel))
            try:
                with turned_round(rule):
                    shown = answer(programs[name], name, kernel) != before
            except AssertionError:  # no kernel had this rule without others that came before it: ask an older one
                break
            if shown:
                return [kernel, name]
    return None


if __name__ == "__main__":
    sys.exit(main())
