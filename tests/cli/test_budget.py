"""`bpflisp check --budget`: a baseline of processed instructions, written, kept and exceeded."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from simulator import Budget, effort, load
from tests.agreement.fixtures import all_fixtures
from tests.cli.calling import PORT_BLOCKER, REFUSED_LISP, SYN_LIMITER, call


@pytest.fixture
def budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A budget of two files."""
    path = tmp_path / "budget.json"
    called = call(capsys, "check", PORT_BLOCKER, SYN_LIMITER, "--budget", str(path), "--update-budget")
    assert (called.code, called.err) == (0, "")
    return path


def lowered(path: Path, by: int = 5) -> None:
    """Makes every budget smaller, and each first line's."""
    data = json.loads(path.read_text())
    for programs in data["programs"].values():
        for kernels in programs.values():
            for row in kernels.values():
                row["processed"] -= by
                row["lines"][0][2] -= by
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("found", all_fixtures(), ids=lambda found: str(found.name))
def test_efforts_add_up_to_what_the_verifier_counts(found: object) -> None:
    twin = next(one.twin for one in all_fixtures() if one is found)
    for program in load(twin).values():
        spent = effort(program)
        assert spent.processed == program.verify().insns_processed == sum(line.processed for line in spent.lines)


def test_what_fits_passes(capsys: pytest.CaptureFixture[str], budget: Path) -> None:
    called = call(capsys, "check", PORT_BLOCKER, SYN_LIMITER, "--budget", str(budget))
    assert (called.code, called.err) == (0, "")


def test_a_budget_is_written_alike_each_time(capsys: pytest.CaptureFixture[str], budget: Path) -> None:
    before = budget.read_text()
    call(capsys, "check", SYN_LIMITER, PORT_BLOCKER, "--budget", str(budget), "--update-budget")
    assert budget.read_text() == before


def test_what_grew_is_told_with_its_lines(capsys: pytest.CaptureFixture[str], budget: Path) -> None:
    lowered(budget)
    called = call(capsys, "check", PORT_BLOCKER, "--budget", str(budget))
    assert called.code == 1
    assert "over-budget: port_blocker on 6.18: 31 instructions processed, 5 more than the budget of 26, 19.2%" in (
        called.out
    )
    assert "  | lines that grew\n  |       +5  port_blocker.c:" in called.out


def test_every_form_tells_it(capsys: pytest.CaptureFixture[str], budget: Path) -> None:
    lowered(budget)
    out = {
        form: call(capsys, "check", PORT_BLOCKER, "--budget", str(budget), "--format", form).out
        for form in ("json", "sarif", "github", "junit")
    }
    (row,) = json.loads(out["json"])
    assert (row["accepted"], row["budget"], row["grown"][0]["more"]) == (True, 26, 5)
    (run,) = json.loads(out["sarif"])["runs"]
    assert run["results"][0]["ruleId"] == run["tool"]["driver"]["rules"][0]["id"] == "over-budget"
    assert ",title=over-budget::port_blocker on 6.18: 31 instructions" in out["github"]
    failure = ElementTree.fromstring(out["junit"])[0][0][0]
    assert (failure.tag, failure.get("type")) == ("failure", "over-budget")


def test_what_is_not_in_the_budget_is_noted(capsys: pytest.CaptureFixture[str], tmp_path: Path, budget: Path) -> None:
    called = call(capsys, "check", PORT_BLOCKER, "--budget", str(budget), "--kernel", "6.1")
    assert called.code == 0
    assert "port_blocker on 6.1 is not in" in called.err


def test_refused_programs_have_no_budget(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source, path = tmp_path / "bad.lisp", tmp_path / "budget.json"
    source.write_text(REFUSED_LISP)
    called = call(capsys, "check", str(source), "--budget", str(path), "--update-budget")
    assert called.code == 1
    assert json.loads(path.read_text()) == {"version": 1, "programs": {}}


def test_other_files_and_kernels_are_kept(capsys: pytest.CaptureFixture[str], budget: Path) -> None:
    call(capsys, "check", PORT_BLOCKER, "--budget", str(budget), "--kernel", "6.1", "--update-budget")
    kept = Budget.read(budget)
    assert kept.allowed(SYN_LIMITER, "syn_limiter", "6.18") is not None
    assert kept.allowed(PORT_BLOCKER, "port_blocker", "6.18") is not None
    assert kept.allowed(PORT_BLOCKER, "port_blocker", "6.1") is not None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2, "programs": {}}', '{"version": 1, "programs": [3]}'])
def test_what_is_no_budget_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str) -> None:
    path = tmp_path / "budget.json"
    path.write_text(text)
    called = call(capsys, "check", PORT_BLOCKER, "--budget", str(path))
    assert called.code == 2
    assert called.err.startswith("--budget: error[budget]: ")


def test_a_budget_that_is_not_there_says_how_to_write_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    called = call(capsys, "check", PORT_BLOCKER, "--budget", str(tmp_path / "none.json"))
    assert called.code == 2
    assert "--update-budget writes it" in called.err
    assert call(capsys, "check", PORT_BLOCKER, "--update-budget").code == 2


def test_lines_are_known_by_their_text(tmp_path: Path) -> None:
    program = load(PORT_BLOCKER)["port_blocker"]
    needs = effort(program)
    budget = Budget(tmp_path / "b.json")
    moved = [type(one)(one.file, one.line + 7, one.text, one.processed) for one in needs.lines]
    budget.note("a.o", "p", "6.18", type(needs)(needs.processed - 1, moved))
    over = budget.overrun("a.o", "p", "6.18", needs)
    assert over is not None
    assert over.grown == ()
