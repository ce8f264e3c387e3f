"""`python -m tests.bench.code`: the code that the compiler makes, beside clang-19's, for every fixture with a C twin.

Three tables: slots; instructions that the kernel's verifier processes, and whether ours counts the same; nanoseconds a
packet, from the kernel's own test run. Then the goals, met or not. What this host has not (clang-19, bpf(2)) is left
out, and said.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from simulator.engines import bpf_syscall
from tests import oracle
from tests.bench import packets
from tests.bench.timing import table
from tests.bench.variants import CLANG, MCPUS, OURS, Row, Variant, rows, variants

SLOT_GOALS = {"total_counter": 11, "port_dropper": 25, "syn_flood": 65}
"""The book's packet counter, port blocker and SYN-flood limiter: slots that they may have at the better --mcpu."""

Measured = Mapping[tuple[str, Variant], float]
"""A figure by the row's name and the variant; none where it could not be had."""


def main() -> None:
    """Prints every table."""
    found, works = rows(), bpf_syscall.available()
    print(_surroundings(works[1]), end="\n\n")
    slots = {(row.name, variant): len(row.made[variant].insns) / 8 for row in found for variant in row.made}
    print("Slots:\n" + _table(found, slots, ".0f"), end="\n\n")
    counts, differ = processed(found, kernel=works[0])
    whose = "the kernel's verifier" if works[0] else "our verifier (there is no kernel to ask)"
    print(f"Instructions that {whose} processes:\n" + _table(found, counts, ".0f"))
    print(_counted_alike(found, differ) if works[0] else "", end="\n\n")
    times: Measured = packets.nanoseconds(found) if works[0] else {}
    if times:
        print("Nanoseconds a packet, the mean of each program's packets:\n" + _table(found, times, ".1f"), end="\n\n")
    print("Goals:\n" + table(("goal", "measured", "met"), list(_goals(found, slots, counts, times))))


def _surroundings(why_no_kernel: str) -> str:
    jit = Path("/proc/sys/net/core/bpf_jit_enable")
    lines = [
        f"kernel {platform.release()}, {platform.machine()}, JIT {jit.read_text().strip() if jit.exists() else '?'}"
    ]
    if CLANG is None:
        lines.append("clang-19 is not installed: beside us stand the kept objects alone, -O2 -mcpu=v3")
    if why_no_kernel:
        lines.append(f"no verdicts and times of the kernel: {why_no_kernel}")
    return "\n".join(lines)


def processed(found: Sequence[Row], *, kernel: bool) -> tuple[dict[tuple[str, Variant], float], list[str]]:
    """Instructions processed, and the programs of which the kernel and our verifier count differently."""
    counts: dict[tuple[str, Variant], float] = {}
    differ = []
    for row in found:
        for variant, program in row.made.items():
            ours = program.verify().insns_processed
            theirs = oracle.ask(program).insns_processed if kernel else ours
            counts[row.name, variant] = theirs or 0
            if theirs != ours:
                differ.append(f"{row.name} {variant.made_by} {variant.mcpu}: kernel {theirs}, ours {ours}")
    return counts, differ


def _counted_alike(found: Sequence[Row], differ: Sequence[str]) -> str:
    asked = sum(len(row.made) for row in found)
    return f"our verifier counts the same for {asked - len(differ)} of {asked} programs" + "".join(
        f"\n  {line}" for line in differ
    )


# ---- tables ----------------------------------------------------------------------------------------------------------


def _table(found: Sequence[Row], figures: Measured, form: str) -> str:
    """A row a program, a column a variant; then the sums, and the median of ours to each of clang's."""
    columns = variants()
    lines = []
    for row in found:
        cells = [figures.get((row.name, variant)) for variant in columns]
        if any(cell is not None for cell in cells):
            lines.append((row.name, *("-" if cell is None else format(cell, form) for cell in cells)))
    lines.append(("sum", *(format(_sum(found, figures, variant), form) for variant in columns)))
    medians = [_median_ratio(found, figures, variant) for variant in columns]
    lines.append(("ours to this, median", *("" if each is None else f"{each:.3f}" for each in medians)))
    heads = [f"{variant.made_by} {variant.mcpu}" for variant in columns]
    return table(("program", *heads), lines)


def _sum(found: Sequence[Row], figures: Measured, variant: Variant) -> float:
    return sum(figures.get((row.name, variant), 0) for row in found)


def _median_ratio(found: Sequence[Row], figures: Measured, beside: Variant) -> float | None:
    """The median of ours divided by clang's; None beside our own column."""
    ours = Variant(OURS, beside.mcpu)
    if beside == ours:
        return None
    pairs = [(figures.get((row.name, ours)), figures.get((row.name, beside))) for row in found]
    return statistics.median(a / b for a, b in pairs if a is not None and b)


# ---- goals -----------------------------------------------------------------------------------------------------------


def _goals(found: Sequence[Row], slots: Measured, counts: Measured, times: Measured) -> Iterator[tuple[str, ...]]:
    there = variants()
    for mcpu in MCPUS:
        ours, theirs = Variant(OURS, mcpu), Variant("-O2", mcpu)
        if theirs not in there:
            continue
        more = [
            f"{row.name} {slots[row.name, ours] - slots[row.name, theirs]:+.0f}"
            for row in found
            if slots[row.name, ours] > slots[row.name, theirs]
        ]
        yield f"{mcpu}: slots of each at most clang -O2's", ", ".join(more) or "none has more", _met(not more)
        yield _sums(f"{mcpu}: slots in sum below clang -O2's", found, slots, ours, theirs, float.__lt__)
        yield _sums(f"{mcpu}: processed in sum at most clang -O2's", found, counts, ours, theirs, float.__le__)
        if times:
            ratio = _median_ratio(found, times, theirs) or 0
            yield f"{mcpu}: time a packet, median ratio to clang -O2 at most 1", f"{ratio:.3f}", _met(ratio <= 1)
    for name, goal in SLOT_GOALS.items():
        least = min((slots[name, Variant(OURS, mcpu)], mcpu) for mcpu in MCPUS)
        yield f"{name}: at most {goal} slots", f"{least[0]:.0f} ({least[1]})", _met(least[0] <= goal)


def _sums(
    goal: str,
    found: Sequence[Row],
    figures: Measured,
    ours: Variant,
    theirs: Variant,
    holds: Callable[[float, float], bool],
) -> tuple[str, ...]:
    a, b = float(_sum(found, figures, ours)), float(_sum(found, figures, theirs))
    return goal, f"{a:.0f} and {b:.0f}", _met(holds(a, b))


def _met(holds: bool) -> str:
    return "yes" if holds else "NO"


if __name__ == "__main__":
    main()
