"""Timers of programs, which run when the world's clock reaches them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.maps import Map
    from simulator.memory import Memory


@dataclass(slots=True)
class Timer:
    """A timer in a map's value: `due` in ns since boot, None while it does not run."""

    map: Map
    callback: Callable[[Sequence[int]], int] | None = None
    due: int | None = None


class Timers:
    """The timers of a world, by the address of their struct bpf_timer."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._timers: dict[int, Timer] = {}

    def init(self, address: int, of: Map) -> int:
        """Makes a timer; EBUSY where there is one already."""
        if address in self._timers:
            return -errno.EBUSY
        self._timers[address] = Timer(of)
        return 0

    def set_callback(self, address: int, callback: Callable[[Sequence[int]], int]) -> int:
        """Says what it runs; EINVAL where there is no timer."""
        timer = self._timers.get(address)
        if timer is None:
            return -errno.EINVAL
        timer.callback = callback
        return 0

    def start(self, address: int, due: int) -> int:
        """Lets it run out; EINVAL where there is no timer or it has nothing to run."""
        timer = self._timers.get(address)
        if timer is None or timer.callback is None:
            return -errno.EINVAL
        timer.due = due
        return 0

    def cancel(self, address: int) -> int:
        """Stops it: 1 where it was running; EINVAL where there is no timer."""
        timer = self._timers.get(address)
        if timer is None:
            return -errno.EINVAL
        was_running, timer.due = timer.due is not None, None
        return int(was_running)

    def forget(self, address: int) -> None:
        """Takes a timer away, if there is one: its element is gone."""
        self._timers.pop(address, None)

    def next_due(self, until: int) -> int | None:
        """The time of the next timer that runs out up to `until`, None where none does."""
        times = [timer.due for timer in self._timers.values() if timer.due is not None and timer.due <= until]
        return min(times, default=None)

    def fire(self, now: int) -> None:
        """Runs the timers that are due, one after the other, in the order of their time."""
        due = sorted((timer.due, address) for address, timer in self._timers.items() if timer.due is not None)
        for time, address in due:
            timer = self._timers[address]
            if time > now or timer.due != time:
                continue
            timer.due = None
            key, value = timer.map.element_at(address)
            region = self._memory.allocate("key of a timer", len(key))
            region.view[:] = key
            try:
                assert timer.callback is not None
                timer.callback((timer.map.handle, region.base, value))
            finally:
                self._memory.free(region)
