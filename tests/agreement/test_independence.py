"""Verifying and simulating need no kernel: they work where bpf(2) is refused, and open nothing of the host's."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from tests import no_bpf
from tests.agreement.fixtures import all_fixtures, check, play
from tests.engines import as_parameters

_HOST = ("/sys", "/proc", "/dev/", "/etc", "/boot", "/lib/modules", "/usr/src")

_LOOKS = ("open", "os.listdir", "os.scandir", "os.chdir", "ctypes.dlopen")
_ASKS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.bind", "os.fork")
"""What Python tells an audit hook of: a look at a path, and what asks another process or host."""


def _verify_and_run(engine: str) -> tuple[int, list[str]]:
    """(how many cases passed, what of the host was opened meanwhile)."""
    from simulator.loader import load

    fixtures = all_fixtures()
    opened: list[str] = []
    passed = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in _LOOKS and (arguments and str(arguments[0]).startswith(_HOST)):
            opened.append(str(arguments[0]))
        if event in _ASKS:
            opened.append(event)

    sys.addaudithook(watch)
    for found in fixtures:
        obj = load(found.twin)
        for program in obj.values():
            assert program.verify().accepted
        for case in found.cases:
            check(case, *play(case, obj, found.twin_names, engine))
            passed += 1
    return passed, opened


@pytest.mark.parametrize("engine", as_parameters())
def test_no_kernel_and_no_host(engine: str) -> None:
    try:
        passed, opened = no_bpf.run(partial(_verify_and_run, engine))
    except no_bpf.FilterError as error:
        pytest.skip(str(error))
    assert passed == sum(len(found.cases) for found in all_fixtures())
    assert not opened
