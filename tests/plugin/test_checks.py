"""--bpf-budget, --bpf-sarif and --bpf-annotations, in one process and with workers."""

from __future__ import annotations

import json
import shutil

import pytest

from simulator import Budget, effort, load
from tests.plugin.loaded import LOADED
from tests.plugin.objects import PORT_BLOCKER
from tests.plugin.test_plugin import BAD_LISP, QUICKLY

pytest_plugins = ("pytester",)

assert LOADED

WORKERS = ((), ("-n2",))


def _files(pytester: pytest.Pytester, below: int) -> None:
    """A source with a good and a bad program, an object, and a budget that is so much below what the object needs."""
    (pytester.path / "fw.lisp").write_text(BAD_LISP)
    shutil.copy(PORT_BLOCKER, pytester.path / "blocker.o")
    needs = effort(load(PORT_BLOCKER)["port_blocker"])
    budget = Budget(pytester.path / "budget.json")
    budget.note(pytester.path / "blocker.o", "port_blocker", "6.18", type(needs)(needs.processed - below, ()))
    budget.write()


@pytest.mark.parametrize("workers", WORKERS, ids=("alone", "workers"))
def test_refusals_and_overruns_are_reported(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    _files(pytester, 5)
    args = ("--bpf-check", "*.lisp", "--bpf-check", "*.o", "--bpf-budget", "budget.json")
    result = pytester.runpytest(*QUICKLY, *workers, *args, "--bpf-sarif", "out.sarif", "--bpf-annotations")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "blocker.o: over-budget: port_blocker on 6.18: 31 instructions processed, 5 more than the budget of 26*",
            "not in the budget: fw.lisp: good on 6.18; *",
        ]
    )
    lines = [line for line in result.outlines if line.startswith("::error file=")]
    assert len(lines) == 2
    assert any(",line=2,title=refused[packet-bounds]::bad on 6.18: " in line for line in lines)
    (run,) = json.loads((pytester.path / "out.sarif").read_text())["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["over-budget", "packet-bounds"]
    assert sorted((one["ruleId"], one["ruleIndex"]) for one in run["results"]) == [
        ("over-budget", 0),
        ("packet-bounds", 1),
    ]


def test_what_fits_passes_and_an_empty_report_is_written(pytester: pytest.Pytester) -> None:
    _files(pytester, 0)
    result = pytester.runpytest(
        *QUICKLY, "--bpf-check", "*.o", "--bpf-budget", "budget.json", "--bpf-sarif", "out.sarif"
    )
    result.assert_outcomes(passed=1)
    (run,) = json.loads((pytester.path / "out.sarif").read_text())["runs"]
    assert run["results"] == run["tool"]["driver"]["rules"] == []


def test_a_budget_that_cannot_be_read_is_a_usage_error(pytester: pytest.Pytester) -> None:
    (pytester.path / "budget.json").write_text("{")
    for name, said in (("budget.json", "no budget"), ("none.json", "--update-budget writes it")):
        result = pytester.runpytest(*QUICKLY, "--bpf-budget", name)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: bpf: *{said}*"])
