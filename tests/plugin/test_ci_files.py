"""What other machines read: the action, the hook, the workflows of the page about CI. Read as they read it, and run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bpflisp.spec.kernels import profile
from tests.cli.calling import call
from tests.plugin.objects import ROOT

yaml = pytest.importorskip("yaml")

EXAMPLE = ROOT / "examples" / "firewall"
PAGE = ROOT / "docs" / "tutorials" / "ci.md"
STEP_KEYS = {"uses", "with", "run", "shell", "env", "name", "if", "id", "working-directory"}
PIN = re.compile(r"^[\w.-]+/[\w./-]+@v\d+(\.\d+)*$")


def _read(text: str) -> Any:
    return yaml.safe_load(text)


def _blocks() -> list[Any]:
    return [_read(text) for text in re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)]


def _require_steps(steps: Sequence[Mapping[str, Any]], composite: bool = False) -> None:
    """What GitHub asks of steps: an action that is pinned or a command, never both; in an action with its shell."""
    for step in steps:
        assert set(step) <= STEP_KEYS, step
        assert ("uses" in step) != ("run" in step), step
        assert "uses" not in step or PIN.match(step["uses"]), step
        assert not (composite and "run" in step) or step.get("shell") == "bash", step
        assert all(isinstance(value, str) for value in step.get("with", {}).values()), step


ACTION = _read((ROOT / "action.yml").read_text())


def test_the_action_is_one() -> None:
    assert {"name", "description", "inputs", "runs"} == set(ACTION)
    assert ACTION["runs"]["using"] == "composite"
    _require_steps(ACTION["runs"]["steps"], composite=True)
    for about in ACTION["inputs"].values():
        assert set(about) <= {"description", "required", "default"}
        assert about["description"]
        assert ("default" in about) != about.get("required", False)
    asked = set(re.findall(r"\$\{\{ inputs\.([\w-]+) \}\}", (ROOT / "action.yml").read_text()))
    assert asked == set(ACTION["inputs"])
    for kernel in ACTION["inputs"]["kernels"]["default"].split():
        profile(kernel)


def _action(folder: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Runs the action's last step as GitHub does: its script by bash, its environment from the inputs."""
    step = ACTION["runs"]["steps"][-1]
    given = {name: about.get("default", "") for name, about in ACTION["inputs"].items()} | inputs
    environment = {
        name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: given[found[1]], value)
        for name, value in step["env"].items()
    }
    (folder / "bin").mkdir()
    command = folder / "bin" / "bpflisp"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m bpflisp "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=folder,
        env={**os.environ, **environment, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_action_accepts(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "build", tmp_path / "build")
    done = _action(tmp_path, objects="build/*.o", kernels="6.1 6.18")
    assert (done.returncode, "::error" in done.stdout) == (0, False), done.stderr


def test_the_action_refuses_with_annotations(tmp_path: Path) -> None:
    (tmp_path / "bad.lisp").write_text("(defprog bad (:type :xdp)\n  (load u8 (ctx u32 0) 0))\n")
    done = _action(tmp_path, objects="*.lisp")
    assert done.returncode == 1
    assert done.stdout.startswith("::error file=bad.lisp,line=2,title=refused[packet-bounds]::bad on 6.18: ")


def test_the_action_does_not_pass_over_a_pattern_without_files(tmp_path: Path) -> None:
    done = _action(tmp_path, objects="build/*.o")
    assert done.returncode == 2
    assert "build/*.o" in done.stderr


def test_the_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (hook,) = _read((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert {"id", "name", "entry", "language"} <= set(hook)
    assert hook["language"] == "python"
    assert [
        name for name in ("build/fw.bpf.o", "fw.lisp", "fw.c", "fw.lisp.txt") if re.search(hook["files"], name)
    ] == [
        "build/fw.bpf.o",
        "fw.lisp",
    ]
    (used,) = (each for block in _blocks() if "repos" in block for repo in block["repos"] for each in repo["hooks"])
    assert used["id"] == hook["id"]
    shutil.copytree(EXAMPLE / "build", tmp_path / "build")
    monkeypatch.chdir(tmp_path)
    # pre-commit appends the files to the arguments.
    program, *words = [*shlex.split(hook["entry"]), *map(str, used["args"]), "build/firewall.bpf.o"]
    assert program == "bpflisp"
    called = call(capsys, *words)
    assert (called.code, called.out.count("accepted")) == (0, 2)


def test_the_workflows_are_ones() -> None:
    workflow, steps, gitlab, _ = _blocks()
    # YAML 1.1 reads "on" as true.
    assert set(workflow) == {"name", True, "jobs"}
    (job,) = workflow["jobs"].values()
    assert set(job) == {"runs-on", "steps"}
    _require_steps(job["steps"])
    _require_steps(steps)
    given = job["steps"][-1]["with"]
    assert set(given) <= set(ACTION["inputs"])
    assert {name for name, about in ACTION["inputs"].items() if about.get("required")} <= set(given)
    for kernel in given["kernels"].split():
        profile(kernel)
    (job,) = gitlab.values()
    assert set(job) == {"image", "script", "coverage", "artifacts"}
    reports = job["artifacts"]["reports"]
    assert set(reports) == {"junit", "coverage_report"}
    assert set(reports["coverage_report"]) == {"coverage_format", "path"}
    assert reports["coverage_report"]["coverage_format"] == "cobertura"
    # What the script writes is what the job hands over; test_tutorials runs the script.
    script = " ".join(job["script"])
    assert f"--junitxml={reports['junit']}" in script
    assert f"cobertura:{reports['coverage_report']['path']}" in script
    assert re.compile(job["coverage"].strip("/")).search("total    107  107   100%     11/18")[1] == "100"  # type: ignore[index]
