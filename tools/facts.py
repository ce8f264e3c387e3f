"""Reading the facts that the table makers share: JSON of `../shared/data`, answers of the probes, names and ranges."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

ANSWERS = Path(__file__).parent / "answers"
PROBED_KERNEL = "6.18.44"


@cache
def fact(folder: Path, name: str) -> dict[str, Any]:
    """One file of `../shared/data`."""
    loaded: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return loaded


@cache
def answer(question: str) -> dict[str, Any]:
    """What the probed kernel answered: see `tools.probe_kernel`."""
    loaded: dict[str, Any] = json.loads((ANSWERS / PROBED_KERNEL / f"{question}.json").read_text())
    return loaded


def prog_type_name(name: str) -> str:
    """`BPF_PROG_TYPE_XDP` -> `xdp`."""
    return name.removeprefix("BPF_PROG_TYPE_").lower()


def attach_type_name(name: str | None) -> str:
    """`BPF_XDP_DEVMAP` -> `xdp_devmap`; "" for none."""
    return (name or "").removeprefix("BPF_").lower()


def map_type_name(name: str) -> str:
    """`BPF_MAP_TYPE_PERCPU_HASH` -> `percpu_hash`, without the `_deprecated` that later kernels add."""
    return name.removeprefix("BPF_MAP_TYPE_").lower().removesuffix("_deprecated")
