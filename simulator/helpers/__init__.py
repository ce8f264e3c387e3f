"""The helpers that programs call: one function each, found by number."""

from __future__ import annotations

from functools import cache


@cache
def known_names() -> frozenset[str]:
    """The names of all helpers that there are, modelled or not."""
    from bpflisp.spec.helpers import HELPERS

    return frozenset(helper.name for helper in HELPERS.values())
