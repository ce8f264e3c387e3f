"""Timing: the median of a few rounds, in CPU time of this process, so that a busy machine disturbs little."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def microseconds(once: Callable[[int], object], *, seconds: float = 0.25, rounds: int = 5) -> float:
    """Microseconds of CPU that one call takes. `once` is given the number of the call; calls fill `seconds` a round."""
    once(0)
    count, spent = 1, 0.0
    while spent < seconds / 20:
        count *= 2
        spent = _round(once, count)
    count = max(1, int(count * seconds / rounds / spent))
    return statistics.median(_round(once, count) for _ in range(rounds)) / count * 1e6


def _round(once: Callable[[int], object], count: int) -> float:
    start = time.process_time()
    for number in range(count):
        once(number)
    return time.process_time() - start


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Columns as wide as they need, the first to the left, the others to the right."""
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  " + "  ".join(cells))
    return "\n".join(lines)


def against(once: Callable[[int], object], other: Callable[[int], object], *, rounds: int = 15) -> float:
    """How many times as long one call takes as one of `other`: the median of rounds in which they take turns, so that
    what slows the machine down slows both."""
    counts = [_enough(each, 0.01) for each in (once, other)]
    ratios = []
    for _ in range(rounds):
        ours, theirs = _round(once, counts[0]) / counts[0], _round(other, counts[1]) / counts[1]
        ratios.append(ours / theirs)
    return statistics.median(ratios)


def _enough(once: Callable[[int], object], seconds: float) -> int:
    """How many calls take about so long, once it is warm."""
    for number in range(20):
        once(number)
    count = 1
    while _round(once, count) < seconds:
        count *= 2
    return count
