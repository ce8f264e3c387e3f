"""The machine of a world: what a run has of its own (stack frames, context, packet) and what helpers work on.

Invariant: between two runs only the world's value carries over. A machine is remade from its world at will.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from bpflisp.spec.isa import STACK_SIZE
from simulator.buffer import Buffer
from simulator.memory import CONTEXT_BASE, FRAME_DISTANCE, PACKET_BASE, PACKET_ROOM, STACK_BASE, MemoryFault, Region
from simulator.outcome import Fault

if TYPE_CHECKING:
    from simulator.contexts import Model
    from simulator.maps import Map
    from simulator.program import Program
    from simulator.world import World

MAX_FRAMES = 8
_NO_STACK = bytes(STACK_SIZE)
MAX_TAIL_CALLS = 33
IDLE: Iterator[None] = iter(())
"""The fuel of a machine that runs nothing."""

FUNCTION_BASE = 0x3F00_0000
"""What a program holds as the address of one of its functions: this plus the slot. No region is ever there."""


class ProgramFault(Exception):  # noqa: N818
    """A run that cannot go on, of one of the kinds of `simulator.outcome.FAULT_KINDS`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


class HelperFault(ProgramFault):
    """A helper that is neither modelled nor mocked, or that was given what it cannot take."""

    def __init__(self, message: str) -> None:
        super().__init__("helper", message)


class Thrown(Exception):  # noqa: N818
    """The end of a program by bpf_throw: `cookie` is its value."""

    def __init__(self, cookie: int) -> None:
        super().__init__(cookie)
        self.cookie = cookie


class Machine:
    """What one run after the other uses.

    `depth` is the frame that runs, 0 for the program itself. `packet` holds the bytes from `data_meta` to `data_end`,
    of which `meta` bytes are metadata; None for a program without a packet. `call_function` runs a function of the
    program: the engine sets it, for helpers that call back.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.memory = world.memory
        self.pages = world.memory.pages
        self.frames = [
            Region(f"stack of frame {depth}", STACK_BASE + depth * FRAME_DISTANCE, bytearray(STACK_SIZE))
            for depth in range(MAX_FRAMES)
        ]
        for frame in self.frames:
            self.memory.put(frame)
        self.blank = _NO_STACK
        """What a frame holds before anything is written to it, and a packet's headroom: zeros here, in the kernel
        whatever was there."""
        self.program: Program | None = None
        self.maps: Sequence[Map] = ()
        self.context: Region | None = None
        self._contexts: dict[int, Region] = {}
        self.packet: Region | None = None
        self.turn = 0
        """How often it was made ready for a program: what has not changed since is as that program left it."""
        self.meta = 0
        self.depth = 0
        self.tail_calls = 0
        self.loops = 0
        self.retval = 0
        """The error that the call gives which a cgroup program is asked about."""
        self.bits: dict[int, list[int]] = {}
        """What is left of the bit iterators, by their address."""
        self.fuel: Iterator[None] = IDLE
        """What loops of compiled programs turn on."""
        self.redirect: int | tuple[str, object] | None = None
        self.model: Model | None = None
        self.headroom = 0
        """Bytes that the packet may still grow at its head."""
        self.hidden = b""
        """Bytes that were the packet's head and may be again."""
        self.link_header = b""
        """The link-layer header of a packet that starts at its network header; b"" where it is in the packet."""
        self.network_offset = 0
        """Where the network header is, counted from the link header."""
        self.buffer = Buffer()
        """What the kernel has of a socket buffer besides."""
        self.locks: list[int] = []
        """The resilient locks that the program has taken."""
        self.sysctl: dict[str, bytes] = {}
        """The name and the values of the system control that a cgroup_sysctl program is asked about."""
        self.call_function: Callable[[int, Sequence[int]], int] = _no_functions

    def start(self, program: Program, maps: Sequence[Map], model: Model) -> None:
        """Makes ready for a program: its maps and the model of its context."""
        self.program, self.maps, self.model = program, maps, model
        self.turn += 1
        self.redirect = None
        self.locks.clear()
        self.hidden, self.link_header, self.network_offset = b"", b"", 0

    def begin(self) -> None:
        """Makes ready for one run: an empty stack, no frame but the first."""
        self.depth = self.tail_calls = 0
        self.frames[0].view[:] = self.blank

    def set_packet(self, data: bytes | bytearray, meta: int = 0) -> None:
        """The packet's bytes from now on, of which the first `meta` are metadata, at the address they always have."""
        packet = self.packet
        self.meta = meta
        if packet is not None and packet.size == len(data):
            packet.view[:] = data
            return
        if len(data) > PACKET_ROOM:
            raise ValueError(f"a packet of {len(data)} bytes: there is room for {PACKET_ROOM}")
        self.packet = packet = Region("packet", PACKET_BASE, bytearray(data))
        self.memory.put(packet)

    def no_packet(self) -> None:
        """From now on there is no packet."""
        if self.packet is not None:
            self.memory.take(self.packet)
        self.packet, self.meta = None, 0

    def set_context(self, data: bytes | bytearray) -> None:
        """The bytes of the context. Contexts of one size are one region, so that engines can hold on to its bytes."""
        region = self._contexts.get(len(data))
        if region is None:
            region = self._contexts[len(data)] = Region("context", CONTEXT_BASE, bytearray(data))
        else:
            region.view[:] = data
        if self.context is not region:
            self.memory.put(region)
            self.context = region

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the program's memory; a fault where they are not all there."""
        return self.memory.read(address, size)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Writes to the program's memory; a fault where it is not all there, or read-only."""
        self.memory.write(address, data)

    def read_string(self, address: int, limit: int) -> bytes:
        """Bytes from `address` up to a zero, without it, or to `limit`."""
        found = bytearray()
        while len(found) < limit:
            byte = self.memory.read(address + len(found), 1)
            if byte == b"\0":
                break
            found += byte
        return bytes(found)

    def map_of(self, handle: int) -> Map:
        """The map that a program's number stands for; a fault for any other number."""
        found = self.world.handles.get(handle)
        if found is None:
            raise HelperFault(f"{handle:#x} is no map")
        return found


def machine_of(world: World) -> Machine:
    """The machine of a world, made when it is first asked for."""
    machine = world.engine_state.get("machine")
    if machine is None:
        machine = world.engine_state["machine"] = Machine(world)
    assert isinstance(machine, Machine)
    return machine


def as_fault(error: Exception, program: Program, insn: int) -> Fault:
    """The fault that an error of a run at this slot is."""
    source = source_of(program, insn)
    if isinstance(error, MemoryFault):
        return Fault(error.kind, str(error), insn, error.address, error.size, error.region, source)
    if isinstance(error, ProgramFault):
        return Fault(error.kind, error.message, insn, source=source)
    raise error


def source_of(program: Program, insn: int) -> str:
    """ "file:line: text" of a slot, "" where the object has no line information for it."""
    found = None
    for line in program.line_info:
        if line.insn > insn:
            break
        found = line
    return f"{found.file}:{found.line}: {found.text.strip()}" if found else ""


def _no_functions(slot: int, arguments: Sequence[int]) -> int:
    raise HelperFault("no program runs: there is no function to call")
