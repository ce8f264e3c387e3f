"""`--bpf-cov`: counts while tests run, merges what xdist's workers counted, writes the reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pytest_plugin.summary import COVERAGE, UNCOUNTED
from simulator.coverage import MEASURED, Coverage, measuring

_FILES = ("lcov", "cobertura", "html")


class CoverageRun:
    """The coverage of a session; a plugin of its own, registered where it is asked for."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._reports = [_parsed(text) for text in config.getoption("--bpf-cov-report")] or [("term", "")]
        self._least: float | None = config.getoption("--bpf-cov-fail-under")
        self._told: list[str] = []
        self._lost: list[str] = []
        self._uncounted: dict[str, set[str]] = {}
        self.coverage = Coverage()
        self._stack = ExitStack()
        self._stack.enter_context(measuring(self.coverage))

    def counts(self, engine: str) -> bool:
        """Whether what this engine executes is counted."""
        return engine in MEASURED

    def pytest_unconfigure(self) -> None:
        """Counts no more."""
        self._stack.close()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Adds what a worker of xdist counted."""
        output: Mapping[str, Any] = getattr(node, "workeroutput", None) or {}
        if COVERAGE in output:
            self.coverage.merge_json(output[COVERAGE])
        else:
            self._lost.append(str(node.gateway.id))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes which tests ran programs on an engine that does not count."""
        for key, engine in report.user_properties:
            if key == UNCOUNTED:
                self._uncounted.setdefault(str(engine), set()).add(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hands a worker's counts over; in the main process writes the reports, and fails a session that is under."""
        output = getattr(self._config, "workeroutput", None)
        if output is not None:
            output[COVERAGE] = self.coverage.to_json()
            return
        good = self._write() and self._is_enough()
        if not good and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table, and where the other reports are."""
        terminalreporter.section("bpf coverage", sep="-")
        terminalreporter.write("".join(f"{line}\n" for line in self._told))

    def _write(self) -> bool:
        """Writes every report; whether all of them could be written."""
        self._told += [f"worker {name} was lost, and what it counted" for name in self._lost]
        for engine, tests in sorted(self._uncounted.items()):
            many = f"{len(tests)} {'test' if len(tests) == 1 else 'tests'}"
            self._told.append(f"not counted: {many} on engine {engine}, which does not count what it executes")
        if not self.coverage:
            self._told.append(f"no program was loaded, or called on an engine that counts ({', '.join(MEASURED)})")
            return True
        good = True
        for kind, target in self._reports:
            try:
                self._told += self._report(kind, target)
            except OSError as error:
                self._told.append(f"{kind} report not written: {error}")
                good = False
        return good

    def _report(self, kind: str, target: str) -> list[str]:
        root, path = self._config.rootpath, self._config.invocation_params.dir / target
        if kind == "term":
            from pytest_plugin.reports.term import lines

            return lines(self.coverage, root)
        if kind == "html":
            from pytest_plugin.reports.html import write

            return [f"html: {write(self.coverage, root, path)}"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_text_of(kind)(self.coverage, root), encoding="utf-8")
        return [f"{kind}: {path}"]

    def _is_enough(self) -> bool:
        if self._least is None:
            return True
        percent = self.coverage.instructions().percent if self.coverage else 0.0
        if percent >= self._least:
            return True
        # Rounded down: 99.99 is not shown as the 100 that was asked for.
        shown = int(percent * 100) / 100
        self._told.append(
            f"FAIL: {shown:g}% of the instructions ran, under the {self._least:g}% of --bpf-cov-fail-under"
        )
        return False


def require_countable(engine: str) -> None:
    """Raises UsageError for an engine that does not count."""
    if engine not in (*MEASURED, "all"):
        raise pytest.UsageError(
            f"bpf: engine {engine} does not count what it executes: --bpf-cov works with {', '.join(MEASURED)} and all"
        )


def _parsed(text: str) -> tuple[str, str]:
    kind, _, target = text.partition(":")
    if kind == "term" and not target:
        return "term", ""
    if kind not in _FILES or not target:
        known = ", ".join(["term", "lcov:FILE", "cobertura:FILE", "html:DIR"])
        raise pytest.UsageError(f"bpf: no coverage report {text!r}: there are {known}")
    return kind, target


def _text_of(kind: str) -> Callable[[Coverage, Path], str]:
    if kind == "lcov":
        from pytest_plugin.reports import lcov

        return lcov.text
    from pytest_plugin.reports import cobertura

    return cobertura.text
