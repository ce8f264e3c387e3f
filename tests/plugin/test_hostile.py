"""What no tutorial shows: garbage to check, hundreds of programs, no cache, python -O, files that cannot be written."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugin.loaded import LOADED
from tests.plugin.objects import PORT_BLOCKER, ROOT
from tests.plugin.test_plugin import BAD_LISP, HEAD, QUICKLY, run

pytest_plugins = ("pytester",)

assert LOADED


def _garbage(folder: Path) -> int:
    """Writes what is no object in many ways; how many of them have to fail."""
    chance, good = random.Random(1), PORT_BLOCKER.read_bytes()
    wrong: dict[str, bytes] = {
        "empty.o": b"",
        "text.o": b"hello\n",
        "random.o": chance.randbytes(3000),
        "head.o": good[:64],
        "cut.o": good[: len(good) // 2],
        "host.o": Path(sys.executable).resolve().read_bytes()[:20_000],
        "nul.lisp": b"\0\0(defprog",
        "latin.lisp": "(defprog é".encode("latin1"),
        "deep.lisp": b"(" * 5000,
        "blank.lisp": b"",
    }
    for name, data in wrong.items():
        (folder / name).write_bytes(data)
    (folder / "dangling.o").symlink_to("nowhere")
    (folder / "folder.o").mkdir()
    for number in range(40):
        changed = bytearray(good)
        for _ in range(8):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        (folder / f"changed_{number}.o").write_bytes(changed)
    return len(wrong) + 1


@pytest.mark.parametrize("workers", [(), ("-n1",)], ids=["alone", "workers"])
def test_garbage_is_told_a_message_each(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    least = _garbage(pytester.path)
    result = pytester.runpytest(*QUICKLY, *workers, "--bpf-check", "*.o", "--bpf-check", "*.lisp", "--tb=short")
    outcomes = result.parseoutcomes()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert outcomes["failed"] >= least
    assert set(outcomes) <= {"failed", "passed"}
    for line in ("*Traceback*", "*INTERNALERROR*", "*/simulator/*.py*", "*/bpflisp/*.py*"):
        result.stdout.no_fnmatch_line(line)
    result.stdout.fnmatch_lines(["*No such file or directory: 'dangling.o'*"])


def test_two_hundred_programs(pytester: pytest.Pytester) -> None:
    """One in four is refused; each is an item, on any worker, and each can be asked for alone."""
    good, bad = "(defprog p{} (:type :xdp) {})", "(defprog p{} (:type :xdp) (load u8 (ctx u32 0) {}))"
    (pytester.path / "many.lisp").write_text("\n".join((good if at % 4 else bad).format(at, at) for at in range(200)))
    args = (*QUICKLY, "--bpf-check", "many.lisp", "--tb=no")
    pytester.runpytest(*args).assert_outcomes(passed=150, failed=50)
    pytester.runpytest(*args, "-n2", "--dist=worksteal").assert_outcomes(passed=150, failed=50)
    pytester.runpytest(*args, "-x").assert_outcomes(failed=1)
    pytester.runpytest(*args, "-k", "p7 or p8").assert_outcomes(passed=16, failed=6, deselected=178)
    pytester.runpytest(*QUICKLY, "--tb=no", "many.lisp::p199[6.18]").assert_outcomes(passed=1)


def test_optimised_python(pytester: pytest.Pytester) -> None:
    """python -O drops our assertions, and none of what the plugin finds."""
    (pytester.path / "fw.lisp").write_text(BAD_LISP)
    pytester.makepyfile(
        "from simulator import load\n"
        "import pytest\n"
        "obj = load('fw.lisp')\n"
        "def test_it(bpf):\n"
        "    if bpf(obj).good(bytes(14)) != 2: pytest.fail('no')\n"
        "    if obj['bad'].verify().accepted: pytest.fail('no')\n"
    )
    command = [sys.executable, "-O", "-m", "pytest", *QUICKLY, "--bpf-check", "*.lisp", "--bpf-cov"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=pytester.path, env=environment, capture_output=True, text=True, check=False)
    assert "1 failed, 2 passed" in done.stdout
    assert "refused[packet-bounds]" in done.stdout
    assert "::good" in done.stdout


def test_reports_that_cannot_be_written_fail_and_are_told(pytester: pytest.Pytester) -> None:
    (pytester.path / "fw.lisp").write_text("(defprog good (:type :xdp) XDP_PASS)")
    (pytester.path / "file").touch()
    for option, said in (
        ("--bpf-sarif", "SARIF"),
        ("--bpf-cov-report=lcov", "lcov"),
        ("--bpf-cov-report=html", "html"),
    ):
        target = f"{option}{':' if '=' in option else '='}file/x"
        result = run(pytester, "def test_it(): assert fw(PACKET) == Pass\n", target, "--bpf-check", "*.lisp")
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.fnmatch_lines([f"{said} report not written: *file*"])
        result.stdout.no_fnmatch_line("*INTERNALERROR*")
    result = pytester.runpytest(*QUICKLY, "--bpf-check", "*.lisp", "--bpf-sarif=new/folder/x.sarif")
    assert result.ret == 0
    assert (pytester.path / "new" / "folder" / "x.sarif").is_file()


def test_without_a_database_and_without_a_cache(pytester: pytest.Pytester) -> None:
    body = """
from hypothesis import given, settings
from pytest_plugin.strategies import maps, packets

@settings(database=None, max_examples=30, deadline=None)
@given(packets(program=fw, malformed=True), maps(obj))
def test_it(bpf, packet, state):
    assert fw(packet, maps=state) == Pass or state["blocked"]
"""
    pytester.makepyfile(test_it=HEAD + body)
    result = pytester.runpytest("-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(passed=1)
    assert not (pytester.path / ".hypothesis" / "examples").exists()


def test_the_debugger_stops_at_the_user_s_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=HEAD + "def call(): return BAD(bytes(14))\ndef test_it(): call()\n")
    command = [sys.executable, "-m", "pytest", *QUICKLY, "-x", "--pdb"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=pytester.path, env=environment, input="w\nq\n", capture_output=True, text=True, check=False
    )
    shown = done.stdout.partition("entering PDB")[2].partition("short test summary")[0]
    assert "-> def call(): return BAD(bytes(14))" in shown
    assert "simulator/" not in shown
