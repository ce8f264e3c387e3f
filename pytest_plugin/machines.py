"""A state machine over an object: entries come and go, time passes, packets run, and what the test says holds.

class Limiter(state_machine(obj, "rate_limiter", packets(ip="v4"))):
    def check(self, packet, result):
        assert result == Pass or self.sent > 10

TestLimiter = Limiter.TestCase
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from pytest_plugin.fixtures import BpfFactory, BpfWorld
from pytest_plugin.strategies import entries, packets
from simulator import Object


class ObjectMachine(RuleBasedStateMachine):
    """What `state_machine` makes classes of: `w` is the world, of which the rules change maps, clock and CPU."""

    w: BpfWorld

    def check(self, packet: Any, result: Any) -> None:
        """What is to hold after each packet: a test overrides it, or writes invariants."""


def state_machine(
    obj: Object,
    program: str = "",
    given: st.SearchStrategy[Any] | None = None,
    *,
    maps: bool = True,
    most_ms: int = 2_000,
) -> type[ObjectMachine]:
    """A class of state machines over a world of the object; `TestCase` of a class made of it is the test.

    Its rules run `program` (the only one, if it is not named) on what `given` draws, packets of any kind by default;
    let up to `most_ms` milliseconds pass; choose the CPU; and, with `maps`, set and delete entries of the maps.
    """
    name = program or (next(iter(obj)) if len(obj) == 1 else "")
    if not name:
        raise ValueError(f"state_machine: {obj.path} has several programs: name one of {', '.join(obj)}")
    called = obj[name]
    drawn = entries(obj) if maps else {}
    made = BpfFactory()

    class Machine(ObjectMachine):
        def __init__(self) -> None:
            super().__init__()
            self.w = made(obj)

        @rule(packet=given if given is not None else packets(program=called))
        def packet(self, packet: Any) -> None:
            self.check(packet, self.w[name](packet))

        @rule(ms=st.integers(1, most_ms))
        def time_passes(self, ms: int) -> None:
            self.w.clock.advance(ms=ms)

        @rule(cpu=st.integers(0, 3))
        def on_cpu(self, cpu: int) -> None:
            self.w.cpu = cpu

    if not drawn:
        return Machine
    every = st.one_of([st.tuples(st.just(which), pair) for which, pair in drawn.items()])

    class MachineWithMaps(Machine):
        @rule(entry=every)
        def set_entry(self, entry: tuple[str, tuple[Any, Any]]) -> None:
            which, (key, value) = entry
            # What a full map does with one more is no matter here.
            if len(self.w.maps[which]) < obj.maps[which].max_entries or key in self.w.maps[which]:
                self.w.maps[which][key] = value

        @rule(entry=every)
        def delete_entry(self, entry: tuple[str, tuple[Any, Any]]) -> None:
            which, (key, _) = entry
            if "array" not in obj.maps[which].type and key in list(self.w.maps[which]):
                del self.w.maps[which][key]

    return MachineWithMaps
