"""What pytest prints with the plugin: real runs, real output."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugin.loaded import LOADED
from tests.plugin.objects import PORT_BLOCKER, ROOT

pytest_plugins = ("pytester",)

assert LOADED

QUICKLY = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
"""Options of every run: Hypothesis' plugin imports Hypothesis anew in each."""

HEAD = f"""
import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from pytest_plugin import Drop, Pass, Redirect, Refused, TcAct
from simulator import Program, load

ETH = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
PACKET = ETH / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(dport=23)
obj = load({str(PORT_BLOCKER)!r})
fw = obj["port_blocker"]
BAD = Program(bytes.fromhex("7110000000000000 9500000000000000"), type="xdp", name="bad")
"""

BAD_LISP = "(defprog bad (:type :xdp)\n  (load u8 (ctx u32 0) 0))\n(defprog good (:type :xdp) XDP_PASS)\n"


def run(pytester: pytest.Pytester, body: str, *args: str) -> pytest.RunResult:
    pytester.makepyfile(HEAD + body)
    return pytester.runpytest(*QUICKLY, *args)


# Calls and worlds


def test_programs_called_alone_and_in_a_world(pytester: pytest.Pytester) -> None:
    body = """
def test_alone():
    assert fw(PACKET) == Pass
    assert fw(PACKET, maps={"blocked": {23: 0}}) == Drop

def test_world(bpf):
    w = bpf(obj)
    w.maps.blocked[23] = 0
    assert w.port_blocker(PACKET) == Drop
    assert w["xdp"](PACKET) == 1
    assert w.maps.blocked[23] == 2
    assert dict(w.maps.blocked.items()) == {23: 2}
    assert list(w.maps) == ["blocked"]
    assert 23 in w.maps.blocked and 24 not in w.maps.blocked

def test_worlds_are_fresh(bpf):
    assert not list(bpf(obj).maps.blocked)

def test_the_world_is_set(bpf):
    w = bpf(obj)
    before = w.clock.now
    w.clock.advance(ms=500)
    w.cpu = 3
    assert (w.clock.now - before, w.world.cpu) == (500_000_000, 3)
    w.helpers.bpf_get_prandom_u32.returns(7)

def test_refused():
    assert BAD.verify() == Refused("context-access")
    assert BAD.verify(kernel="6.1") == Refused()
"""
    run(pytester, body).assert_outcomes(passed=5)


def test_values_of_each_cpu(pytester: pytest.Pytester) -> None:
    source = ROOT / "fixtures" / "twins" / "packet_counter.o"
    body = f"""
counter = load({str(source)!r})

def test_it(bpf):
    w = bpf(counter)
    w.packet_counter(PACKET)
    w.cpu = 3
    w.packet_counter(PACKET)
    w.packet_counter(PACKET)
    name = next(iter(w.maps))
    seen = [w.maps[name][key] for key in w.maps[name]]
    assert [1, 0, 0, 2] in seen, seen
"""
    run(pytester, body).assert_outcomes(passed=1)


def test_records_of_a_ring_buffer(pytester: pytest.Pytester) -> None:
    source = ROOT / "fixtures" / "programs" / "event_logger" / "program.lisp"
    body = f"""
log = load({str(source)!r})
SYN = ETH / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1025, dport=80, flags="S")

def test_it(bpf):
    w = bpf(log)
    w.event_logger(SYN)
    w.event_logger(SYN)
    assert len(w.maps.events) == 2
    first, second = w.records("events", "connection")
    assert (first.destination_port, first.length) == (80, 40)
    assert first == second
    assert w.records("events") == []
    w.event_logger(SYN)
    assert len(w.records("events")[0]) == 16

def test_a_wrong_name(bpf):
    w = bpf(log)
    w.event_logger(SYN)
    w.records("events", "connecton")
"""
    result = run(pytester, body)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E*no struct 'connecton' in *; did you mean connection?*"])
    result.stdout.no_fnmatch_line("*/simulator/*.py*")


def test_under_given(pytester: pytest.Pytester) -> None:
    """The fixture's scope is the session: Hypothesis has nothing to say against it."""
    body = """
from hypothesis import given, settings, strategies as st

@settings(deadline=None)  # the machine may be busy
@given(st.integers(1, 65535))
def test_port(bpf, port):
    w = bpf(obj)
    w.maps.blocked[23] = 0
    assert (w.port_blocker(ETH / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(dport=port)) == Drop) == (port == 23)
"""
    run(pytester, body).assert_outcomes(passed=1)


