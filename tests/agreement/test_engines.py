"""Our engines leave behind what the kernel leaves behind: on programs that are kept, and on a few new ones."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from tests import oracle
from tests.agreement import recorded
from tests.agreement.engines import ENGINES, run_seed
from tests.agreement.runs_compared import BAD

NEW = 40
"""Programs that are generated on each run, of the day's own seeds, where the kernel can be asked."""


@pytest.mark.parametrize("engine", ENGINES)
def test_kept_programs_run_as_they_ran_in_the_kernel(engine: str) -> None:
    wrong: list[Any] = []
    for row in recorded.rows():
        program, todo = recorded.case_of(row)
        found = recorded.runs(program, todo, engine)
        wrong += [(row["id"], mine, theirs) for mine, theirs in zip(found, row["seen"], strict=True) if mine != theirs]
    assert wrong == []


def test_kept_programs_are_of_every_kind() -> None:
    kept = [recorded.case_of(row)[0] for row in recorded.rows()]
    assert {program.type for program in kept} >= {"xdp", "sched_cls", "socket_filter", "cgroup_skb", "syscall"}
    assert {made.type for program in kept for made in program.maps} >= {
        *("array", "hash", "percpu_array", "percpu_hash", "lru_hash", "lpm_trie", "queue", "stack", "ringbuf"),
        *("array_of_maps", "hash_of_maps", "prog_array", "perf_event_array"),
    }


def test_new_programs_run_as_in_the_kernel() -> None:
    works, why = oracle.available()
    if not works:
        pytest.skip(why)
    first = int(time.strftime("%Y%m%d")) * 1_000_000 + 900_000
    print(f"seeds from {first}")
    before = os.sched_getaffinity(0)
    try:
        tallies = {number: run_seed(ENGINES, (3, 4), number) for number in range(first, first + NEW)}
    finally:
        os.sched_setaffinity(0, before)
    wrong = [(number, said) for number, (_, said) in tallies.items() if any(kind in BAD for _, kind in said)]
    assert wrong == []
    assert sum(counts.get(("python", "agree"), 0) for counts, _ in tallies.values()) >= NEW
