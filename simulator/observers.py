"""Who is told of what is loaded and judged, while it wants to know: coverage shows what no test ever called.

Invariant: an observer changes nothing. Nobody observes but inside of `observing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from simulator.program import Object, Program
    from simulator.verdict import Verdict


class Observer(Protocol):
    """What wants to know."""

    def loaded(self, obj: Object) -> None:
        """An object was loaded."""

    def judged(self, program: Program, verdict: Verdict) -> None:
        """A program was verified."""


_OBSERVERS: list[Observer] = []


@contextmanager
def observing(*observers: Observer) -> Iterator[None]:
    """Tells these and nobody else, while it lasts; nobody at all where none is given."""
    before = list(_OBSERVERS)
    _OBSERVERS[:] = observers
    try:
        yield
    finally:
        _OBSERVERS[:] = before


def tell_loaded(obj: Object) -> Object:
    """Passes an object on that was just loaded."""
    for observer in _OBSERVERS:
        observer.loaded(obj)
    return obj


def tell_judged(program: Program, verdict: Verdict) -> Verdict:
    """Passes a verdict on that was just reached."""
    for observer in _OBSERVERS:
        observer.judged(program, verdict)
    return verdict