# Failures


def test_an_action_is_shown_by_name(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test_it(): assert fw(PACKET) == Drop")
    result.stdout.fnmatch_lines(["E*assert Pass == Drop", "E*port_blocker returned XDP_PASS"])


def test_a_packet_is_shown_layer_by_layer(pytester: pytest.Pytester) -> None:
    body = (
        "def test_it(): assert fw(PACKET) == Pass.with_packet(ETH / IP(src='10.0.0.1', dst='10.9.9.9') / TCP(dport=23))"
    )
    run(pytester, body).stdout.fnmatch_lines(
        [
            "E*packet of 54 bytes, differs in IP (chksum, dst), TCP (chksum)",
            "* bpf packet, - expected, + got *",
            "  Ethernet",
            "  IP",
            "-   dst = 10.9.9.9",
            "+   dst = 10.0.0.2",
            "  TCP",
        ]
    )


def test_packets_alone_too(pytester: pytest.Pytester) -> None:
    body = """
OTHER = ETH / IP(src="10.0.0.1", dst="10.0.0.2", ttl=3) / TCP(dport=23)
def test_it(): assert fw(PACKET).packet == bytes(OTHER)
"""
    run(pytester, body).stdout.fnmatch_lines(["E*packets differ", "-   ttl = 3", "+   ttl = 64"])


def test_a_refusal_is_explained(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test_it(): BAD(bytes(14))")
    result.stdout.fnmatch_lines(
        [
            ">*BAD(bytes(14))",
            "E*refused?context-access?: bad on 6.18.44: invalid bpf_context access off=0 size=1",
            "E*insn 0: *r0 = *(u8 *)(r1 +0)*",
            "* bpf verifier, kernel 6.18.44 *",
            "invalid bpf_context access off=0 size=1",
        ]
    )
    result.stdout.no_fnmatch_line("*calling.py*")


def test_verdicts_are_compared_by_class(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test_it(): assert BAD.verify() == Refused('packet-bounds')")
    result.stdout.fnmatch_lines(
        ["E*assert Refused('context-access') == Refused('packet-bounds')", "E*kernel 6.18.44: *"]
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bpf(obj).port_bloker(PACKET)", "AttributeError: *: no program 'port_bloker'; did you mean port_blocker?"),
        ("bpf(obj).maps.blockd[1] = 2", "AttributeError: no map 'blockd' in this world; did you mean blocked?"),
        ("bpf(obj).maps.blocked[1 << 40] = 2", "ValueError: * does not fit in *"),
        ("bpf(obj).nothing = 2", "AttributeError: a world has no 'nothing' to set"),
        ("bpf(obj).cpu = 4", "ValueError: this world has CPUs 0 to 3, not 4: cpus=... gives it more"),
        ("bpf(obj).port_blocker(bytes(13))", "*InputRefused: EINVAL: *14 bytes*"),
        ("obj['nothing']", "KeyError: *no program or section 'nothing' in *"),
        ("bpf(obj).helpers.bpf_nothing.returns(1)", "AttributeError: no helper is called 'bpf_nothing'"),
        ("fw(PACKET, engine='gpu')", "ValueError: no engine 'gpu': *"),
        ("fw(PACKET, kernel='six')", "*UnknownKernelError: 'six' is no kernel version*"),
        ("bpf('fw.bpf.o')", "TypeError: bpf(...) takes an object, as load gives it: bpf(load('fw.bpf.o'))"),
        ("bpf(fw)", "TypeError: bpf(...) takes an object, as load gives it: bpf(load('*port_blocker.o'))"),
        ("bpf.maps.blocked[1] = 2", "AttributeError: bpf makes worlds: w = bpf(obj), and then w.maps"),
        ("fw('hello')", "TypeError: a packet is bytes, a scapy packet or a mapping of context fields, not str"),
        ("fw(PACKET, maps={'blocked': 5})", "TypeError: maps: blocked is given a mapping of keys to values, *not 5"),
        ("fw(PACKET, maps={'blockd': {}})", "KeyError: *no map 'blockd' in this world; did you mean blocked?*"),
        ("fw(PACKET, context={'ingres': 3})", "*InputRefused: EINVAL: xdp_md has no field 'ingres'; it has *"),
        ("load('/nonexistent.o')", "FileNotFoundError: *"),
        ("load('/dev/null')", "*LoadError: /dev/null*"),
    ],
)
def test_bad_input_is_told_at_the_users_line(pytester: pytest.Pytester, line: str, message: str) -> None:
    result = run(pytester, f"def test_it(bpf):\n    {line}\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f">       {line.replace('[', '[[]')}", f"E*{message}"])
    for package in ("simulator", "pytest_plugin"):
        result.stdout.no_fnmatch_line(f"*/{package}/*.py*")
    result.stdout.no_fnmatch_line("*cannot be made again*")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("w.port_blocker(PACKET) != Pass", ["E*assert Pass != Pass", "E*port_blocker returned XDP_PASS"]),
        ("w.port_blocker(PACKET) in (Drop, Tx)", ["E*assert Pass in (Drop, Tx)", "E*port_blocker returned XDP_PASS"]),
        ("w.port_blocker(PACKET) == TcAct.OK", ["E*Pass == TcAct.OK", "E*TcAct.OK is for TC programs*this one is xdp"]),
        (
            "w.port_blocker(PACKET).retval == 1",
            ["E*assert 2 == 1", "E*where 2 = Pass.retval", "E*Pass = port_blocker(*"],
        ),
        ("obj['port_blocker'](PACKET) is None", ["E*where Pass = <xdp program port_blocker, 28 slots>(*"]),
        ("not fw(PACKET)", ["E*assert not Pass", "E*where Pass = fw(*"]),
    ],
)
def test_other_ways_to_compare_are_readable(pytester: pytest.Pytester, line: str, shown: list[str]) -> None:
    result = run(pytester, f"from pytest_plugin import Tx\ndef test_it(bpf):\n    w = bpf(obj)\n    assert {line}\n")
    result.stdout.fnmatch_lines(shown)
    assert max(map(len, result.outlines)) < 300


def test_an_object_that_is_missing_at_import(pytester: pytest.Pytester) -> None:
    result = run(pytester, "\nother = load('missing.o')\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*other = load('missing.o')", "E   FileNotFoundError: *missing.o'"])
    result.stdout.no_fnmatch_line("*/simulator/*.py*")


