"""Hooks and options; everything else is imported when it is used."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_plugin.fixtures import BpfFactory

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
    parser.addini("bpf_check", "globs of objects and sources to verify", type="linelist", default=[])
    parser.addini("bpf_engine", "the engine that programs run on, or all", default="python")
    parser.addini("bpf_kernels", "the kernels that programs are verified for", type="args", default=["6.18"])


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker."""
    config.addinivalue_line("markers", MARKER)


def pytest_report_header(config: pytest.Config) -> str:
    """Which engine and kernels are asked."""
    engine, kernels = _engine(config), _kernels(config)
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

        parametrise(metafunc, _engine(metafunc.config), _kernels(metafunc.config))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Adds the items of `--bpf-check`."""
    if config.getoption("--bpf-check") or config.getini("bpf_check"):
        from pytest_plugin.cases import check_items

        items += check_items(session, _kernels(config))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Puts this item's engine and kernels in force, for every call of a program in it."""
    case = getattr(item, "callspec", None) and item.callspec.params.get("_bpf_case")  # type: ignore[attr-defined]
    engine, kernels = case or (_engine(item.config), _kernels(item.config))
    if (engine, kernels) == ("python", ("6.18",)):
        return (yield)
    from pytest_plugin.cases import in_force

    with in_force(engine, kernels):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skips where an engine cannot work here, and adds the sections of a failure."""
    report = yield
    if call.excinfo is not None:
        from pytest_plugin.explain import amend

        amend(report, call.excinfo)
    return report


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Explains a failed comparison of results, packets and verdicts."""
    from pytest_plugin.explain import explain

    return explain(op, left, right)


def _engine(config: pytest.Config) -> str:
    return str(config.getoption("--bpf-engine") or config.getini("bpf_engine"))


def _kernels(config: pytest.Config) -> tuple[str, ...]:
    return tuple(config.getoption("--bpf-kernel") or config.getini("bpf_kernels"))
