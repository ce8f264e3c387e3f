"""What the documentation shows is what happens: its Python is run by pytest, its commands print what it says."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.calling import call
from tests.plugin.loaded import LOADED
from tests.plugin.objects import PORT_BLOCKER, ROOT

pytest_plugins = ("pytester",)

assert LOADED

DOCS = ROOT / "docs"


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / name).read_text(), re.MULTILINE | re.DOTALL)


def _files(folder: Path) -> None:
    shutil.copy(PORT_BLOCKER, folder / "fw.bpf.o")
    shutil.copy(ROOT / "fixtures" / "programs" / "syn_limiter" / "program.lisp", folder / "syn.lisp")
    (folder / "bad.lisp").write_text(blocks("cli.md", "lisp")[0])
    (folder / "refused.log").write_text(blocks("cli.md", "text")[0])


def test_the_python_of_the_plugin_page_passes(pytester: pytest.Pytester) -> None:
    _files(pytester.path)
    code = "\n".join(blocks("plugin.md", "python"))
    pytester.makepyfile(code)
    pytester.runpytest("-p", "no:cacheprovider").assert_outcomes(passed=code.count("\ndef test_") + 3)


def _lasting(text: str) -> str:
    """Without what changes as compiler and verifier get better: counts and registers, and the reasons of a refusal."""
    lines = [line for line in text.splitlines() if not line.startswith(("  | ", "  = "))]
    return re.sub(r"\d+", "N", "\n".join(lines))


def _commands() -> list[tuple[str, str]]:
    found = []
    for block in blocks("cli.md", "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command, printed))
    return found


@pytest.mark.parametrize(("command", "printed"), _commands(), ids=[command[:60] for command, _ in _commands()])
def test_the_commands_print_what_the_page_shows(
    command: str, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _files(tmp_path)
    monkeypatch.chdir(tmp_path)
    program, *args = shlex.split(command)
    assert program == "bpflisp"
    called = call(capsys, *args)
    assert called.code == ("bad.lisp" in command)
    assert _lasting(called.out + called.err) == _lasting(printed)
