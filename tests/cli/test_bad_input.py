"""Bad input: one clear message on standard error, the exit code of the contract, no traceback."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.calling import FIXTURES, PORT_BLOCKER, SYN_LIMITER, WRONG_LISP, call

PACKET = "00" * 14

# What is typed -> the start of the message. `{tmp}` is a folder with the files of `files`.
CASES: Sequence[tuple[Sequence[str], str]] = (
    (["check", "{tmp}/missing.o"], "{tmp}/missing.o: error[file]: No such file or directory"),
    (["check", "{tmp}"], "{tmp}: error[file]: Is a directory"),
    (["check", "{tmp}/wrong.lisp"], "{tmp}/wrong.lisp:2:3: error[unknown-form]: "),
    (["check", "{tmp}/truncated.o"], "{tmp}/truncated.o"),
    (["check", "{tmp}/random.o"], "{tmp}/random.o"),
    (["check", "{tmp}/empty.o"], "{tmp}/empty.o"),
    (["check", "{tmp}/not-text.lisp"], "{tmp}/not-text.lisp: error[not-text]: "),
    (["check", PORT_BLOCKER, "--kernel", "six"], "--kernel: error[unknown-kernel]: 'six' is no kernel version"),
    (["check", PORT_BLOCKER, "--kernel", "99.0"], "--kernel: error[unknown-kernel]: "),
    (["check", PORT_BLOCKER, "--kernel-btf", "{tmp}/missing"], "{tmp}/missing: error[file]: No such file or directory"),
    (["check", PORT_BLOCKER, "--kernel-btf", "{tmp}/random.o"], PORT_BLOCKER),
    (["check", PORT_BLOCKER, "--format", "html"], "bpflisp check: error[usage]: "),
    (["check"], "bpflisp check: error[usage]: missing argument 'FILE...'"),
    (["chekc", PORT_BLOCKER], "bpflisp: error[usage]: no such command 'chekc'"),
    (["compile", "{tmp}/missing.lisp"], "{tmp}/missing.lisp: error[file]: No such file or directory"),
    (["compile", SYN_LIMITER, "--kernel", "x"], "--kernel: error[unknown-kernel]: "),
    (["disasm", "{tmp}/truncated.o"], "{tmp}/truncated.o"),
    (["needs", "{tmp}/random.o"], "{tmp}/random.o"),
    (["run", PORT_BLOCKER], "bpflisp run: error[usage]: a xdp program runs on packets"),
    (["run", PORT_BLOCKER, "--packet", "00" * 13], "port_blocker: error[input]: packet 1: EINVAL: "),
    (["run", PORT_BLOCKER, "--packet", ""], "port_blocker: error[input]: packet 1: EINVAL: "),
    (["run", PORT_BLOCKER, "--packet", "Ether(/"], "--packet: error[packet]: 'Ether(/' is no hex, no file and no "),
    (["run", PORT_BLOCKER, "--packet", "IP"], "--packet: error[packet]: 'IP' is no hex, no file and no scapy "),
    (["run", PORT_BLOCKER, "--packet", "{tmp}/missing.pcap"], "{tmp}/missing.pcap: error[file]: No such file or "),
    (
        ["run", PORT_BLOCKER, "--packet", "{tmp}/random.o"],
        "{tmp}/random.o: error[pcap]: this is no pcap or pcapng file",
    ),
    (["run", PORT_BLOCKER, "--packet", "{tmp}/cut.pcap"], "{tmp}/cut.pcap: error[pcap]: "),
    (["run", PORT_BLOCKER, "--packet", "{tmp}/empty.o"], "{tmp}/empty.o: error[pcap]: "),
    (["run", PORT_BLOCKER, "--engine", "gpu", "--packet", PACKET], "--engine: error[unknown-engine]: no engine 'gpu'"),
    (["run", PORT_BLOCKER, "--prog", "port_bloker", "--packet", PACKET], PORT_BLOCKER + ": error[no-such-program]: "),
    (["run", PORT_BLOCKER, "--prog", "x", "--packet", PACKET], PORT_BLOCKER + ": error[no-such-program]: "),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    whole = Path(PORT_BLOCKER).read_bytes()
    (folder / "wrong.lisp").write_text(WRONG_LISP)
    (folder / "not-text.lisp").write_bytes(b"(defprog \xff\xfe")
    (folder / "truncated.o").write_bytes(whole[: len(whole) // 2])
    (folder / "random.o").write_bytes(b"\x7fELF" + random.Random(1).randbytes(2000))
    (folder / "empty.o").write_bytes(b"")
    pcap = bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000")
    (folder / "cut.pcap").write_bytes(pcap[:20])
    return folder


@pytest.mark.parametrize(("typed", "message"), CASES, ids=[" ".join(typed)[-50:] for typed, _ in CASES])
def test_one_message_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], files: Path, typed: Sequence[str], message: str
) -> None:
    called = call(capsys, *(part.replace("{tmp}", str(files)) for part in typed))
    assert called.code == 2, called
    assert called.err.startswith(message.replace("{tmp}", str(files))), called.err
    assert "Traceback" not in called.err
    assert "internal" not in called.err
    assert sum(": error[" in line for line in called.err.splitlines()) == 1
    assert called.out == ""


def test_a_near_name_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    called = call(capsys, "run", PORT_BLOCKER, "--prog", "port_bloker", "--packet", PACKET)
    assert "\n  = help: did you mean --prog port_blocker?" in called.err


@pytest.mark.parametrize("path", sorted((FIXTURES / "errors").glob("*.lisp"))[::10], ids=lambda path: path.stem)
def test_lisp_errors_end_compile_with_1(capsys: pytest.CaptureFixture[str], path: Path, tmp_path: Path) -> None:
    called = call(capsys, "compile", path, "-o", tmp_path / "out.o")
    assert called.code == 1 or "warning[" in called.err
    assert "Traceback" not in called.err
