"""The world that programs run in: maps, time, CPUs, randomness, the current task, memory, mocks. All of it is a value.

Invariant: nothing of the host shows. Two worlds that were made and treated alike behave alike, on every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any

from simulator.connections import Connections
from simulator.maps import Map, make
from simulator.memory import Memory
from simulator.mocks import HostMemory, Mocks
from simulator.network import Device, Neighbourhood, Route
from simulator.objects import Objects
from simulator.program import MapDef, Object, Program
from simulator.timers import Timers
from simulator.variables import Variables

if TYPE_CHECKING:
    from bpflisp.spec.btf import Btf
    from simulator.managed import Field
    from simulator.sockets import Socket

__all__ = ["BOOT_TO_START", "WALL_CLOCK", "Clock", "Device", "Maps", "Route", "Task", "World"]

BOOT_TO_START = 1_000_000_000_000
"""Nanoseconds since boot at which a world starts: not 0, which programs take for "never"."""

WALL_CLOCK = 1_700_000_000_000_000_000
"""Nanoseconds of wall-clock time at which a world starts."""


class Clock:
    """The time. It stands still but for `advance`, and for `step`: nanoseconds that pass with each reading."""

    def __init__(self, now: int = BOOT_TO_START, wall: int = WALL_CLOCK) -> None:
        self.now = now
        self.step = 0
        self._wall_offset = wall - now
        self.timers: Timers | None = None

    @property
    def wall(self) -> int:
        """Nanoseconds of wall-clock time (UTC), without a step."""
        return self.now + self._wall_offset

    def read(self) -> int:
        """Nanoseconds since boot; then lets `step` pass."""
        now = self.now
        if self.step:
            self.now += self.step
        return now

    def advance(self, ns: int = 0, *, us: float = 0, ms: float = 0, s: float = 0) -> None:
        """Lets time pass, and the timers run that it reaches. ValueError for a negative time."""
        passed = ns + round(us * 1_000) + round(ms * 1_000_000) + round(s * 1_000_000_000)
        if passed < 0:
            raise ValueError(f"time does not run backwards: {passed} ns")
        until = self.now + passed
        while self.timers is not None and (due := self.timers.next_due(until)) is not None:
            self.now = max(self.now, due)
            self.timers.fire(self.now)
        self.now = until


@dataclass(slots=True)
class Task:
    """The task in which programs run, as the task helpers tell it."""

    pid: int = 1000
    tgid: int = 1000
    uid: int = 0
    gid: int = 0
    comm: str = "bpf-test"
    cgroup_id: int = 1
    cgroup_ancestors: list[int] = field(default_factory=list)
    """The ids of the cgroups above, the root's first."""
    cgroup_address: int = 0xFFFF_8880_0000_3000
    """The address of its cgroup's struct; see `World.place`."""
    pid_namespace: tuple[int, int] = (0, 0)
    """Device and inode number of its PID namespace."""
    areas: list[tuple[int, int, int]] = field(default_factory=list)
    """Its mapped memory: (first address, the one after the last, address of the kernel's struct vm_area_struct)."""
    address: int = 0xFFFF_8880_0000_1000
    kernel_stack: list[int] = field(default_factory=list)
    user_stack: list[int] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)


class Maps(Mapping[str, Map]):
    """The maps of a world by name; also as attributes: `world.maps.blocked`."""

    def __init__(self) -> None:
        self._maps: dict[str, Map] = {}

    def __getitem__(self, name: str) -> Map:
        try:
            return self._maps[name]
        except KeyError:
            raise KeyError(_unknown_map(name, self._maps)) from None

    def __getattr__(self, name: str) -> Map:
        maps = self.__dict__.get("_maps", {})
        if name in maps:
            found: Map = maps[name]
            return found
        raise AttributeError(_unknown_map(name, maps))

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)

    def __repr__(self) -> str:
        return f"<maps {', '.join(self._maps)}>"


