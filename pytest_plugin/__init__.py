"""Tests of eBPF programs with pytest: what programs return, as values to compare with.

Nothing is imported before it is used: pytest loads this package at every start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator import Aborted, Drop, Pass, Redirect, Refused, TcAct, Tx

__all__ = ["Aborted", "Drop", "Pass", "Redirect", "Refused", "TcAct", "Tx"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pytest_plugin' has no attribute {name!r}")
    import simulator

    return getattr(simulator, name)
