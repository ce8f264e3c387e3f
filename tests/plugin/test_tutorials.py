"""The tutorials do what they say: their files are written, their commands run, what they print is what is shown.

A block whose first line names a file is that file, or goes on with it. In what a command prints, "..." stands for
anything, and every line shown is to come, in order.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.plugin.objects import ROOT

PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
_NAMED = re.compile(r"^(?:#|;|//) (\S+\.\w+)$")
_RULES = re.compile(r"[-=_]{2,}")
_NOT_HERE = ("pip ", "cd ", "cp ")
"""What a reader does before: here the package is there, and so are the files."""


def _blocks(page: Path) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def _write(folder: Path, text: str) -> None:
    named = _NAMED.match(text.partition("\n")[0])
    if named is None:
        return
    target = folder / named[1]
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("a") as file:
        file.write(text.partition("\n")[2])


def _prepared(folder: Path) -> None:
    shutil.copytree(ROOT / "examples" / "firewall" / "build", folder / "build")
    shutil.copytree(ROOT / "examples" / "firewall" / "src", folder / "src")
    shutil.copy(ROOT / "fixtures" / "programs" / "rate_limiter" / "program.lisp", folder / "rate_limiter.lisp")


def _run(command: str, folder: Path) -> str:
    words = shlex.split(command)
    module = {"pytest": ["pytest", "-p", "no:cacheprovider"], "bpflisp": ["bpflisp"]}[words[0]]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", *module, *words[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def _holds(printed: str, shown: str) -> str:
    """The first shown line that did not come, "" where all did."""
    lines = iter([_RULES.sub("--", line).rstrip() for line in printed.splitlines()])
    for wanted in filter(None, map(str.rstrip, shown.splitlines())):
        pattern = re.sub(r"\s*\.\.\.\s*", "*", _RULES.sub("--", wanted).replace("[", "[[]"))
        if not any(fnmatchcase(line, pattern) or fnmatchcase(line.strip(), pattern) for line in lines):
            return wanted
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_does_what_it_says(page: Path, tmp_path: Path) -> None:
    _prepared(tmp_path)
    ran = 0
    for language, text in _blocks(page):
        if language != "console":
            _write(tmp_path, text)
            continue
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            if command.startswith(_NOT_HERE):
                continue
            printed = _run(command, tmp_path)
            missing = _holds(printed, shown)
            assert not missing, f"{command}: no line {missing!r} in\n{printed}"
            ran += 1
    assert ran


def test_the_commands_of_ci_work(tmp_path: Path) -> None:
    """Every line of the CI page that runs pytest, on the example."""
    shutil.copytree(ROOT / "examples" / "firewall", tmp_path / "firewall")
    text = (ROOT / "docs" / "tutorials" / "ci.md").read_text()
    commands = re.findall(r"^ +- (?:run: )?(pytest .*)$", text, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        printed = _run(command, tmp_path / "firewall")
        assert re.search(r"\d+ passed", printed), printed
        assert "lcov" in command or re.search(r"total.* (\d+)%", printed), printed
    assert (tmp_path / "firewall" / "cobertura.xml").is_file()
    assert (tmp_path / "firewall" / "cov.info").is_file()


def test_the_hook_and_the_action_name_commands_that_there_are() -> None:
    hook = (ROOT / ".pre-commit-hooks.yaml").read_text()
    files = re.search(r"files: (.*)", hook)
    assert files is not None
    assert re.search(files[1], "build/fw.bpf.o")
    action = (ROOT / "action.yml").read_text()
    assert "bpflisp check --format github" in action
    script = action.partition("run: |\n")[2]
    environment = {**os.environ, "OBJECTS": "build/*.o", "KERNELS": "6.1 6.18", "BPFLISP": sys.executable}
    text = script.replace("bpflisp check", '"$BPFLISP" -m bpflisp check')
    done = subprocess.run(
        ["bash", "-euc", text],
        cwd=ROOT / "examples" / "firewall",
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_pages_build(tmp_path: Path) -> None:
    """Every page that the site names is there, and MkDocs builds them without a warning: every link leads somewhere."""
    named = re.findall(r"[:-] (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert {"index.md", "plugin.md", "tutorials/firewall.md", "language/README.md"} <= set(named) <= pages
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "bpf_check" in (tmp_path / "site" / "tutorials" / "ci" / "index.html").read_text()
