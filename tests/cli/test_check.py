"""`bpflisp check`: verdicts, forms of output, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.calling import PORT_BLOCKER, REFUSED_LISP, ROOT, SYN_LIMITER, call

KEYS = {
    "file", "program", "section", "type", "kernel", "accepted", "code", "message", "insn", "line", "insns_processed",
}  # fmt: skip


@pytest.fixture
def refused(tmp_path: Path) -> str:
    path = tmp_path / "bad.lisp"
    path.write_text(REFUSED_LISP)
    return str(path)


def test_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    called = call(capsys, "check", PORT_BLOCKER)
    assert called.code == 0
    assert called.out.startswith(f"{PORT_BLOCKER}: port_blocker: accepted by 6.18.44, ")
    assert called.err == ""


def test_refused(capsys: pytest.CaptureFixture[str], refused: str) -> None:
    called = call(capsys, "check", PORT_BLOCKER, refused)
    assert called.code == 1
    assert f"{refused}:2: refused[packet-bounds]: bad on 6.18.44: R" in called.out
    assert "offset is outside of the packet" in called.out


def test_json_of_several_files_and_kernels(capsys: pytest.CaptureFixture[str], refused: str) -> None:
    called = call(capsys, "check", SYN_LIMITER, refused, "--kernel", "6.1", "--kernel", "6.18", "--format", "json")
    rows = json.loads(called.out)
    assert called.code == 1
    assert all(set(row) == KEYS for row in rows)
    assert [(row["program"], row["kernel"], row["accepted"]) for row in rows] == [
        ("syn_limiter", "6.1", True),
        ("syn_limiter", "6.18", True),
        ("bad", "6.1", False),
        ("bad", "6.18", False),
    ]
    bad = rows[-1]
    assert (bad["section"], bad["type"], bad["code"], bad["line"]) == ("xdp", "xdp", "packet-bounds", 2)
    assert isinstance(bad["insn"], int)
    assert rows[0]["code"] is rows[0]["message"] is rows[0]["insn"] is rows[0]["line"] is None
    assert rows[0]["insns_processed"] > 0


def test_sarif(capsys: pytest.CaptureFixture[str], refused: str) -> None:
    (run,) = json.loads(call(capsys, "check", PORT_BLOCKER, refused, "--format", "sarif").out)["runs"]
    (result,) = run["results"]
    (rule,) = run["tool"]["driver"]["rules"]
    assert (rule["id"], rule["name"]) == ("packet-bounds", "PacketBounds")
    assert rule["properties"]["page"] == "docs/refusals/packet-bounds.md"
    assert rule["shortDescription"]["text"]
    assert rule["help"]["text"]
    assert result["ruleIndex"] == 0
    assert result["ruleId"] == "packet-bounds"
    place = result["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": Path(refused).as_uri()}, "region": {"startLine": 2}}


def test_github(capsys: pytest.CaptureFixture[str], refused: str) -> None:
    called = call(capsys, "check", PORT_BLOCKER, refused, "--format", "github")
    (line,) = called.out.splitlines()
    assert line.startswith(f"::error file={refused},line=2,title=refused[packet-bounds]::bad on 6.18: ")


def test_github_says_nothing_of_what_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "check", PORT_BLOCKER, "--format", "github").out == ""


def test_junit(capsys: pytest.CaptureFixture[str], refused: str) -> None:
    called = call(capsys, "check", PORT_BLOCKER, refused, "/nonexistent.o", "--format", "junit")
    root = ElementTree.fromstring(called.out)
    assert [root.get(key) for key in ("tests", "failures", "errors")] == ["3", "1", "1"]
    accepted, failed, unread = (suite[0] for suite in root)
    assert list(accepted) == []
    failure = failed.find("failure")
    assert failure is not None
    assert failure.get("type") == "packet-bounds"
    assert "offset is outside of the packet" in str(failure.text)
    error = unread.find("error")
    assert error is not None
    assert "No such file" in str(error.get("message"))


def test_a_pipe_gets_no_colours(capsys: pytest.CaptureFixture[str], refused: str) -> None:
    assert "\x1b" not in call(capsys, "check", PORT_BLOCKER, refused).out


def test_the_others_are_checked_where_one_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    called = call(capsys, "check", "/nonexistent.o", PORT_BLOCKER)
    assert called.code == 2
    assert "port_blocker: accepted" in called.out
    assert called.err == "/nonexistent.o: error[file]: No such file or directory\n"


def _on_a_terminal(*args: str, **environment: str) -> str:
    """What a command writes where its output is a terminal."""
    ours, theirs = os.openpty()
    variables = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | environment
    command = [sys.executable, "-m", "bpflisp", *args]
    subprocess.run(command, stdout=theirs, stderr=theirs, cwd=ROOT, env=variables, check=False)
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # EIO: the terminal's other end is closed
            part = b""
        if not part:
            os.close(ours)
            return written.decode()
        written += part


def test_a_terminal_gets_colours_unless_no_color_is_set() -> None:
    assert "\x1b[32maccepted" in _on_a_terminal("check", PORT_BLOCKER)
    assert "port_blocker: accepted by" in _on_a_terminal("check", PORT_BLOCKER, NO_COLOR="1")


def test_a_kernel_that_was_not_asked_is_named_so(capsys: pytest.CaptureFixture[str]) -> None:
    called = call(capsys, "check", "--kernel", "6.6", "--kernel", "6.1", PORT_BLOCKER)
    notes = [line for line in called.out.splitlines() if "was not measured" in line]
    assert called.code == 0
    assert len(notes) == 1
    assert "kernel 6.6.0" in notes[0]
