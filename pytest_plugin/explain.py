"""Failures explained: comparisons of results and packets, refusals by the verifier, engines that are not to be had."""

from __future__ import annotations

import re
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from simulator import Result

_LOG_LINES = 20
_TC = ("sched_cls", "sched_act")
_SHOWN: pytest.StashKey[list[str]] = pytest.StashKey()
"""The layered difference of the packets of the last failed comparison: too long for the lines under the assertion."""

_PACKAGES = ("simulator", "bpflisp", "pytest_plugin")
_SPOKEN = (
    "CompileError", "EngineUnavailable", "EnginesDifferError", "FaultError", "InputRefused", "KernelRefusedError",
    "LoadError", "MapError", "RefusedError", "UnknownKernelError", "UnknownProgramError",
)  # fmt: skip
"""Errors whose message says all that a test's author can use, by name: none is imported to ask."""

_FACES = (
    "simulator.world", "simulator.mocks", "simulator.maps", "simulator.program", "simulator.run", "simulator.calling",
    "simulator.packet", "simulator.loader.loading", "simulator.decoding", "simulator.structs", "pytest_plugin",
)  # fmt: skip
"""Modules in which a ValueError, a KeyError and the like is about what the test gave."""

_PLACE = re.compile(r"^.*?: (?=\w+\[[\w-]+\]: )")
"""What a diagnostic begins with: in pytest's summary a line has room for the rest alone."""

_STDLIB = (sysconfig.get_path("stdlib"), "<frozen", "<bpf program")
"""Files that are neither ours nor the user's; the last of them are programs, translated."""


def hide_ours(error: BaseException) -> None:
    """Ends the traceback at the user's line where the error is about that line, and not a mistake of ours."""
    entry, user, face = error.__traceback__, None, ""
    while entry is not None:
        name = str(entry.tb_frame.f_globals.get("__name__", ""))
        if name.split(".")[0] in _PACKAGES:
            face = name
        elif not entry.tb_frame.f_code.co_filename.startswith(_STDLIB):
            user, face = entry, ""
        entry = entry.tb_next
    about_input = isinstance(error, KeyError | ValueError | TypeError | AttributeError | IndexError | OSError)
    if user is not None and face and (type(error).__name__ in _SPOKEN or (about_input and face.startswith(_FACES))):
        user.tb_next = None


def amend(report: pytest.TestReport, call: pytest.CallInfo[None], item: pytest.Item) -> None:
    """Makes a skip of an engine that cannot work here; adds the verifier's log, and the packets' difference."""
    shown = item.config.stash.get(_SHOWN, None)
    if shown is not None:
        del item.config.stash[_SHOWN]
        report.sections.append(("bpf packet, - expected, + got", "\n".join(shown)))
    if "simulator.engines.engine" not in sys.modules:
        return
    from simulator import EngineUnavailable, RefusedError

    assert call.excinfo is not None
    error = call.excinfo.value
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None and type(error).__name__ in _SPOKEN:
        crash.message = _PLACE.sub("", str(error))
    if call.when == "call" and report.failed:
        _add_last_call(report, item, error)
    if isinstance(error, EngineUnavailable | RefusedError):
        _note_engine(report, item)
    if isinstance(error, EngineUnavailable):
        path, line, _ = item.location
        report.outcome = "skipped"
        report.longrepr = (path, (line or 0) + 1, f"Skipped: {error}")
    elif isinstance(error, RefusedError) and error.verdict.log:
        lines = error.verdict.log.splitlines()
        left = [f"... {len(lines) - _LOG_LINES} lines before"] if len(lines) > _LOG_LINES else []
        title = f"bpf verifier, kernel {error.verdict.kernel}"
        report.sections.append((title, "\n".join([*left, *lines[-_LOG_LINES:]])))


def _note_engine(report: pytest.TestReport, item: pytest.Item) -> None:
    """The summary counts the test under the engine that it asked for, even though none was called."""
    from pytest_plugin.failures import WATCH

    if WATCH in item.stash:
        item.stash[WATCH].on_engine("")
        report.user_properties[:] = item.user_properties


def _add_last_call(report: pytest.TestReport, item: pytest.Item, failure: BaseException) -> None:
    """What the last call did. Whatever goes wrong in making it again, the test's own failure is reported; what the
    input's own fault is, once."""
    from pytest_plugin.failures import WATCH, sections

    watch = item.stash.get(WATCH, None)
    if watch is None or watch.last is None:
        return
    try:
        report.sections += sections(item, watch.last)
    except Exception as error:
        if str(error) != str(failure):
            report.sections.append(("bpf last call", f"it cannot be made again: {error}"))


def explain(config: pytest.Config, op: str, left: object, right: object) -> list[str] | None:
    """The lines that pytest shows for a failed comparison; None where it is not of ours."""
    from simulator import Expectation, Refused, Result, Verdict

    if op in ("!=", "in", "not in") and isinstance(left, Result):
        return [f"{left!r} {op} {right!r}", *_told(left)]
    if op != "==":
        return None
    if isinstance(right, Result | Verdict) and not isinstance(left, Result | Verdict):
        left, right = right, left
    if isinstance(left, Result):
        wanted = right.packet if isinstance(right, Expectation | Result) else None
        head = [f"{left!r} == {right!r}", *_told(left), *(_told(right) if isinstance(right, Result) else [])]
        if isinstance(right, Expectation) and right.action.startswith("TC_") and left.program.type not in _TC:
            head.append(f"  {right!r} is for TC programs, and this one is {left.program.type}")
        return head + (_packets(config, left.outcome.packet, wanted) if wanted is not None else [])
    if isinstance(left, Verdict) and isinstance(right, Refused):
        return _verdict(left, right)
    return _bytes_alone(config, left, right)


def _told(result: Result) -> list[str]:
    name = result.program.name or result.program.type
    return [f"{name} returned {result.action}"] + [f"  printed: {line}" for line in result.outcome.trace]


def _verdict(verdict: Any, wanted: Any) -> list[str]:
    if verdict.accepted:
        return [f"Accepted == {wanted!r}", f"kernel {verdict.kernel} accepts the program"]
    return [f"Refused({verdict.code!r}) == {wanted!r}", f"kernel {verdict.kernel}: {verdict.message}"]


def _bytes_alone(config: pytest.Config, left: object, right: object) -> list[str] | None:
    """A packet compared with bytes or with a scapy packet."""
    from simulator import PacketBytes

    if isinstance(right, PacketBytes) and not isinstance(left, PacketBytes):
        left, right = right, left
    if not isinstance(left, PacketBytes) or not (isinstance(right, bytes) or hasattr(right, "build")):
        return None
    return ["packets differ", *_packets(config, left, bytes(right))]  # type: ignore[call-overload]


def _packets(config: pytest.Config, got: bytes | None, wanted: bytes) -> list[str]:
    """In a line where they differ; the whole difference is kept for a section of the report."""
    if got == wanted:
        return []
    from pytest_plugin.packetdiff import compare

    difference = compare(got, wanted)
    config.stash[_SHOWN] = difference.lines
    return [difference.summary]
