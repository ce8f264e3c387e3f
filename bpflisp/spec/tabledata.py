"""Reads the generated tables of `spec/tables`, each when it is first asked for and then never again.

The tables are made by `tools/gen_tables.py`; nobody edits them. Nothing is read at import.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "tables"


@cache
def table(name: str) -> Any:
    """The table of that name, as JSON has it. The caller keeps what it makes of it, not this."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def numbers(ranges: str) -> frozenset[int]:
    """`1-3,7` -> {1, 2, 3, 7}: how the tables write sets."""
    found: set[int] = set()
    for part in ranges.split(",") if ranges else ():
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return frozenset(found)


def ranges(members: Iterable[int]) -> str:
    """{1, 2, 3, 7} -> `1-3,7`: the inverse of `numbers`."""
    runs: list[list[int]] = []
    for number in sorted(set(members)):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{low}-{high}" if low != high else str(low) for low, high in runs)


def prefer(prog_type: str, attach_type: str) -> str:
    """The attach type that number 0, or none named, stands for where the kernel reads it."""
    return attach_type or _ZERO_MEANS.get(prog_type, "")


# bpf_prog_load_fixup_attach_type() turns 0 into these, but for cgroup_skb, where 0 is this attach type's own number.
_ZERO_MEANS = {
    "cgroup_skb": "cgroup_inet_ingress",
    "cgroup_sock": "cgroup_inet_sock_create",
    "sk_reuseport": "sk_reuseport_select",
}
