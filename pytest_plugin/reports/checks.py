"""What the pre-flight check leaves besides its items: a SARIF file, annotations, and budgets that are held.

Invariant: an item may run in any worker; what it has to tell travels with its report's properties, as text, and is put
together by the session that the user started.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator import Budget, BudgetError, Checked, Program, Verdict, effort, github_annotations, joined_sarif, sarif

NAME = "bpf-checks"
_SARIF, _ANNOTATION, _UNBUDGETED = "bpf_sarif", "bpf_annotation", "bpf_unbudgeted"


class OverBudgetError(Exception):
    """A program is accepted and needs more than its budget allows; the message says how much and where."""


class Checks:
    """One session's options, and what its reports tell."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.sarif_file: str | None = config.getoption("--bpf-sarif")
        self.annotates = bool(config.getoption("--bpf-annotations"))
        self.budget = _budget(config)
        self._unwritten = ""
        self.told: dict[str, list[str]] = {_SARIF: [], _ANNOTATION: [], _UNBUDGETED: []}

    def judge(self, item: pytest.Item, program: Program, kernel: str, btf: str | None, verdict: Verdict) -> None:
        """Notes what an item found. Raises OverBudgetError."""
        over = None
        if self.budget is not None and verdict.accepted:
            allowed = self.budget.allowed(item.path, program.name, kernel)
            if allowed is None:
                item.user_properties.append((_UNBUDGETED, f"{item.path.name}: {program.name} on {kernel}"))
            elif verdict.insns_processed > allowed.processed:
                over = self.budget.overrun(item.path, program.name, kernel, effort(program, kernel, btf))
        checked = Checked(_relative(item.path, self.config), program, kernel, verdict, over)
        if not checked.fine and self.sarif_file:
            item.user_properties.append((_SARIF, sarif([checked])))
        if self.annotates:
            item.user_properties += [(_ANNOTATION, line) for line in github_annotations([checked])]
        if over is not None:
            raise OverBudgetError("\n".join([f"{checked.file}: over-budget: {checked.text}", *over.told]))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes what an item told, from this process or a worker."""
        if report.when == "call":
            for key, text in report.user_properties:
                if key in self.told:
                    self.told[key].append(str(text))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Writes the SARIF file, once, after all workers; a session whose file cannot be written fails."""
        if not self.sarif_file or hasattr(session.config, "workerinput"):
            return
        path = session.config.invocation_params.dir / self.sarif_file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(joined_sarif(self.told[_SARIF]) + "\n", encoding="utf-8")
        except OSError as error:
            self._unwritten = f"SARIF report not written: {error}"
            if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Prints annotations, each at the start of a line, and names the programs that have no budget."""
        lines = [*self.told[_ANNOTATION], *([self._unwritten] if self._unwritten else [])]
        if self.told[_UNBUDGETED]:
            names = ", ".join(sorted(self.told[_UNBUDGETED]))
            lines.append(f"not in the budget: {names}; bpflisp check --budget FILE --update-budget adds them")
        if lines:
            terminalreporter.section("bpf checks", sep="-")
            terminalreporter.write("".join(f"{line}\n" for line in lines))


def of(config: pytest.Config) -> Checks | None:
    """The session's reports, None where none are asked for."""
    found = config.pluginmanager.get_plugin(NAME)
    return found if isinstance(found, Checks) else None


def _budget(config: pytest.Config) -> Budget | None:
    """The budget that is asked for. Raises UsageError where it cannot be read."""
    named = config.getoption("--bpf-budget")
    if not named:
        return None
    path: Path = config.invocation_params.dir / named
    try:
        return Budget.read(path)
    except BudgetError as error:
        raise pytest.UsageError(f"bpf: {error}") from None
    except OSError as error:
        how = f"bpflisp check FILES --budget {named} --update-budget writes it"
        raise pytest.UsageError(f"bpf: {path}: {error.strerror}; {how}") from None


def _relative(path: Path, config: pytest.Config) -> str:
    """A file as the session's user names it, where it is below the folder that pytest was started in."""
    base = config.invocation_params.dir
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)
