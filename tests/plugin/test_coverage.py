"""`--bpf-cov`: what pytest prints, what the reports hold, alone and on two workers."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from tests.plugin.loaded import LOADED
from tests.plugin.objects import ROOT
from tests.plugin.test_plugin import HEAD, QUICKLY, run

pytest_plugins = ("pytester",)

assert LOADED

ONE_WAY = """
def test_passes():
    assert fw(PACKET) == Pass
"""
BOTH_WAYS = (
    ONE_WAY
    + """
def test_drops():
    assert fw(PACKET, maps={"blocked": {23: 0}}) == Drop
"""
)
HEADING = "*bpf coverage*"


def test_a_table_says_what_did_not_run(pytester: pytest.Pytester) -> None:
    result = run(pytester, ONE_WAY, "--bpf-cov")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            HEADING,
            "program * insns *run *cover *branches *not run",
            "*port_blocker.o::port_blocker *27 *24 *88% *4/8 *port_blocker.c:37*",
            "total *27 *24 *88% *4/8",
        ]
    )


def test_without_the_option_nothing_is_counted(pytester: pytest.Pytester) -> None:
    run(pytester, ONE_WAY).stdout.no_fnmatch_line(HEADING)


def test_the_reference_engine_counts_the_same(pytester: pytest.Pytester) -> None:
    result = run(pytester, ONE_WAY, "--bpf-cov", "--bpf-engine", "reference")
    result.stdout.fnmatch_lines(["total *27 *24 *88% *4/8"])


def test_an_engine_that_does_not_count_is_refused_by_name(pytester: pytest.Pytester) -> None:
    result = run(pytester, ONE_WAY, "--bpf-cov", "--bpf-engine", "kernel")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*bpf: engine kernel does not count what it executes*"])


@pytest.mark.parametrize("report", ["xml", "lcov", "term:x", "lcov:"])
def test_an_unknown_report_is_refused(pytester: pytest.Pytester, report: str) -> None:
    result = run(pytester, ONE_WAY, f"--bpf-cov-report={report}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*bpf: no coverage report '{report}': there are term, lcov:FILE,*"])


@pytest.mark.parametrize(("least", "fails"), [("88", False), ("88.9", True)])
def test_fail_under(pytester: pytest.Pytester, least: str, fails: bool) -> None:
    result = run(pytester, ONE_WAY, "--bpf-cov", f"--bpf-cov-fail-under={least}")
    result.assert_outcomes(passed=1)
    assert result.ret == fails
    if fails:
        result.stdout.fnmatch_lines(["FAIL: 88.88% of the instructions ran, under the 88.9% of --bpf-cov-fail-under"])


def test_a_session_without_a_call_is_under_any_limit(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(): pass\n")
    result = pytester.runpytest(*QUICKLY, "--bpf-cov-fail-under=1")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["no program was loaded, or called on an engine that counts*", "FAIL: 0% *"])


def test_what_cannot_be_written_is_told_and_fails(pytester: pytest.Pytester) -> None:
    (pytester.path / "file").touch()
    result = run(pytester, ONE_WAY, "--bpf-cov-report=lcov:file/x")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["lcov report not written: *file*"])


def _lcov(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key, []).append(value)
    return found


def test_lcov(pytester: pytest.Pytester) -> None:
    run(pytester, BOTH_WAYS, "--bpf-cov-report=lcov:out/cov.info").stdout.fnmatch_lines(["lcov: *out/cov.info"])
    found = _lcov(pytester.path / "out" / "cov.info")
    assert found["SF"][0].endswith("fixtures/twins/port_blocker.c")
    assert (found["FN"], found["FNDA"]) == (["18,port_blocker"], ["2,port_blocker"])
    assert {"18,2", "37,1", "39,2"} <= set(found["DA"])
    assert {"28,0,0,0", "28,0,1,2", "35,0,0,1", "35,0,1,1"} <= set(found["BRDA"])
    assert (found["LF"], found["LH"], found["BRF"], found["BRH"]) == (["10"], ["10"], ["8"], ["5"])
    assert found["end_of_record"]


def test_cobertura(pytester: pytest.Pytester) -> None:
    run(pytester, ONE_WAY, "--bpf-cov-report=cobertura:cov.xml")
    top = Xml.parse(pytester.path / "cov.xml").getroot()
    assert (top.get("lines-covered"), top.get("lines-valid"), top.get("line-rate")) == ("9", "10", "0.9000")
    assert (top.get("branches-covered"), top.get("branches-valid")) == ("4", "8")
    lines = {line.get("number"): line for line in top.iterfind(".//class/lines/line")}
    assert (lines["37"].get("hits"), lines["18"].get("hits")) == ("0", "1")
    assert lines["30"].get("condition-coverage") == "50% (2/4)"


def test_html_has_source_and_graph_coloured_by_count(pytester: pytest.Pytester) -> None:
    run(pytester, ONE_WAY, "--bpf-cov-report=html:pages")
    pages = pytester.path / "pages"
    index = (pages / "index.html").read_text()
    assert "88% (24/27)" in index
    for target in re.findall(r'href="([^"#]+)"', index):
        assert (pages / target).is_file()
    source = (pages / "source-0.html").read_text()
    assert re.search(r'<tr class="never" id="L37">.*__sync_fetch_and_add', source)
    assert re.search(r'<tr class="part" id="L35">.*taken 1, not taken 0', source)
    svg = re.search(r"<svg.*</svg>", (pages / "program-0.html").read_text(), re.DOTALL)
    assert svg is not None
    graph = Xml.fromstring(svg.group())
    boxes = [element for element in graph.iter() if element.tag.endswith("rect")]
    assert [box.get("class") for box in boxes].count("never") == 1
    assert any("hsl(" in box.get("fill", "") for box in boxes)


def test_workers_are_merged(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    pytester.makepyfile(test_one=HEAD + ONE_WAY, test_two=HEAD + BOTH_WAYS.replace(ONE_WAY, ""))
    args = ("--bpf-cov", "--bpf-cov-report=lcov:cov.info", "--bpf-cov-fail-under=99")
    result = pytester.runpytest_subprocess(*QUICKLY, "-n", "2", *args)
    assert result.ret == 0, result.stdout.str()
    assert "18,2" in _lcov(pytester.path / "cov.info")["DA"]


def test_objects_without_lines_are_told_by_slots(pytester: pytest.Pytester) -> None:
    body = """
