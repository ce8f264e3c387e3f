"""--bpf-budget, --bpf-sarif and --bpf-annotations, in one process and with workers."""

from __future__ import annotations

import json
import shutil

import pytest

from simulator import Budget, effort, load
from tests.plugin.loaded import LOADED
from tests.plugin.objects import PORT_BLOCKER, ROOT
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


# What is checked, and how it is chosen


PLAIN = QUICKLY[2:]
"""Options of a run that keeps what failed."""


def test_an_object_given_by_name_is_checked(pytester: pytest.Pytester) -> None:
    (pytester.path / "fw.lisp").write_text(BAD_LISP)
    pytester.runpytest(*QUICKLY, "fw.lisp").assert_outcomes(passed=1, failed=1)
    pytester.runpytest(*QUICKLY, "fw.lisp::good[6.18]").assert_outcomes(passed=1)
    pytester.runpytest(*QUICKLY, "fw.lisp", "--bpf-check", "*.lisp").assert_outcomes(passed=1, failed=1)
    pytester.runpytest(*QUICKLY, "fw.lisp", "-n1").assert_outcomes(passed=1, failed=1)
    pytester.runpytest(*QUICKLY).assert_outcomes()


def test_what_failed_last_is_checked_again(pytester: pytest.Pytester) -> None:
    (pytester.path / "fw.lisp").write_text(BAD_LISP)
    shutil.copy(PORT_BLOCKER, pytester.path / "blocker.o")
    args = ("--bpf-check", "*.lisp", "--bpf-check", "*.o")
    pytester.runpytest(*PLAIN, *args).assert_outcomes(passed=2, failed=1)
    result = pytester.runpytest(*PLAIN, *args, "--lf", "-v")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*collected 1 item", "fw.lisp::bad[[]6.18[]] FAILED*"])


def test_the_ini_file_s_objects_go_with_folders_and_not_with_single_tests(pytester: pytest.Pytester) -> None:
    (pytester.path / "fw.lisp").write_text("(defprog good (:type :xdp) XDP_PASS)")
    pytester.makepyfile(test_one="def test_it(): pass\ndef test_other(): pass\n")
    pytester.makeini("[pytest]\nbpf_check = *.lisp\n")
    for args, passed in (
        ((), 3),
        ((".",), 3),
        ((pytester.path,), 3),
        (("test_one.py",), 2),
        (("test_one.py::test_it",), 1),
        (("test_one.py::test_it", "."), 3),
        (("test_one.py", "--bpf-check", "*.lisp"), 3),
        (("-n1",), 3),
        (("test_one.py", "-n1"), 2),
    ):
        pytester.runpytest(*QUICKLY, *args).assert_outcomes(passed=passed)
    pytester.makeini("[pytest]\nbpf_check = *.lisp\ntestpaths = test_one.py\n")
    pytester.runpytest(*QUICKLY).assert_outcomes(passed=3)


def test_collecting_tells_every_item_and_counts_it(pytester: pytest.Pytester) -> None:
    (pytester.path / "fw.lisp").write_text(BAD_LISP)
    args = (*QUICKLY, "--bpf-check", "*.lisp", "--co")
    pytester.runpytest(*args, "-q").stdout.fnmatch_lines(
        ["fw.lisp::bad[[]6.18[]]", "fw.lisp::good[[]6.18[]]", "2 tests collected *"]
    )
    result = pytester.runpytest(*args, "-k", "good")
    result.stdout.fnmatch_lines(["collected 2 items / 1 deselected / 1 selected", "*<CheckItem good[[]6.18[]]>"])


def test_an_object_without_a_program_is_an_item_too(pytester: pytest.Pytester) -> None:
    shutil.copy(ROOT / "fixtures" / "objects" / "core_target.bpf.o", pytester.path / "types.o")
    result = pytester.runpytest(*QUICKLY, "-v", "--bpf-check", "*.o")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["types.o::load PASSED*"])


def test_the_summary_has_room_for_the_reason(pytester: pytest.Pytester) -> None:
    (pytester.path / "fw.lisp").write_text(BAD_LISP)
    pytester.makepyfile(
        test_it="from simulator import load\n"
        "obj = load('fw.lisp')\n"
        "def test_it(): obj['bad'](bytes(14))\n"
        "def test_fault(): obj['bad'](bytes(14), verify=False, fuel=1)\n"
    )
    result = pytester.runpytest(*QUICKLY, "--bpf-check", "*.lisp", f"--junitxml={pytester.path / 'out.xml'}")
    result.stdout.fnmatch_lines(
        ["FAILED *::test_it - refused[[]packet-b*", "FAILED fw.lisp::bad[[]6.18[]] - fw.lisp:2: refused[[]packet-b*"]
    )
    text = (pytester.path / "out.xml").read_text()
    assert 'message="refused[packet-bounds]: bad on 6.18.44: ' in text
    # The check runs on no engine, and the tests that call programs do.
    assert text.count('name="bpf_engine"') == 2
    assert text.count('name="bpf_kernel"') == 2


def test_what_a_verdict_warns_of_is_a_warning(pytester: pytest.Pytester) -> None:
    """A number plus a pointer to the stack of the function in between, which 6.18 takes for the first one's."""
    pytester.path.joinpath("astray.lisp").write_text("""
(defsubprog inner (p i) (store u8 (+ i p) 0 7))
(defsubprog outer (i) (let ((n (struct-alloc 16))) (inner n (logand i 3)) (load u8 n 0)))
(defprog astray (:type :xdp) (with-packet (data end :min-len 14) (return (outer (load u8 data 0)))) 0)
""")
    result = pytester.runpytest("--bpf-check", "astray.lisp", "-W", "default")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*astray.lisp:1: UserWarning: astray*may overwrite registers*"])


def test_what_an_object_leaves_to_its_loader_is_a_warning(pytester: pytest.Pytester) -> None:
    """The programs are accepted, and no kernel makes the map as it stands; libbpf opens no object of rustc."""
    for name in ("configured.bpf.o", "rustc.bpf.o"):
        shutil.copy(ROOT / "fixtures" / "objects" / name, pytester.path / name)
    result = pytester.runpytest("--bpf-check", "*.o", "-W", "default")
    result.assert_outcomes(passed=2, warnings=3)
    result.stdout.fnmatch_lines_random(
        [
            "*configured.bpf.o:1: UserWarning: map 'counts' has no entries*",
            "*rustc.bpf.o:1: UserWarning: .text.count: *",
        ]
    )