def test_a_mistake_of_ours_keeps_its_traceback(pytester: pytest.Pytester) -> None:
    body = """
def test_it(monkeypatch):
    monkeypatch.delattr("simulator.calling.Result")
    fw(PACKET)
"""
    run(pytester, body).stdout.fnmatch_lines(["*calling.py:*: NameError"])


# Engines and kernels


def test_the_header(pytester: pytest.Pytester) -> None:
    result = run(pytester, "", "--bpf-engine", "reference", "--bpf-kernel", "6.1", "--bpf-kernel", "6.18")
    result.stdout.fnmatch_lines(["bpf: engine reference, verified for 6.1, 6.18"])


def test_the_ini_file(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nbpf_engine = reference\nbpf_kernels = 6.1 6.12\n")
    body = """
from simulator import settings_now
def test_it():
    assert settings_now().engines == ("reference",)
    assert settings_now().kernels == ("6.1", "6.12")
"""
    result = run(pytester, body)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["bpf: engine reference, verified for 6.1, 6.12"])


def test_the_marker_parametrises(pytester: pytest.Pytester) -> None:
    body = """
from simulator import settings_now

@pytest.mark.bpf(kernels=["6.1", "6.18"], engine=["python", "reference"])
def test_it(bpf):
    print("asked", settings_now().engines, settings_now().kernels)
    assert bpf(obj).port_blocker(PACKET) == Pass
"""
    result = run(pytester, body, "-v", "-s")
    result.assert_outcomes(passed=4)
    for case in ("python-6.1", "python-6.18", "reference-6.1", "reference-6.18"):
        engine, kernel = case.split("-")
        result.stdout.fnmatch_lines([f"*::test_it[[]{case}[]] asked ('{engine}',) ('{kernel}',)"])


