"""What is done once for a program is no example's fault: Hypothesis' deadline does not count it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_NAME = "bpf: verified"


@contextmanager
def aside() -> Iterator[None]:
    """Counts the time that it lasts as spent on drawing, which deadlines leave out; outside of `@given` does nothing.

    The verification of a program is meant: it is made in the first example that calls it.
    """
    start = time.perf_counter()
    try:
        yield
    finally:
        if "hypothesis" in sys.modules:
            _count_as_drawn(time.perf_counter() - start)


def _count_as_drawn(seconds: float) -> None:
    from hypothesis import control

    if not control.currently_in_test_context():
        return
    drawn = getattr(control.current_build_context().data, "draw_times", None)
    # Not promised by Hypothesis: where it has no such table any more, its deadline counts our time.
    if isinstance(drawn, dict):
        drawn[_NAME] = drawn.get(_NAME, 0.0) + seconds
