"""What the documentation shows is what happens: its Python is run by pytest, its commands print what it says."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.calling import call
from tests.plugin.loaded import LOADED
from tests.plugin.objects import PORT_BLOCKER, ROOT
from tests.plugin.test_plugin import QUICKLY

pytest_plugins = ("pytester",)

assert LOADED

DOCS = ROOT / "docs"


def blocks(name: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (DOCS / name).read_text(), re.MULTILINE | re.DOTALL)
    return [text for written, text in found if written == language]


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


def test_the_failure_of_the_plugin_page_is_shown_so(pytester: pytest.Pytester) -> None:
    _files(pytester.path)
    first = blocks("plugin.md", "python")[0].partition("def test_")[0]
    wanted = 'IP(src="10.0.0.1", dst="10.0.0.2", ttl=63) / TCP(dport=23)'
    pytester.makepyfile(f"{first}\ndef test_it():\n    assert fw(TELNET) == Pass.with_packet(ETH / {wanted})\n")
    printed = pytester.runpytest(*QUICKLY).outlines
    shown = blocks("plugin.md", "text")[0].splitlines()
    start = printed.index(shown[0])
    assert [line for line in shown if line not in printed[start:]] == []


@pytest.mark.parametrize("command", re.findall(r"^\$ (pytest .*)$", "\n".join(blocks("plugin.md", "console")), re.M))
def test_the_commands_of_the_plugin_page_work(command: str, pytester: pytest.Pytester) -> None:
    shutil.copytree(ROOT / "examples" / "firewall", pytester.path, dirs_exist_ok=True)
    result = pytester.runpytest("-p", "no:cacheprovider", *shlex.split(command)[1:])
    assert result.ret == 0
    if "--bpf-cov" in command:
        assert (pytester.path / "cov" / "index.html").is_file()
    else:
        result.stdout.fnmatch_lines(["6.1 *1 *0 *0", "6.18 *1 *0 *0"])


def test_the_python_of_the_page_of_engines_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("unicorn")
    _files(tmp_path)
    monkeypatch.chdir(tmp_path)
    for block in blocks("engines.md", "python"):
        exec(block, {})


def _readme_files(folder: Path) -> None:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether
    from scapy.utils import wrpcap

    _files(folder)
    (folder / "build").mkdir()
    shutil.copy(PORT_BLOCKER, folder / "build" / "fw.bpf.o")
    shutil.copy(folder / "syn.lisp", folder / "limiter.lisp")
    shutil.copy(folder / "refused.log", folder / "verifier.log")
    wrpcap(str(folder / "capture.pcap"), [Ether() / IP() / TCP(dport=23)])


def test_the_python_of_the_readme_passes(pytester: pytest.Pytester) -> None:
    _readme_files(pytester.path)
    pytester.makepyfile(blocks("../README.md", "python")[0])
    pytester.runpytest(*QUICKLY).assert_outcomes(passed=3)


def test_the_commands_of_the_readme_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _readme_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^\$ bpflisp (.*?)(?:\s+#.*)?$", "\n".join(blocks("../README.md", "console")), re.M)
    assert len(commands) >= 6
    for command in commands:
        if "--budget" in command:
            assert call(capsys, *shlex.split(command), "--update-budget").code == 0
        assert call(capsys, *shlex.split(command)).code == 0, command


RUN = {
    "plugin.md": {"python", "console", "text"},
    "cli.md": {"console", "lisp", "text", ""},
    "engines.md": {"python"},
    "world.md": {"python"},
    "../README.md": {"python", "console"},
    "architecture.md": {""},
    "fidelity.md": {""},
}
"""Pages with blocks, and the languages of those that tests run or read; those of the last two are drawings and figures.
Tutorials are run as a whole (test_tutorials), the language's and the refusals' pages by tests of theirs."""


def test_no_block_of_the_pages_is_left_out() -> None:
    of_their_own = {"tutorials", "language", "refusals"}
    pages = [page.relative_to(DOCS) for page in DOCS.rglob("*.md") if page.parent.name not in of_their_own]
    for page in [*map(str, pages), "../README.md"]:
        languages = set(re.findall(r"^```(\w*)\n.*?^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL))
        assert languages <= RUN.get(page, set()), page


def test_what_a_program_that_grew_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The block without a language of the page about the command line, with the figures that last."""
    _files(tmp_path)
    monkeypatch.chdir(tmp_path)
    call(capsys, "check", "fw.bpf.o", "--budget", "budget.json", "--update-budget")
    budget = json.loads(Path("budget.json").read_text())
    entry = budget["programs"]["fw.bpf.o"]["port_blocker"]["6.18"]
    entry["processed"] -= 5
    grown = next(line for line in entry["lines"] if line[1] == 30)
    grown[2] -= 5
    Path("budget.json").write_text(json.dumps(budget))
    called = call(capsys, "check", "fw.bpf.o", "--budget", "budget.json")
    assert called.code == 1
    (shown,) = [block for block in blocks("cli.md", "") if "over-budget" in block]
    said = (called.out + called.err).splitlines()
    assert [line for line in map(str.strip, shown.splitlines()) if line not in map(str.strip, said)] == []


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
