"""One world on the emulator: runs in its arena, and what translated code calls.

Invariants: nothing is raised through the emulator: what a call of Python's raises is kept until the code has stopped.
A fault is located where it is first met, in whichever program ran.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bpflisp.spec.alu import M64, signed
from bpflisp.spec.isa import FRAME_POINTER
from simulator.contexts.xdp import HEADROOM
from simulator.engines.engine import Options
from simulator.engines.loads import immediate, kernel_function, packet_bytes
from simulator.engines.native.arena import Arena
from simulator.engines.native.batch import INPUT, OUTPUT, RECORD, SIZES, Batch
from simulator.engines.native.host import Host
from simulator.engines.native.layout import GO_ON, RETURN_ZERO, STOPPED, TAIL, Slot
from simulator.engines.native.linked import Linked, Translate, start_block
from simulator.engines.native.lookup import Tables
from simulator.engines.native.sites import Site, Why
from simulator.engines.reference import Stepper
from simulator.engines.source.names import TAIL_CALL
from simulator.engines.validity import needs_steps
from simulator.helpers.maps import tail_target
from simulator.helpers.registry import arity_of, bind, name_of
from simulator.machine import FUNCTION_BASE, MAX_FRAMES, HelperFault, ProgramFault, Thrown, as_fault, machine_of
from simulator.memory import PACKET_BASE, MemoryFault, Region
from simulator.outcome import Fault
from simulator.program import Program
from simulator.world import World

_ZEROS = [0] * 5
_NO_PLACE: Any = (None, 0)
_FAULT, _RESULT, _FUEL = Slot.FAULT, Slot.RESULT, Slot.FUEL
_ARGUMENTS = slice(Slot.ARGS, Slot.ARGS + 5)


class Session:
    """One world on the emulator, for as long as the host lives."""

    def __init__(self, host: Host, world: World, translate: Translate) -> None:
        self.host, self.world, self._translate = host, world, translate
        self.machine = machine_of(world)
        self._arena: Arena = host.arena_for(world.memory)
        self._control = self._arena.control
        self._tables = Tables(self._control)
        self._end = host.labels["end"]
        self._call = self._called
        self.programs: dict[int, Linked] = {}
        """By their id, which is theirs as long as they are here."""
        self._running: Linked | None = None
        self._before_tail_calls: list[Linked] = []
        self._helpers: dict[int, Callable[..., int]] = {}
        self._mocks = -1
        self._error: BaseException | None = None
        self._faulted: tuple[Program, int] = _NO_PLACE
        self._fuel_given = self.left = 0
        """Instructions that the run may take in all, and that the last one might still have taken."""
        self._nesting = 0
        """How many callbacks run inside of each other."""
        self._batch: Batch | None = None
        self._number = -1
        """Which packet of the batch the machine was last made ready for."""
        self._printed = 0

    def linked(self, program: Program) -> Linked:
        """The program in this world."""
        found = self.programs.get(id(program))
        if found is None:
            call, tables = self.call_function, self._tables
            found = self.programs[id(program)] = Linked(program, self.world, tables, self._translate, call)
        return found

    def execute(self, linked: Linked, registers: Sequence[int], fuel: int) -> tuple[int, Fault | None]:
        """Runs a program once, its context in place: r0, and the fault that stopped it."""
        machine, control, fault = self.machine, self._control, None
        self._running, machine.call_function = linked, linked.call_function
        self._fuel_given = fuel
        try:
            r0 = self._emulate(linked.start(registers, fuel, self._end))
        except Thrown as thrown:
            r0 = thrown.cookie
        except (MemoryFault, ProgramFault) as error:
            r0, fault = 0, as_fault(error, *self._faulted)
        finally:
            machine.depth = 0
            self.left = control[_FUEL]
            if self._running is not linked:
                self._before_tail_calls.clear()
                self._enter(linked)
        return r0, fault

    def _emulate(self, start: bytes) -> int:
        """Runs a function to its end: r0. Raises what stopped it."""
        control, host, arena = self._control, self.host, self._arena
        level, before = host.level, host.call
        if level not in arena.runs:
            host.map(arena, level)
        host.level, host.call = level + 1, self._call
        arena.start[:] = start
        try:
            arena.runs[level]()
        finally:
            host.level, host.call = level, before
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if control[_FAULT]:
            raise self._access_fault()
        return control[_RESULT]

    def execute_batch(self, linked: Linked, batch: Batch) -> None:
        """Runs a program on each of a batch of packets: what came of them is kept there.

        Raises what is no fault of the program, after the packet where it happened.
        """
        machine, control, view = self.machine, self._control, self._arena.view
        machine.start(linked.program, linked.maps, linked.model)
        linked.model.enter_packet(machine, batch.packets[0])
        translated, count = linked.translated(), len(batch.packets)
        data = batch.data(padded=translated.writes_packet)
        view[INPUT : INPUT + len(data)] = data
        view[SIZES : SIZES + 4 * count] = memoryview(batch.sizes).cast("B")
        numbers = count, INPUT, SIZES, OUTPUT, batch.fuel, translated.fresh
        control[Slot.COUNT : Slot.BATCH_TARGET + 1] = array("Q", numbers)
        name = "batch writing" if translated.writes_packet else "batch"
        labels = self.host.labels
        self._batch, self._batch_of, self._fuel_given, self._number = batch, linked, batch.fuel, -1
        try:
            self._emulate(start_block((), 0, batch.fuel, 0, 0, labels[name, "stopped"], labels[name]))
            self._meet(count - 1)
        finally:
            self._part()
            self._batch = None
            self._enter(linked)
        batch.records = view[OUTPUT : OUTPUT + RECORD * count].cast("Q").tolist()
        if translated.writes_packet:
            batch.after = bytes(view[INPUT : INPUT + len(data)])

    def _meet(self, number: int) -> None:
        """Makes the machine what it is in a run of this packet of the batch."""
        batch, linked, machine = self._batch, self._batch_of, self.machine
        assert batch is not None
        self._part()
        self._number, self._printed = number, len(self.world.printed)
        machine.start(linked.program, linked.maps, linked.model)
        machine.meta, machine.headroom, machine.tail_calls = 0, HEADROOM, 0
        self._running, machine.call_function = linked, linked.call_function
        size = batch.sizes[number]
        if machine.packet is None or machine.packet.size != size:
            machine.packet = Region("packet", PACKET_BASE, self._arena.view[PACKET_BASE : PACKET_BASE + size])
            machine.memory.put(machine.packet)

    def _part(self) -> None:
        """Keeps what is to be told of the packet that was met last."""
        if self._number < 0 or self._batch is None:
            return
        printed, redirect = self.world.printed, self.machine.redirect
        if redirect is not None or len(printed) != self._printed:
            self._batch.told[self._number] = tuple(printed[self._printed :]), redirect
        self._number = -1

    def _access_fault(self) -> MemoryFault:
        """The fault of an access that was found to be out of bounds."""
        control = self._control
        site = self.host.sites[control[Slot.SITE]]
        error = self.machine.memory.fault(control[Slot.ADDRESS], site.number, site.write)
        control[Slot.FUEL] += site.after
        self._locate(error, site)
        return error

    def _locate(self, error: BaseException, site: Site) -> None:
        """Notes where a fault was first met."""
        if not hasattr(error, "located"):
            error.located = True  # type: ignore[attr-defined]
            assert self._running is not None
            self._faulted = self._running.program, site.slot

    # What translated code calls.

    def _called(self) -> None:
        """Serves a call of Python's. Nothing is raised from here: it would have to get through the emulator."""
        control = self._control
        site = self.host.sites[control[Slot.SITE]]
        batch = self._batch
        if batch is not None and self._number != (number := len(batch.packets) - control[Slot.COUNT]):
            self._meet(number)
        self.machine.depth = control[Slot.DEPTH]
        try:
            _SERVED[site.why](self, site)
        except BaseException as error:
            if isinstance(error, MemoryFault | ProgramFault):
                self._locate(error, site)
            self._stop(error)
            control[Slot.FUEL] += site.after
            control[Slot.STOP] = STOPPED

    def _stop(self, error: BaseException) -> None:
        """Keeps what stopped the run: of a packet in a batch with the batch, and the next one follows."""
        if self._batch is None or self._nesting:
            self._error = error
        elif isinstance(error, Thrown):
            self._batch.faults[self._number] = error.cookie, None
        elif isinstance(error, MemoryFault | ProgramFault):
            self._batch.faults[self._number] = 0, as_fault(error, *self._faulted)
        else:
            self._error = error
            self._control[Slot.COUNT] = 1  # There is no next one.

    def _access(self, site: Site) -> None:
        raise self.machine.memory.fault(self._control[Slot.ADDRESS], site.number, site.write)

    def _resized(self, site: Site) -> None:
        assert self._batch is not None
        assert self.machine.packet is not None
        self._batch.kept[self._number] = bytes(self.machine.packet.view)

    def _helper(self, site: Site) -> None:
        """A call of a helper by its number: arguments that it does not take are not kept, and count as 0."""
        arity = arity_of(site.number)
        arguments = self._control[Slot.ARGS : Slot.ARGS + arity].tolist()
        self._call_helper(site.number, arguments + _ZEROS[arity:])

    def _call_helper(self, number: int, arguments: Sequence[int]) -> None:
        control = self._control
        if self._mocks != self.world.helpers.version:
            self._mocks = self.world.helpers.version
            self._helpers.clear()
        helper = self._helpers.get(number)
        if helper is None:
            helper = self._helpers[number] = bind(self.machine, number)
        control[Slot.RESULT] = helper(*arguments)
        control[Slot.STOP] = GO_ON

    def _helper_by_register(self, site: Site) -> None:
        number = self._control[Slot.JUMP]
        if number == TAIL_CALL:
            self._tail_call(site)
        else:
            self._call_helper(number, self._control[_ARGUMENTS].tolist())

    def _tail_call(self, site: Site) -> None:
        control = self._control
        if self.world.helpers.find(name_of(TAIL_CALL)) is not None:
            self._call_helper(TAIL_CALL, control[_ARGUMENTS].tolist())
            return
        target = tail_target(self.machine, control[Slot.ARGS + 1], control[Slot.ARGS + 2])
        if target is None:
            control[Slot.RESULT], control[Slot.STOP] = -2 & M64, GO_ON
            return
        assert isinstance(target, Program)
        if needs_steps(target):
            raise HelperFault("a tail call into a program with an arena: run it on the engine 'python' or 'reference'")
        linked = self.linked(target)
        assert self._running is not None
        if control[Slot.DEPTH]:
            self._before_tail_calls.append(self._running)
        self._enter(linked)
        translated = linked.translated(control[Slot.ARGS], control[Slot.DEPTH])
        control[Slot.JUMP], control[Slot.STOP] = translated.start, TAIL

    def _after_tail_call(self, site: Site) -> None:
        self._enter(self._before_tail_calls.pop())

    def _enter(self, linked: Linked) -> None:
        machine, self._running = self.machine, linked
        machine.program, machine.maps, machine.call_function = linked.program, linked.maps, linked.call_function

    def _kernel_function(self, site: Site) -> None:
        arguments = self._control[_ARGUMENTS].tolist()
        self._control[Slot.RESULT] = kernel_function(self.machine, site.slot, arguments) & M64
        self._control[Slot.STOP] = GO_ON

    def _packet(self, site: Site) -> None:
        control = self._control
        data = packet_bytes(self.machine, signed(control[Slot.ARGS], 32), site.number)
        control[Slot.STOP] = GO_ON if data is not None else RETURN_ZERO
        control[Slot.RESULT] = int.from_bytes(data or b"", "big")

    def _immediate(self, site: Site) -> None:
        assert self._running is not None
        insn = self._running.program.code[site.slot]
        assert insn is not None
        self._control[Slot.RESULT] = immediate(self.machine, insn, site.slot) & M64
        self._control[Slot.STOP] = GO_ON

    def _out_of_fuel(self, site: Site) -> None:
        """There is not fuel for all of a stretch of instructions: the reference engine steps through what there is.

        It ends in a fault, since nothing leaves the stretch before its last instruction.
        """
        control, machine = self._control, self.machine
        assert self._running is not None
        program = self._running.program
        left = signed(control[Slot.FUEL], 64) + site.number
        control[Slot.FUEL] = left
        before = machine.call_function
        stepper = Stepper(machine, program, Options(left))
        registers = control[Slot.REGISTERS : Slot.REGISTERS + FRAME_POINTER + 1].tolist()
        at: int = site.slot
        try:
            while True:
                following = stepper._step(at, registers)
                assert following is not None
                at = following
        except (MemoryFault, ProgramFault) as error:
            if isinstance(error, ProgramFault) and error.kind == "fuel":
                error = ProgramFault("fuel", f"more than {self._fuel_given} instructions")
            self._locate(error, Site(site.why, at))
            raise error from None
        finally:
            control[Slot.FUEL] = left - stepper.executed
            machine.call_function = before

    def _too_deep(self, site: Site) -> None:
        raise ProgramFault("stack", f"more than {MAX_FRAMES} frames")

    def _no_instruction(self, site: Site) -> None:
        raise ProgramFault("jump", f"no instruction at slot {site.slot}")

    def _illegal(self, site: Site) -> None:
        raise ProgramFault("illegal", f"no instruction: opcode {site.number:#04x}")

    def call_function(self, linked: Linked, address: int, arguments: Sequence[int]) -> int:
        """Runs a function of a program, in a frame of its own: r0. Fuel and loops are those of the run."""
        control, machine = self._control, self.machine
        depth, running, before = machine.depth, self._running, (machine.program, machine.maps, machine.call_function)
        if depth + 1 >= MAX_FRAMES:
            raise ProgramFault("stack", f"more than {MAX_FRAMES} frames")
        target = linked.translated().function(address - FUNCTION_BASE)
        self._enter(linked)
        self._nesting += 1
        machine.depth = depth + 1
        ends, loops, frame = control[Slot.RETURN], control[Slot.LOOPS], machine.frames[depth + 1].end
        try:
            return self._emulate(start_block(arguments, frame, control[Slot.FUEL], depth + 1, loops, self._end, target))
        finally:
            self._nesting -= 1
            machine.depth = control[Slot.DEPTH] = depth
            control[Slot.RETURN] = ends
            self._running = running
            machine.program, machine.maps, machine.call_function = before


_SERVED: Mapping[Why, Callable[[Session, Site], None]] = {
    Why.HELPER: Session._helper,
    Why.HELPER_BY_REGISTER: Session._helper_by_register,
    Why.KERNEL_FUNCTION: Session._kernel_function,
    Why.TAIL_CALL: Session._tail_call,
    Why.AFTER_TAIL_CALL: Session._after_tail_call,
    Why.PACKET: Session._packet,
    Why.IMMEDIATE: Session._immediate,
    Why.ACCESS: Session._access,
    Why.RESIZED: Session._resized,
    Why.FUEL: Session._out_of_fuel,
    Why.FRAMES: Session._too_deep,
    Why.NO_INSTRUCTION: Session._no_instruction,
    Why.ILLEGAL: Session._illegal,
}