class World:
    """Everything that a program can see and change besides its registers, stack and packet.

    `maps` may be given as an Object (whose programs then fill its prog arrays too), or as definitions; maps that a
    program names and the world has not are made when it runs. `cpus` is how many CPUs there are, `cpu` the one that
    programs run on. Equal arguments give equal worlds; `copy` gives an independent one in the same state.
    """

    def __init__(
        self,
        maps: Object | Iterable[MapDef] = (),
        *,
        seed: int = 0,
        cpus: int = 2,
        cpu: int = 0,
    ) -> None:
        self.seed = seed
        self.cpus = cpus
        self.cpu = cpu
        self.memory = Memory()
        self.maps = Maps()
        self._unfilled: list[Any] = []
        self.handles: dict[int, Map] = {}
        """Maps by the number that programs hold as their address."""
        self.clock = Clock()
        self.timers = self.clock.timers = Timers(self.memory)
        self.objects = Objects(self.memory)
        """What programs allocated, and the lists and trees that hold it."""
        self.task = Task()
        self.helpers = Mocks()
        self.kernel_memory = HostMemory()
        self.user_memory = HostMemory(shared=False)
        self.devices = {1: Device("lo", 65536)}
        """The network interfaces by number."""
        self.network = Neighbourhood(self.devices)
        """Routes and neighbours, which bpf_fib_lookup goes by."""
        self.connections = Connections(self.memory)
        """The connections that are tracked, for the kernel functions that look them up."""
        self.sent: list[tuple[int, bytes]] = []
        """Copies of packets that programs sent to interfaces, by number."""
        self.sockets: list[Socket] = []
        """What the socket lookup helpers find: `add_socket` puts one there."""
        self.tunnel_key: bytes | None = None
        """The struct bpf_tunnel_key of the tunnel that packets come through, None for none."""
        self.sent_tunnel_key: bytes | None = None
        """The struct bpf_tunnel_key that a program set last."""
        self.attach_cookie = 0
        self.function_address = 0
        """What bpf_get_attach_cookie and bpf_get_func_ip give."""
        self.symbols: dict[str, int] = {}
        """Addresses of kernel variables by name, for programs that refer to them; usually in `kernel_memory`."""
        self.printed: list[str] = []
        """What bpf_trace_printk and bpf_trace_vprintk wrote, over all runs."""
        self.sequence = bytearray()
        """What iterators wrote with bpf_seq_write and bpf_seq_printf."""
        self.options: dict[tuple[int, int, int], bytes] = {}
        """Socket options that programs set: (socket's address, level, option) -> value."""
        self.programs: dict[str, Program] = {}
        """The programs that prog arrays and device maps can name."""
        self.engine_state: dict[Any, Any] = {}
        self.ready: tuple[Any, Callable[[bytes], Any]] | None = None
        """The program that ran last and the quickest way to run it again, where there is one."""
        """What engines keep of this world between runs. Not part of its value: a copy starts without."""
        if isinstance(maps, Object):
            self.programs.update(maps.programs)
            maps = maps.maps.values()
        for definition in maps:
            self.add_map(definition)
        self._fill()

    @property
    def variables(self) -> Variables:
        """The global variables of its objects, by name, to be read and set."""
        return Variables(self.maps)

    def add_programs(self, programs: Mapping[str, Program]) -> None:
        """Makes programs known by name, so that prog arrays can name them."""
        self.programs.update(programs)

    def place(self, value: bytes | Mapping[str, Any], type: str = "", btf: Btf | None = None) -> int:
        """Puts an object of the kernel's where programs can read it, by loads as by bpf_probe_read: its address.

        It is given as bytes, or as the fields of a structure that `btf` has, by name. ValueError for what that has not.
        """
        if isinstance(value, Mapping):
            value = _structure(value, type, btf)
        region = self.memory.allocate(type or "kernel object", max(1, len(value)), writable=False)
        region.view[: len(value)] = value
        return region.base

    def add_socket(self, socket: Socket) -> Socket:
        """Puts a socket where lookups find it."""
        socket.place(self.memory)
        self.sockets.append(socket)
        return socket

    def add_map(self, definition: MapDef, name: str = "") -> Map:
        """Makes a map, under its own name or another. MapError where the kernel would refuse to make it."""
        made = make(definition, self.memory, self.cpus)
        self.maps._maps[name or definition.name] = made
        self.handles[made.handle] = made
        made.on_free = self._freed
        if definition.slots and definition.type in ("array_of_maps", "hash_of_maps"):
            self._unfilled.append(made)
        return made

    def _freed(self, address: int, fields: Sequence[Field]) -> None:
        """What a map's value keeps goes with it: its timers stop, its objects are let go."""
        for one in fields:
            self.timers.forget(address + one.offset)
        self.objects.clear(address, fields)

    def bind(self, program: Program) -> Sequence[Map]:
        """The world's maps in the order of `program.maps`, made where they are missing.

        Maps are found by name. ValueError where the world has another map of that name: of another kind or size.
        """
        names = [definition.name for definition in program.maps]
        bound = [
            self._bound(name if names.count(name) == 1 and name else f"{name}#{index}", definition)
            for index, (name, definition) in enumerate(zip(names, program.maps, strict=True))
        ]
        self._fill()
        return bound

    def _fill(self) -> None:
        """Puts maps into the maps of maps that name them as their first entries."""
        for outer in self._unfilled:
            for index, name in outer.definition.slots.items():
                if name in self.maps:
                    outer.set(index.to_bytes(outer.definition.key_size, "little"), self.maps[name])
        self._unfilled = []

    @property
    def cpu(self) -> int:
        """The CPU that programs run on. Raises ValueError where a world is given one that it has not."""
        return self._cpu

    @cpu.setter
    def cpu(self, number: int) -> None:
        if number not in range(self.cpus):
            raise ValueError(f"this world has CPUs 0 to {self.cpus - 1}, not {number}: cpus=... gives it more")
        self._cpu = number

    @cached_property
    def random(self) -> Random:
        """Random numbers from the seed. Few programs ask for one, and each generator takes a while to make."""
        return Random(self.seed)

    def copy(self) -> World:
        """A world of its own, in the same state."""
        return deepcopy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> World:
        copy = object.__new__(World)
        memo[id(self)] = copy
        for name, value in self.__dict__.items():
            copy.__dict__[name] = {} if name == "engine_state" else None if name == "ready" else _copied(value, memo)
        return copy

    def _bound(self, name: str, definition: MapDef) -> Map:
        found = self.maps._maps.get(name)
        if found is None:
            return self.add_map(definition, name)
        if found.definition is not definition and _shape(found.definition) != _shape(definition):
            raise ValueError(
                f"the world's map {name!r} is {_shape(found.definition)}, the program's {_shape(definition)}"
            )
        return found


def _structure(fields: Mapping[str, Any], type: str, btf: Btf | None) -> bytes:
    """The bytes of a structure with these fields."""
    from bpflisp.spec.btf import BtfKind
    from simulator.maps.values import encode

    type_id = btf.find(type, BtfKind.STRUCT, BtfKind.UNION) if btf is not None else None
    if btf is None or type_id is None:
        raise ValueError(f"fields of {type!r} need a btf that has it")
    return encode(btf, type_id, fields, btf.size_of(type_id))


def _unknown_map(name: str, maps: Mapping[str, Map]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, maps, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(maps) or 'none'}"
    return f"no map {name!r} in this world; {hint}"


def _shape(made: MapDef) -> tuple[str, int, int, int]:
    return made.type, made.key_size, made.value_size, made.max_entries


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    if isinstance(value, Random):
        # deepcopy would copy the 625 numbers of its state one by one.
        twin = Random()
        twin.setstate(value.getstate())
        return twin
    return deepcopy(value, memo)