def test_an_engine_that_cannot_work_here_skips(pytester: pytest.Pytester) -> None:
    body = """
from simulator import EngineUnavailable

def test_it(): raise EngineUnavailable("unicorn is missing: pip install 'bpflisp[native]'")
"""
    result = run(pytester, body, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*unicorn is missing: pip install 'bpflisp[[]native]'"])


def test_what_the_kernel_prints_unseen_skips(pytester: pytest.Pytester) -> None:
    """A test is not told that a program printed nothing, where nobody could have seen it."""
    code = "b701000068690000 631af8ff00000000 bfa1000000000000 07010000f8ffffff b702000003000000 8500000006000000"
    body = f"""
from simulator import Outcome
TALKS = "{code} b700000000000000 9500000000000000"
obj = {{"talks": Program(bytes.fromhex(TALKS), "socket_filter", name="talks")}}

@pytest.fixture(autouse=True)
def no_kernel(monkeypatch):
    monkeypatch.setattr("simulator.calling.run", lambda *args, **options: Outcome(0, bytes(14)))
    monkeypatch.setattr("simulator.engines.kernel_trace.TRACEFS", ())

def test_alone():
    assert obj["talks"](PACKET, verify=False).trace == []

def test_world(bpf, monkeypatch):
    w = bpf(load({str(PORT_BLOCKER)!r}))
    assert w.printed == []
    monkeypatch.setitem(w._obj.programs, "port_blocker", obj["talks"])
    w.port_blocker(PACKET, verify=False)
    assert w.printed == []
"""
    result = run(pytester, body, "--bpf-engine", "kernel", "-rs")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*what programs print in the kernel shows in tracefs alone: mount *"])


def test_all_engines(pytester: pytest.Pytester) -> None:
    body = """
R = Program(bytes.fromhex("8500000007000000 b700000002000000 9500000000000000"), type="xdp", name="random")
def test_same(): assert fw(PACKET) == Pass
def test_random(): assert R(bytes(14)) == Pass
"""
    result = run(pytester, body, "--bpf-engine", "all")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*- bpf engines and kernels -*", "engine kernel left out: *"])


def test_engines_that_differ_fail(pytester: pytest.Pytester) -> None:
    body = """
from simulator import Outcome
def test_it(monkeypatch):
    real = __import__("simulator.calling").calling.run
    def run(program, packet, world, engine, **options):
        return Outcome(1, bytes(14)) if engine == "reference" else real(program, packet, world, engine, **options)
    monkeypatch.setattr("simulator.calling.run", run)
    fw(bytes(14))
"""
    result = run(pytester, body, "--bpf-engine", "all")
    result.stdout.fnmatch_lines(
        ["E*engines python and reference differ", "E*return value: 2 on python, 1 on reference"]
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--bpf-engine", "gpu"], "ERROR: bpf: no engine 'gpu': there are *"),
        (["--bpf-kernel", "six"], "ERROR: bpf: 'six' is no kernel version; *"),
        (["--bpf-kernel", "99.0"], "ERROR: bpf: *99.0*"),
        (["--bpf-check", "none/*.o"], "ERROR: bpf: no file matches 'none/*.o' in *"),
        (["--bpf-check", "none/*.o", "-n1"], "ERROR: bpf: no file matches 'none/*.o' in *"),
    ],
)
def test_bad_options(pytester: pytest.Pytester, args: list[str], message: str) -> None:
    result = run(pytester, "", *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("kernel='6.1'", "*:13: the marker bpf has no key 'kernel'; it has kernels, engine"),
        ("'6.1'", "*:13: the marker bpf has no argument without a name; it has kernels, engine"),
        ("engine='gpu'", "*:13: bpf: no engine 'gpu': there are *"),
        ("kernels=['six']", "*:13: bpf: 'six' is no kernel version; *"),
    ],
)
def test_bad_markers(pytester: pytest.Pytester, marker: str, message: str) -> None:
    result = run(pytester, f"\n@pytest.mark.bpf({marker})\ndef test_it(bpf): pass\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([message])


# The pre-flight check


def test_check_makes_an_item_of_each_program_and_kernel(pytester: pytest.Pytester) -> None:
    (pytester.path / "fw.lisp").write_text(BAD_LISP)
    shutil.copy(PORT_BLOCKER, pytester.path / "blocker.o")
    args = ("--bpf-check", "*.lisp", "--bpf-check", "*.o", "--bpf-kernel", "6.1", "--bpf-kernel", "6.18")
    result = pytester.runpytest("-v", *QUICKLY, *args)
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(
        [
            "fw.lisp::bad[[]6.1[]] FAILED*",
            "fw.lisp::bad[[]6.18[]] FAILED*",
            "fw.lisp::good[[]6.1[]] PASSED*",
            "fw.lisp::good[[]6.18[]] PASSED*",
            "blocker.o::port_blocker[[]6.1[]] PASSED*",
            "blocker.o::port_blocker[[]6.18[]] PASSED*",
            "*fw.lisp:2: refused[[]packet-bounds[]]: bad on 6.1.192: R* offset is outside of the packet",
            "* bpf verifier, kernel 6.1.192 *",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_check_by_the_ini_file_and_selection(pytester: pytest.Pytester) -> None:
    (pytester.path / "fw.lisp").write_text(BAD_LISP)
    pytester.makeini("[pytest]\nbpf_check = *.lisp\n")
    pytester.runpytest(*QUICKLY, "-k", "good").assert_outcomes(passed=1, deselected=1)


def test_what_cannot_be_loaded_fails(pytester: pytest.Pytester) -> None:
    (pytester.path / "no.o").write_bytes(b"\x7fELF" + bytes(100))
    (pytester.path / "wrong.lisp").write_text("(defprog")
    result = pytester.runpytest(*QUICKLY, "--bpf-check", "*.o", "--bpf-check", "*.lisp")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*no.o*: error[[]load[]]: *", "*wrong.lisp:1:*: error[[]*"])


# Workers, and pytest alone


def test_xdist(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    shutil.copy(PORT_BLOCKER, pytester.path / "blocker.o")
    pytester.makepyfile(
        HEAD + "\n@pytest.mark.bpf(engine=['python', 'reference'])\ndef test_it(bpf): assert fw(PACKET) == Drop"
    )
    result = pytester.runpytest("-n1", "--bpf-check", "*.o", "--bpf-engine", "all", *QUICKLY)
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["E*assert Pass == Drop"])


def test_a_start_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    loaded = {name.split('.')[0] for name in sys.modules}\n"
        "    heavy = {'scapy', 'rich', 'simulator', 'bpflisp', 'elftools', 'unicorn', 'click', 'hypothesis'}\n"
        "    assert not loaded & heavy\n"
        "    ours = sorted(name for name in sys.modules if name.startswith('pytest_plugin'))\n"
        "    assert ours == ['pytest_plugin', 'pytest_plugin.plugin']\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        str(tmp_path),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stdout


def test_a_call_imports_neither_scapy_nor_hypothesis(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "from pytest_plugin import Pass\n"
        "from simulator import load\n"
        f"obj = load({str(PORT_BLOCKER)!r})\n"
        "def test_it(bpf):\n"
        "    assert bpf(obj).port_blocker(bytes(60)) == Pass\n"
        "    loaded = {name.split('.')[0] for name in sys.modules}\n"
        "    assert not loaded & {'scapy', 'rich', 'elftools', 'unicorn', 'click', 'hypothesis'}\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", *QUICKLY, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stdout


def test_a_table_of_engines_has_the_reasons_of_skips(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = """
from simulator import EngineUnavailable
@pytest.mark.bpf(engine=["python", "reference"])
def test_it(request):
    if "reference" in request.node.name:
        raise EngineUnavailable("not today")
    assert fw(PACKET) == Pass

def test_other():
    assert fw(PACKET) == Drop
"""
    result = run(pytester, body)
    result.assert_outcomes(passed=1, skipped=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*- bpf engines and kernels -*",
            "engine     passed  failed  skipped",
            "python          1       1        0",
            "reference       0       0        1  not today",
        ]
    )


def test_one_engine_and_no_check_need_no_table(pytester: pytest.Pytester) -> None:
    run(pytester, "def test_it(): assert fw(PACKET) == Pass\n").stdout.no_fnmatch_line("*bpf engines and kernels*")


def test_a_table_of_kernels_after_a_check(pytester: pytest.Pytester) -> None:
    (pytester.path / "bad.lisp").write_text(BAD_LISP)
    result = pytester.runpytest(*QUICKLY, "--bpf-check", "*.lisp", "--bpf-kernel", "6.1", "--bpf-kernel", "6.18")
    result.stdout.fnmatch_lines(
        [
            "kernel  accepted  refused  skipped",
            "6.1            1        1        0",
            "6.18           1        1        0",
        ]
    )
