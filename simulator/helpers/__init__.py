"""The helpers that programs call: one function each, found by number. Files are by theme; `registry` finds them."""

from __future__ import annotations

from functools import cache
from importlib import import_module

_THEMES = (
    "buffer", "checksums", "dynptr", "fib", "loops", "maps", "memory", "packet", "redirect", "ringbuf", "sockets",
    "system", "text", "trace", "tracing",
)  # fmt: skip


@cache
def known_names() -> frozenset[str]:
    """The names of all helpers and kernel functions that there are, modelled or not."""
    from bpflisp.spec.helpers import all_helpers
    from bpflisp.spec.kfuncs import all_kfuncs

    return frozenset(helper.name for helper in all_helpers()) | {kfunc.name for kfunc in all_kfuncs()}


@cache
def load_all() -> None:
    """Imports every module of models, so that they register themselves."""
    for theme in _THEMES:
        import_module(f"simulator.helpers.{theme}")
