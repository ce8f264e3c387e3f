"""What a failed test's last call did: its instructions, its maps, what it printed, and how to run it again."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pytest

if TYPE_CHECKING:
    from simulator import Called

_FIRST, _OF_EACH_WORLD = 256, 8
"""How many calls of a test, and then of each of its worlds, can be made again: keeping a world takes 0.1 ms."""

_LONGEST_PACKET = 96
_MOST_LINES = 40

WATCH: pytest.StashKey[Watch] = pytest.StashKey()


class Watch:
    """Remembers the last call of a test, so that it can be made again if the test fails.

    `on_engine` is told which engine a call runs on, once for each.
    """

    def __init__(self, on_engine: Callable[[str], object]) -> None:
        self.on_engine = on_engine
        self._engines: set[str] = set()
        self.last: Called | None = None
        self._calls = 0
        self._by_world: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def note(self, called: Called) -> None:
        """A call that is about to be made."""
        if called.engine not in self._engines:
            self._engines.add(called.engine)
            self.on_engine(called.engine)
        if not called.fresh:
            self._calls += 1
            seen = self._by_world[called.world] = self._by_world.get(called.world, 0) + 1
            if self._calls <= _FIRST or seen <= _OF_EACH_WORLD:
                called.before = called.world.copy()
        self.last = called


def sections(item: pytest.Item, called: Called) -> Iterator[tuple[str, str]]:
    """Titles and texts for the report of a failed test whose last call this was."""
    from simulator import changes, replay

    made = replay(called)
    name = called.program.name or called.program.type
    if made is None:
        yield (
            "bpf last instructions",
            (
                f"{name}: not shown. Of a test's calls in a world the first {_FIRST} can be made again, and the first "
                f"{_OF_EACH_WORLD} of each world"
            ),
        )
    elif not made.complete:
        yield "bpf last instructions", f"{name}: not shown, it executes more than {made.executed} instructions"
    else:
        yield f"bpf last instructions of {made.executed}", "\n".join(_steps(made.steps))
        changed = list(changes(made.before, made.after))
        if changed:
            yield "bpf maps, - before the call, + after it", "\n".join(_short(changed))
    if called.world.printed:
        yield "bpf printed", "\n".join(_short(called.world.printed))
    yield "bpf replay", "\n".join(_again(item, called))


def _steps(steps: list[Any]) -> Iterator[str]:
    """Instructions below their source lines, values in a column."""
    wide = max((len(step.text) for step in steps), default=0)
    shown = ""
    for step in steps:
        if step.source and step.source != shown:
            shown = step.source
            yield f"; {shown}"
        yield f"{step.slot:4}: {step.text:{min(wide, 44)}}  {step.values}".rstrip()


def _short(lines: list[str]) -> list[str]:
    left = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], f"... {left} lines more"] if left > 0 else lines


def _again(item: pytest.Item, called: Called) -> Iterator[str]:
    """The command line that runs the test again, with the seed; the packet alone, where nothing else is needed."""
    config = item.config
    parts = ["pytest", item.nodeid, f"--bpf-seed={called.world.seed}"]
    for option in ("--bpf-engine", "--bpf-kernel-btf"):
        if config.getoption(option):
            parts.append(f"{option}={config.getoption(option)}")
    parts += [f"--bpf-kernel={kernel}" for kernel in config.getoption("--bpf-kernel")]
    if (seed := getattr(config.option, "hypothesis_seed", None)) is not None:
        parts.append(f"--hypothesis-seed={seed}")
    yield " ".join(map(shlex.quote, parts))
    program, packet = called.program, called.packet
    if isinstance(packet, bytes):
        if program.origin and called.fresh and not called.maps and not called.context:
            command = ["bpflisp", "run", program.origin, "--prog", program.name, "--packet", packet.hex()]
            yield " ".join(map(shlex.quote, command))
        else:
            shown = packet[:_LONGEST_PACKET].hex()
            yield f"packet of {len(packet)} bytes: {shown}{'...' if len(packet) > _LONGEST_PACKET else ''}"
