"""The table at the end of a session: how tests went on each engine, and programs on each kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

ENGINE, KERNEL, LEFT_OUT, UNCOUNTED = "bpf_engine", "bpf_kernel", "bpf", "bpf_uncounted"
"""Properties of a report: the engine that a test asked for, the kernel that a program was checked for, why an engine
of `all` was left out, an engine that coverage could not count on. Properties reach the main process from any worker."""

COVERAGE = "bpf_coverage"
"""The name of the plugin that counts what programs execute."""

_OUTCOMES = ("passed", "failed", "skipped")


def lines(reports: Iterable[Any]) -> list[str]:
    """The table, or nothing where there was one engine alone and no check."""
    told = [(report, dict(_properties(report))) for report in reports]
    engines, kernels = _counted(told, ENGINE), _counted(told, KERNEL)
    found = []
    if len(engines) > 1 or any(counts["skipped"] for counts in engines.values()):
        found += _table(("engine", *_OUTCOMES, ""), engines, _reasons(told))
    if kernels:
        found += _table(("kernel", "accepted", "refused", "skipped", ""), kernels, {})
    return found + _left_out(told)


def _properties(report: Any) -> Iterator[tuple[str, str]]:
    return ((key, str(value)) for key, value in getattr(report, "user_properties", ()) if key.startswith("bpf"))


def _counted(told: list[tuple[Any, dict[str, str]]], key: str) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for report, properties in told:
        if key in properties:
            counts.setdefault(properties[key], Counter())[report.outcome] += 1
    return counts


def _reasons(told: list[tuple[Any, dict[str, str]]]) -> dict[str, str]:
    """Why an engine was skipped: of several reasons the first."""
    found: dict[str, str] = {}
    for report, properties in told:
        if ENGINE in properties and report.outcome == "skipped" and isinstance(report.longrepr, tuple):
            found.setdefault(properties[ENGINE], str(report.longrepr[2]).removeprefix("Skipped: "))
    return found


def _table(head: tuple[str, ...], counts: dict[str, Counter[str]], reasons: dict[str, str]) -> list[str]:
    rows = [head]
    for name in sorted(counts):
        rows.append((name, *(str(counts[name][outcome]) for outcome in _OUTCOMES), reasons.get(name, "")))
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    found = []
    for row in rows:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:4], widths[1:], strict=True)]
        found.append("  ".join([row[0].ljust(widths[0]), *numbers, row[4]]).rstrip())
    return found


def _left_out(told: list[tuple[Any, dict[str, str]]]) -> list[str]:
    """Each reason once, with the number of tests."""
    reasons = (value for report, _ in told for key, value in _properties(report) if key == LEFT_OUT)
    found = Counter(reasons)
    return [f"{reason} ({count} {'test' if count == 1 else 'tests'})" for reason, count in sorted(found.items())]
