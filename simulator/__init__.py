"""Programs of the kernel's virtual machine without the kernel: loaded, verified, run. What is public is named here.

Nothing is imported before it is used: `import simulator` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.budgets import Budget, BudgetError, Effort, Overrun, effort
    from simulator.calling import Called, EnginesDifferError, Settings, engines_named, settings_now, using
    from simulator.decoding import as_struct
    from simulator.engines.engine import ENGINES, EngineUnavailable
    from simulator.engines.kernel import KernelRefusedError
    from simulator.flowdrawing import flow_svg
    from simulator.loader import LoadError, load
    from simulator.maps import MapError
    from simulator.observers import observing
    from simulator.outcome import Fault, Outcome, Outcomes
    from simulator.packet import InputRefused
    from simulator.program import MapDef, Object, Program
    from simulator.replaying import changes, replay
    from simulator.reporting import Checked, github_annotations, joined_sarif, sarif
    from simulator.results import (
        Aborted,
        Drop,
        Expectation,
        FaultError,
        PacketBytes,
        Pass,
        Redirect,
        Refused,
        RefusedError,
        Result,
        TcAct,
        Tx,
    )
    from simulator.verdict import Verdict
    from simulator.verifier import verify
    from simulator.world import World

__all__ = [
    "ENGINES",
    "Aborted",
    "Budget",
    "BudgetError",
    "Called",
    "Checked",
    "Drop",
    "Effort",
    "EngineUnavailable",
    "EnginesDifferError",
    "Expectation",
    "Fault",
    "FaultError",
    "InputRefused",
    "KernelRefusedError",
    "LoadError",
    "MapDef",
    "MapError",
    "Object",
    "Outcome",
    "Outcomes",
    "Overrun",
    "PacketBytes",
    "Pass",
    "Program",
    "Redirect",
    "Refused",
    "RefusedError",
    "Result",
    "Settings",
    "TcAct",
    "Tx",
    "Verdict",
    "World",
    "as_struct",
    "changes",
    "effort",
    "engines_named",
    "flow_svg",
    "github_annotations",
    "joined_sarif",
    "load",
    "observing",
    "replay",
    "sarif",
    "settings_now",
    "using",
    "verify",
]

_MODULES = {
    "simulator.budgets": ("Budget", "BudgetError", "Effort", "Overrun", "effort"),
    "simulator.reporting": ("Checked", "github_annotations", "joined_sarif", "sarif"),
    "simulator.calling": ("Called", "EnginesDifferError", "Settings", "engines_named", "settings_now", "using"),
    "simulator.decoding": ("as_struct",),
    "simulator.engines.engine": ("ENGINES", "EngineUnavailable"),
    "simulator.engines.kernel": ("KernelRefusedError",),
    "simulator.flowdrawing": ("flow_svg",),
    "simulator.loader": ("LoadError", "load"),
    "simulator.maps": ("MapError",),
    "simulator.observers": ("observing",),
    "simulator.outcome": ("Fault", "Outcome", "Outcomes"),
    "simulator.packet": ("InputRefused",),
    "simulator.program": ("MapDef", "Object", "Program"),
    "simulator.replaying": ("changes", "replay"),
    "simulator.results": (
        *("Aborted", "Drop", "Expectation", "FaultError", "PacketBytes", "Pass", "Redirect"),
        *("Refused", "RefusedError", "Result", "TcAct", "Tx"),
    ),
    "simulator.verdict": ("Verdict",),
    "simulator.verifier": ("verify",),
    "simulator.world": ("World",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'simulator' has no attribute {name!r}")
    found = getattr(import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
