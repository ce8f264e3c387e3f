"""The engines that need no kernel, as parameters of tests: one that cannot work here is skipped, with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.engines.engine import EngineUnavailable
from simulator.run import engine_named

SIMULATING = ("reference", "python", "native")


def why_not(name: str) -> str:
    """Why an engine cannot work here, "" where it can."""
    try:
        engine_named(name)
    except EngineUnavailable as error:
        return str(error)
    return ""


HERE = tuple(name for name in SIMULATING if not why_not(name))
"""Those that can."""


def as_parameters() -> list[Any]:
    """All of them, for `pytest.mark.parametrize`."""
    skips = {name: pytest.mark.skipif(bool(why), reason=why) for name in SIMULATING for why in [why_not(name)]}
    return [pytest.param(name, marks=skip) for name, skip in skips.items()]
