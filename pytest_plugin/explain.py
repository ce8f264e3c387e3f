"""Failures explained: comparisons of results and packets, refusals by the verifier, engines that are not to be had."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from pytest_plugin.packetdiff import packet_difference

if TYPE_CHECKING:
    import pytest

    from simulator import Expectation, Result

_LOG_LINES = 20


def amend(report: pytest.TestReport, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Makes a skip of an engine that cannot work here, and adds the verifier's log to a refusal."""
    if "simulator.engines.engine" not in sys.modules:
        return
    from simulator import EngineUnavailable, RefusedError

    error = excinfo.value
    if isinstance(error, EngineUnavailable):
        report.outcome = "skipped"
        where = report.location
        report.longrepr = (where[0], (where[1] or 0) + 1, f"Skipped: {error}")
    elif isinstance(error, RefusedError) and error.verdict.log:
        lines = error.verdict.log.splitlines()
        left = [f"... {len(lines) - _LOG_LINES} lines before"] if len(lines) > _LOG_LINES else []
        title = f"bpf verifier, kernel {error.verdict.kernel}"
        report.sections.append((title, "\n".join([*left, *lines[-_LOG_LINES:]])))


def explain(op: str, left: object, right: object) -> list[str] | None:
    """The lines that pytest shows for a failed comparison; None where it is not of ours."""
    if op != "==" or "simulator.results" not in sys.modules:
        return None
    from simulator import Expectation, Refused, Result, Verdict

    if isinstance(right, Result) and not isinstance(left, Result):
        left, right = right, left
    if isinstance(left, Result) and isinstance(right, Expectation):
        return _expected(left, right)
    if isinstance(left, Result):
        return [f"{left!r} == {right!r}", *_told(left)]
    if isinstance(left, Verdict) and isinstance(right, Refused):
        return _verdict(left, right)
    return _packets(left, right)


def _expected(result: Result, wanted: Expectation) -> list[str]:
    lines = [f"{result!r} == {wanted!r}", *_told(result)]
    if wanted.packet is not None and wanted.packet != result.outcome.packet:
        lines += ["", *packet_difference(result.outcome.packet, wanted.packet)]
    return lines


def _told(result: Result) -> list[str]:
    name = result.program.name or result.program.type
    return [f"{name} returned {result.action}"] + [f"  printed: {line}" for line in result.trace]


def _verdict(verdict: Any, wanted: Any) -> list[str]:
    if verdict.accepted:
        return [f"Accepted == {wanted!r}", f"kernel {verdict.kernel} accepts the program"]
    return [f"Refused({verdict.code!r}) == {wanted!r}", f"kernel {verdict.kernel}: {verdict.message}"]


def _packets(left: object, right: object) -> list[str] | None:
    from simulator import PacketBytes

    if isinstance(left, PacketBytes) or isinstance(right, PacketBytes):
        try:
            return ["packets differ", *packet_difference(bytes(left), bytes(right))]  # type: ignore[call-overload]
        except TypeError:
            return None
    return None
