"""The helpers that programs call: one function each, found by number. Files are by theme; `registry` finds them."""

from __future__ import annotations

from functools import cache
from importlib import import_module

_THEMES = (
    "buffer", "checksums", "dynptr", "loops", "maps", "memory", "packet", "redirect", "ringbuf", "sockets", "system",
    "text", "trace", "tracing",
)  # fmt: skip


@cache
def known_names() -> frozenset[str]:
    """The names of all helpers that there are, modelled or not."""
    from bpflisp.spec.helpers import all_helpers

    return frozenset(helper.name for helper in all_helpers())


@cache
def load_all() -> None:
    """Imports every module of models, so that they register themselves."""
    for theme in _THEMES:
        import_module(f"simulator.helpers.{theme}")
