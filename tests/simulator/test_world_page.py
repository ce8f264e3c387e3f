"""docs/world.md: its examples run, one after the other, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from simulator.world import World

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "world.md"


def test_the_examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    space: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), space)
    assert len(blocks) >= 6
    assert space["outcome"].fault is None
    assert space["world"].devices[2].name == "eth0"


def test_everything_that_a_world_has_is_on_the_page() -> None:
    text = PAGE.read_text()
    inner = {"engine_state", "handles", "memory", "timers", "objects", "seed", "cpus", "programs", "network"}
    inner |= {"sequence", "unfilled", "ready"}
    rare = {"sockets", "tunnel_key", "sent_tunnel_key", "attach_cookie", "function_address", "printed"}
    public = {name.lstrip("_") for name in vars(World())}
    assert [name for name in sorted(public - inner - rare) if f"world.{name}" not in text] == []
