"""The log is the kernel's, line by line: at level 1, at level 2, and with statistics."""

from __future__ import annotations

import platform
import re

import pytest

from simulator import verify
from simulator.verdict import UNSUPPORTED
from tests.agreement.logs import comparable
from tests.simulator.verifier import log_cases, readable
from tests.simulator.verifier.log_cases import LEVELS, asked, logs, program
from tests.simulator.verifier.test_explore import KERNEL_TYPES

NAMES = [name for name in logs() if name.removeprefix("explore/") not in KERNEL_TYPES]


def test_most_programs_have_a_log() -> None:
    assert len(NAMES) >= 270
    assert any(name.startswith("twin/") for name in NAMES)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_the_log_is_the_kernels(name: str, level: int) -> None:
    verdict = verify(program(name), log_level=level)
    if verdict.code == UNSUPPORTED:
        pytest.skip(verdict.message)
    assert comparable(program(name), verdict.log) == logs()[name][level]


@pytest.mark.parametrize("name", NAMES[::3])
def test_the_running_kernel_still_prints_so(name: str) -> None:
    from tests import oracle

    possible, why = oracle.available()
    if not possible:
        pytest.skip(why)
    if not platform.release().startswith("6.18."):
        pytest.skip("the logs are those of kernel 6.18")
    try:
        assert asked(name) == logs()[name]
    except oracle.CannotAskError as error:
        pytest.skip(str(error))


def test_level_0_prints_nothing() -> None:
    for name in NAMES[::20]:
        assert verify(program(name), log_level=0).log == ""


def test_levels_agree_on_the_verdict() -> None:
    for name in NAMES[::10]:
        verdicts = [verify(program(name), log_level=level) for level in (0, *LEVELS)]
        assert len({(one.accepted, one.message, one.code, one.insns_processed) for one in verdicts}) == 1


def test_statistics_have_our_own_time() -> None:
    log = verify(readable.program("r0 = 0\nexit\n"), log_level=4).log
    assert re.match(r"verification time \d+ usec\nstack depth 0\nprocessed 2 insns ", log)


def test_source_lines_are_printed_where_they_begin() -> None:
    found = [line for name in NAMES if name.startswith("twin/") for line in logs()[name][2]]
    assert sum(re.match(r"; .* @ \w+\.c:\d+$", line) is not None for line in found) > 50


def test_every_kept_name_is_of_a_program() -> None:
    assert set(logs()) <= set(log_cases.names())
