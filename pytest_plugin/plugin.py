"""Hooks and options; everything else is imported when it is used."""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_plugin.fixtures import BpfFactory

_DEFAULT = ("python", ("6.18",))
_TABLE = "bpf engines and kernels"
_CHECKS = ("--bpf-budget", "--bpf-sarif", "--bpf-annotations")
_COVERAGE = ("--bpf-cov", "--bpf-cov-report", "--bpf-cov-fail-under")

CHECKED = (".o", ".lisp")
"""Suffixes of objects and sources that pytest may be given by name."""

MARKER = "bpf(kernels=..., engine=...): run this test once for each of these kernels and engines"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options `--bpf-*` and the ini keys `bpf_*`."""
    group = parser.getgroup("bpf", "eBPF programs")
    group.addoption(
        "--bpf-check",
        action="append",
        default=[],
        metavar="GLOB",
        help="verify every program of these objects or sources: one test for each program and kernel",
    )
    group.addoption("--bpf-engine", metavar="E", help="the engine that programs run on, or all: reference, python, ...")
    group.addoption(
        "--bpf-kernel",
        action="append",
        default=[],
        metavar="V",
        help="the kernel that programs are verified for, such as 6.18; may be given several times",
    )
    group.addoption("--bpf-kernel-btf", metavar="FILE", help="that kernel's BTF, for tracing programs and kfuncs")
    group.addoption("--bpf-cov", action="store_true", help="count what programs execute, and report it")
    group.addoption(
        "--bpf-cov-report",
        action="append",
        default=[],
        metavar="KIND",
        help="how to report it: term, lcov:FILE, cobertura:FILE, html:DIR; may be given several times",
    )
    group.addoption(
        "--bpf-cov-fail-under",
        type=float,
        metavar="N",
        help="fail the session where less than N percent of the instructions ran",
    )
    group.addoption(
        "--bpf-seed", type=int, metavar="N", help="the seed of worlds' random numbers, where a test has none"
    )
    group.addoption("--bpf-budget", metavar="FILE", help="fail checked programs that need more than this file allows")
    group.addoption("--bpf-sarif", metavar="FILE", help="write refusals of the check to this file, for code scanning")
    group.addoption("--bpf-annotations", action="store_true", help="print refusals of the check as GitHub annotations")
    parser.addini("bpf_check", "globs of objects and sources to verify", type="linelist", default=[])
    parser.addini("bpf_engine", "the engine that programs run on, or all", default="python")
    parser.addini("bpf_kernels", "the kernels that programs are verified for", type="args", default=["6.18"])
    parser.addini("bpf_kernel_btf", "the file with that kernel's BTF", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker, and refuses an engine, a kernel or files that there are not: here, before any worker."""
    config.addinivalue_line("markers", MARKER)
    if (engine_of(config), kernels_of(config)) != _DEFAULT:
        from pytest_plugin.cases import require_known

        require_known(engine_of(config), kernels_of(config))
    if any(config.getoption(name) not in (None, False, []) for name in _COVERAGE):
        from pytest_plugin import coverage, summary

        coverage.require_countable(engine_of(config))
        config.pluginmanager.register(coverage.CoverageRun(config), summary.COVERAGE)
    if any(config.getoption(name) for name in _CHECKS):
        from pytest_plugin.reports import checks

        config.pluginmanager.register(checks.Checks(config), checks.NAME)
    if config.getoption("--bpf-check") or config.getini("bpf_check"):
        from pytest_plugin.cases import matching

        matching(config)


def pytest_report_header(config: pytest.Config) -> str:
    """Which engine and kernels are asked."""
    engine, kernels = engine_of(config), kernels_of(config)
    return f"bpf: engine {engine}, verified for {', '.join(kernels)}"


@pytest.fixture(scope="session")
def bpf() -> BpfFactory:
    """Makes a world for an object: `w = bpf(obj)`, then `w.maps`, `w.clock`, `w.program_name(packet)`."""
    from pytest_plugin.fixtures import BpfFactory

    return BpfFactory()


