"""Helpers that a test answers for itself: fixed answers, sequences, functions, failures.

    world.helpers.bpf_fib_lookup.returns(0, ifindex=7)
    world.helpers.bpf_get_prandom_u32.returns_each(4, 8, 15)
    world.helpers.bpf_sk_lookup_tcp.does(lambda call: 0)
    world.helpers.bpf_map_update_elem.fails(ENOMEM, on=3)

Invariant: a mock is asked before the model of the helper; what it does not answer the model does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.failures import Failure


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a mocked helper: its five arguments, unsigned, and the memory that they point into."""

    name: str
    args: tuple[int, int, int, int, int]
    memory: Any
    world: Any

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the program's memory."""
        data: bytes = self.memory.read(address, size)
        return data

    def write(self, address: int, data: bytes) -> None:
        """Writes to the program's memory."""
        self.memory.write(address, data)


Answer = Callable[[Call], "int | None"]


class Mock:
    """What one helper answers. An answer of None leaves the call to the model."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0
        """How often the helper was called since it is mocked."""
        self._answer: Answer | None = None
        self._values: Sequence[int] = ()
        self._asked = 0
        self._failures: list[Failure] = []
        self.fields: Mapping[str, int] = {}
        """Fields of the helper's struct argument that a fixed answer fills in."""

    def returns(self, value: int, **fields: int) -> Mock:
        """Every call returns `value`; `fields` are set in the struct that the helper fills."""
        self._answer, self._values, self.fields = None, (value,), fields
        return self

    def returns_each(self, *values: int) -> Mock:
        """The calls return these values one after the other, then the last one for good."""
        if not values:
            raise ValueError(f"{self.name}: a sequence of answers needs one at least")
        self._answer, self._values, self._asked = None, values, 0
        return self

    def does(self, function: Answer) -> Mock:
        """Every call asks `function`, which takes a Call and returns r0, or None to leave the call to the model."""
        self._answer, self._values = function, ()
        return self

    def fails(
        self, errno: int | None = None, on: int | Collection[int] | None = None, *, after: int = 0, map: str = ""
    ) -> Mock:
        """Calls fail with `errno`, or as they usually do: those numbered `on`, from 1 and counted from now, those that
        come `after` so many, or all; only those on one map where that is named. See `simulator.failures`."""
        from simulator.failures import failure

        self._failures.append(failure(self.name, errno, on, after, map))
        return self

    def works(self) -> Mock:
        """No failure any more, no answer of its own: the model answers again."""
        self._failures.clear()
        self._answer, self._values, self.fields = None, (), {}
        return self

    def answer(self, call: Call) -> int | None:
        """r0 of this call, None where the model is to say."""
        self.calls += 1
        struck = [failure for failure in self._failures if failure.strikes(call)]
        if struck:
            from simulator.failures import failed

            return failed(call, struck[-1].error)
        if self._answer is not None:
            return self._answer(call)
        if not self._values:
            return None
        if self.fields:
            from simulator.helpers.structs import fill

            fill(call, self.fields)
        self._asked += 1
        return self._values[min(self._asked, len(self._values)) - 1]


class Mocks:
    """The mocked helpers of a world, by name: `world.helpers.bpf_fib_lookup`."""

    def __init__(self) -> None:
        self.version = 0
        """Grows when a helper is first mocked, so that engines look again."""
        self._mocks: dict[str, Mock] = {}

    def __getattr__(self, name: str) -> Mock:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Mock:
        if name not in self._mocks:
            self._mocks[name] = Mock(self._known(name))
            self.version += 1
        return self._mocks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._mocks)

    def find(self, name: str) -> Mock | None:
        """The mock of this helper, None where it has none."""
        return self._mocks.get(name)

    @staticmethod
    def _known(name: str) -> str:
        from simulator.helpers import known_names

        if name not in known_names():
            raise AttributeError(f"no helper is called {name!r}")
        return name


class HostMemory:
    """Mocked memory outside of the simulation's own: what the probe_read helpers see, kernel or user.

        world.kernel_memory[0xffff888000000000] = b"..."

    Invariant: what is not given faults, as an unmapped page does. `shared` says that programs' own memory, which is the
    kernel's, is in it.
    """

    def __init__(self, shared: bool = True) -> None:
        self._blocks: dict[int, bytearray] = {}
        self._shared = shared

    def __setitem__(self, address: int, data: bytes) -> None:
        self._blocks[address] = bytearray(data)

    def __getitem__(self, address: int) -> bytes:
        return bytes(self._blocks[address])

    def __delitem__(self, address: int) -> None:
        del self._blocks[address]

    def read(self, memory: Any, address: int, size: int) -> bytes | None:
        """`size` bytes from here, or from the simulation's own memory; None where they are not all there."""
        from simulator.memory import ADDRESS_LIMIT, MemoryFault

        for start, block in self._blocks.items():
            if start <= address and address + size <= start + len(block):
                return bytes(block[address - start : address - start + size])
        if address < ADDRESS_LIMIT and self._shared:
            try:
                found: bytes = memory.read(address, size)
            except MemoryFault:
                return None
            return found
        return None

    def write(self, address: int, data: bytes) -> bool:
        """Writes into a block that was given; whether it is all in one."""
        for start, block in self._blocks.items():
            if start <= address and address + len(data) <= start + len(block):
                block[address - start : address - start + len(data)] = data
                return True
        return False

    def read_string(self, memory: Any, address: int, limit: int) -> bytes | None:
        """Bytes up to a zero, without it, at most `limit`; None where memory ends before."""
        found = bytearray()
        while len(found) < limit:
            byte = self.read(memory, address + len(found), 1)
            if byte is None:
                return None
            if byte == b"\0":
                break
            found += byte
        return bytes(found)
