"""Every module that registers forms with the checker."""

from __future__ import annotations

from functools import cache
from importlib import import_module

MODULES = (
    "arithmetic", "binding", "context", "control", "core", "headers", "helpers", "lisp", "local", "maps", "memory",
    "objects", "structs",
)  # fmt: skip


@cache
def load() -> None:
    """Register all forms, once."""
    for name in MODULES:
        import_module(f"bpflisp.front.check_{name}")