@pytest.fixture(scope="session")
def _bpf_case(request: pytest.FixtureRequest) -> Any:
    """What the marker `bpf` asks of this run of a test: an engine and kernels."""
    return request.param


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrises what is marked with `bpf`."""
    if metafunc.definition.get_closest_marker("bpf") is not None:
        from pytest_plugin.cases import parametrise

        parametrise(metafunc, engine_of(metafunc.config), kernels_of(metafunc.config))


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Keeps our frames out of the traceback where a test module cannot be imported: for want of an object, say."""
    if not isinstance(collector, pytest.Module) or collector.config.getoption("fulltrace"):
        return
    shown = collector.repr_failure

    def repr_failure(excinfo: pytest.ExceptionInfo[BaseException]) -> Any:
        if "simulator" in sys.modules:
            from pytest_plugin.explain import hide_ours

            hide_ours(excinfo.value)
        return shown(excinfo)

    collector.repr_failure = repr_failure  # type: ignore[method-assign]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """An object or a source that pytest is given by name, as in `pytest build/fw.bpf.o`, is checked."""
    if file_path.suffix not in CHECKED or not parent.session.isinitpath(file_path):
        return None
    from pytest_plugin.cases import CheckedObject

    return CheckedObject.from_parent(parent, path=file_path)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Adds the objects of `--bpf-check` to what a session collects."""
    report = yield
    config = collector.config
    if isinstance(collector, pytest.Session) and (config.getoption("--bpf-check") or config.getini("bpf_check")):
        from pytest_plugin.cases import to_check

        report.result += to_check(collector)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Puts this item's engine and kernels in force, for every call of a program in it."""
    case = getattr(item, "callspec", None) and item.callspec.params.get("_bpf_case")  # type: ignore[attr-defined]
    engine, kernels = case or (engine_of(item.config), kernels_of(item.config))
    btf = item.config.getoption("--bpf-kernel-btf") or item.config.getini("bpf_kernel_btf")
    usual = (engine, kernels) == _DEFAULT and not btf and item.config.getoption("--bpf-seed") is None
    if usual and "simulator" not in sys.modules:
        return (yield)
    from pytest_plugin.cases import forget, in_force

    try:
        with in_force(item, engine, kernels):
            return (yield)
    finally:
        forget(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skips where an engine cannot work here, adds the sections of a failure, keeps our frames out of its traceback."""
    if call.excinfo is None or "simulator" not in sys.modules:
        return (yield)
    from pytest_plugin import explain

    if not item.config.getoption("fulltrace"):
        explain.hide_ours(call.excinfo.value)
    report = yield
    explain.amend(report, call, item)
    return report


def pytest_assertrepr_compare(config: pytest.Config, op: str, left: object, right: object) -> list[str] | None:
    """Explains a failed comparison of results, packets and verdicts."""
    if "simulator.results" not in sys.modules:
        return None
    from pytest_plugin.explain import explain

    return explain(config, op, left, right)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How it went on each engine and kernel, where there were several, and which engines could not be asked."""
    if "pytest_plugin.cases" not in sys.modules and "simulator" not in sys.modules:
        config = terminalreporter.config
        if not hasattr(config.option, "numprocesses") or not config.option.numprocesses:
            return
    from pytest_plugin.summary import lines

    reports = [report for name in ("passed", "failed", "skipped") for report in terminalreporter.getreports(name)]
    table = lines(reports)
    if table:
        terminalreporter.section(_TABLE, sep="-")
        terminalreporter.write("".join(f"{line}\n" for line in table))


def engine_of(config: pytest.Config) -> str:
    """The engine that is asked for, by the option or the ini file."""
    return str(config.getoption("--bpf-engine") or config.getini("bpf_engine"))


def kernels_of(config: pytest.Config) -> tuple[str, ...]:
    """The kernels that are asked for, by the option or the ini file."""
    return tuple(config.getoption("--bpf-kernel") or config.getini("bpf_kernels"))