p = Program(bytes.fromhex("b700000002000000 1500010002000000 b700000001000000 9500000000000000"), "xdp", name="p")
def test_it():
    assert p(PACKET) == Pass
"""
    run(pytester, body, "--bpf-cov").stdout.fnmatch_lines(["p *4 *3 *75% *1/2 *insns 2"])


def test_properties_are_counted_too(pytester: pytest.Pytester) -> None:
    body = """
from hypothesis import given, settings, strategies as st

@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 65535))
def test_it(port):
    assert fw(ETH / IP() / TCP(dport=port)) == Pass
"""
    run(pytester, body, "--bpf-cov").stdout.fnmatch_lines(["total *27 *24 *88% *4/8"])


def test_a_line_of_several_places_is_named_where_one_did_not_run(pytester: pytest.Pytester) -> None:
    source = ROOT / "examples" / "firewall" / "build" / "firewall.bpf.o"
    body = f"""
firewall = load({str(source)!r})["firewall"]
del obj, fw

def test_it():
    assert firewall(PACKET) == Drop
"""
    result = run(pytester, body, "--bpf-cov")
    # The counting that is inlined at each return ran at one of them.
    # The counting is inlined at each return, and one of them was taken.
    result.stdout.fnmatch_lines(["*firewall.bpf.o::firewall *in part *firewall.bpf.c:58, 60*"])


# What was not called, and what was not counted


def test_an_object_that_is_loaded_and_never_called_did_not_run(pytester: pytest.Pytester) -> None:
    other = ROOT / "fixtures" / "twins" / "packet_counter.o"
    result = run(pytester, ONE_WAY + f"other = load({str(other)!r})\n", "--bpf-cov")
    result.stdout.fnmatch_lines(["*packet_counter.o::packet_counter * 0 *0%*", "*port_blocker.o::port_blocker *88%*"])


@pytest.mark.parametrize("workers", [(), ("-n1",)], ids=["alone", "workers"])
def test_what_is_there_to_be_refused_or_to_be_checked_is_not_missed(
    pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    (pytester.path / "bad.lisp").write_text("(defprog bad (:type :xdp) (load u8 (ctx u32 0) 0))")
    (pytester.path / "checked.lisp").write_text("(defprog checked (:type :xdp) XDP_DROP)")
    body = ONE_WAY + "\ndef test_it():\n    assert load('bad.lisp')['bad'].verify() == Refused()\n"
    result = run(pytester, body, "--bpf-cov", "--bpf-check", "checked.lisp", *workers)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["total *27 *24 *88% *4/8"])


@pytest.mark.parametrize("workers", [(), ("-n1",)], ids=["alone", "workers"])
def test_what_runs_on_an_engine_that_does_not_count_is_told(
    pytester: pytest.Pytester, workers: tuple[str, ...]
) -> None:
    pytest.importorskip("unicorn")
    body = """
@pytest.mark.bpf(engine=["python", "native"])
def test_marked():
    assert fw(PACKET) == Pass

def test_called():
    assert fw(PACKET, engine="native") == Pass
    assert fw(PACKET, engine="native") == Pass

def test_counted():
    assert fw(PACKET, engine="all") == Pass
"""
    result = run(pytester, body, "--bpf-cov", *workers)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [HEADING, "not counted: 2 tests on engine native, which does not count what it executes"]
    )
    result.stdout.fnmatch_lines(["total *27 *24 *88% *4/8"])
