"""The helpers that programs call: one function each, found by number. Files are by theme; `registry` finds them."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.helpers.registry import Model

_THEMES = (
    "maps", "system", "ringbuf", "memory", "trace", "redirect", "packet", "loops", "checksums", "tracing", "text",
    "buffer", "dynptr", "sockets", "fib", "options", "storages", "messages", "sysctl",
)  # fmt: skip
"""The modules of models, the most called ones first."""


@cache
def known_names() -> frozenset[str]:
    """The names of all helpers and kernel functions that there are, modelled or not."""
    from bpflisp.spec.helpers import all_helpers
    from bpflisp.spec.kfuncs import all_kfuncs

    return frozenset(helper.name for helper in all_helpers()) | {kfunc.name for kfunc in all_kfuncs()}


def load_until(name: str) -> Model | None:
    """The model of a helper; modules are imported only until one has it. None where none has."""
    from simulator.helpers.registry import MODELS

    for theme in _THEMES:
        if name in MODELS:
            break
        import_module(f"simulator.helpers.{theme}")
    return MODELS.get(name)


@cache
def load_all() -> None:
    """Imports every module of models, so that they register themselves."""
    for theme in _THEMES:
        import_module(f"simulator.helpers.{theme}")
