"""Runs the tests with a compiler that leaves something out: BPFLISP_WITHOUT=gvn,licm and BPFLISP_LEVEL=0.

What a program does may not depend on any pass: `make passes` runs the tests of behaviour with each left out alone, and
at -O0 and -O1. A test that asks for a level itself gets that one, or the lower of the two.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Puts the wishes of the environment between the driver and the passes, for this process."""
    without = [name for name in os.environ.get("BPFLISP_WITHOUT", "").split(",") if name]
    level = int(os.environ.get("BPFLISP_LEVEL", "2"))
    if without or level < 2:
        leave_out(without, level)


def leave_out(without: Collection[str], level: int) -> None:
    """From here on the driver compiles without these passes, at this level or below."""
    from bpflisp import driver
    from bpflisp.back.compile import IMPROVEMENTS, compile_function
    from bpflisp.opt import PASSES, run

    unknown = set(without) - {step.name for step in PASSES} - set(IMPROVEMENTS)
    if unknown:
        raise pytest.UsageError(f"BPFLISP_WITHOUT: no pass {', '.join(sorted(unknown))}")

    def optimise(what: Any, asked: int = 2, besides: Collection[str] = (), **options: Any) -> None:
        run(what, min(asked, level), [*without, *besides], **options)

    def compiled(
        function: Any, mcpu: str = "v3", opt: int = 2, besides: Collection[str] = (), after: Any = None
    ) -> Any:
        return compile_function(function, mcpu, min(opt, level), [*without, *besides], after)

    driver.optimise = optimise  # type: ignore[assignment]
    driver.compile_function = compiled
