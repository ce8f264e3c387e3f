"""The native engine: translated programs on the emulator, in the world of each run.

Invariants: equal to the reference engine in everything, the count of instructions included. A run that is asked for its
trace goes through the reference engine, which steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bpflisp.spec.alu import M32, M64, signed
from bpflisp.spec.isa import CALL_HELPER, FRAME_POINTER, PSEUDO_BTF_ID, Kind
from simulator import contexts
from simulator.engines.engine import Options
from simulator.engines.loads import immediate, kernel_function, packet_bytes
from simulator.engines.native.arena import Arena
from simulator.engines.native.encode import Code
from simulator.engines.native.host import Host, require_unicorn
from simulator.engines.native.layout import GO_ON, RETURN_ZERO, STOPPED, TAIL, Slot
from simulator.engines.native.sites import Site, Why
from simulator.engines.native.translate import Given, Translator
from simulator.engines.reference import ReferenceEngine, Stepper
from simulator.engines.source.names import TAIL_CALL
from simulator.engines.source.ranges import Known
from simulator.helpers.maps import tail_target
from simulator.helpers.registry import bind, name_of
from simulator.machine import (
    FUNCTION_BASE,
    MAX_FRAMES,
    ProgramFault,
    Thrown,
    as_fault,
    machine_of,
)
from simulator.memory import CONTEXT_BASE, MemoryFault
from simulator.outcome import Fault, Outcome
from simulator.packet import Input
from simulator.program import Program
from simulator.world import World

_ADJUST_META = 54
_NO_PLACE: Any = (None, 0)
_STATE = "native"
"""Where a world keeps its Session."""


class NativeEngine:
    """Runs programs as x86-64 code. EngineUnavailable where Unicorn is not installed."""

    name = "native"

    def __init__(self) -> None:
        require_unicorn()
        self._reference = ReferenceEngine()
        self._host: Host | None = None
        self._translated: dict[Any, Translated] = {}

    def run(self, program: Program, given: Input, world: World, options: Options) -> Outcome:
        """See `simulator.engines.engine.Engine`."""
        if options.trace:
            return self._reference.run(program, given, world, options)
        session = self.session(world)
        linked = session.linked(program)
        machine, printed = session.machine, len(world.printed)
        machine.start(program, linked.maps, linked.model)
        registers = linked.model.enter(machine, given)
        for _ in range(max(1, options.repeat)):
            machine.begin()
            r0, fault = session.execute(linked, registers, options.fuel)
            if fault:
                break
        packet, fields = linked.model.leave(machine)
        executed = options.fuel - session.fuel
        trace = tuple(world.printed[printed:])
        return Outcome(r0 & M32, packet, fault, trace, fields, machine.redirect, executed, r0)

    def session(self, world: World) -> Session:
        """What this engine keeps of a world, made when it is first asked for."""
        host = self.host
        found = world.engine_state.get(_STATE)
        if found is None or found.host is not host:
            # What other engines keep of this world has views of memory that now moves.
            machine = machine_of(world)
            world.engine_state.clear()
            world.engine_state["machine"] = machine
            found = world.engine_state[_STATE] = Session(self, host, world)
        assert isinstance(found, Session)
        return found

    @property
    def host(self) -> Host:
        """The emulator, started when it is first asked for, and anew when much of its room for code is taken."""
        if self._host is None or self._host.is_filling:
            self._translated.clear()
            self._host = Host()
        return self._host

    def translate(self, key: Any, given: Given) -> Translated:
        """A program's code, made where there is none."""
        found = self._translated.get(key)
        if found is None:
            found = self._translated[key] = Translated(self._started(), given)
        return found

    def _started(self) -> Host:
        assert self._host is not None
        return self._host


class Translated:
    """A program's code: where its functions begin. One that nothing names is added when it is called all the same."""

    def __init__(self, host: Host, given: Given) -> None:
        self._host, self._given = host, given
        self._code = host.add(lambda code: Translator(given, code, host.site).write())
        self.start = self._code.address("main")
        self._entries: dict[int, int] = {}
        """Functions by their first slot."""

    def function(self, slot: int) -> int:
        """Where the function at a slot begins, its frame to be zeroed on the way."""
        if slot not in self._entries:
            try:
                self._entries[slot] = self._code.address(("enter", slot))
            except KeyError:
                self._entries[slot] = self._add(slot)
        return self._entries[slot]

    def _add(self, slot: int) -> int:
        def write(code: Code) -> None:
            Translator(self._given, code, self._host.site).write(slot)

        return self._host.add(write).address(("enter", slot))


class Linked:
    """A program in one world. It holds on to the program, so that the program's id stays its own."""

    def __init__(self, session: Session, program: Program) -> None:
        self._session, self.program = session, program
        self.model = contexts.model_for(program)
        self.maps = session.world.bind(program)
        self._variants: dict[tuple[bool, bool], Translated] = {}
        self._adjusts_meta = _calls(program, _ADJUST_META)

    def translated(self, context: int = CONTEXT_BASE, depth: int = 0) -> Translated:
        """Its code for the packet that is in place, this number in r1, and a frame at this depth."""
        plain = not self._session.machine.meta and not self._adjusts_meta
        variant = plain, depth == 0 and (context == CONTEXT_BASE or not self.model.size)
        found = self._variants.get(variant)
        if found is None:
            found = self._variants[variant] = self._translate(*variant)
        return found

    def call_function(self, address: int, arguments: Sequence[int]) -> int:
        """Runs a function of the program for a helper, or for a timer."""
        return self._session.call_function(self, address, arguments)

    def _translate(self, plain: bool, first: bool) -> Translated:
        session, program, size = self._session, self.program, self.model.size
        immediates = self._immediates()
        known = Known(self.model.known if plain else {}, inline_lookups=False)
        key = program.insns, tuple(immediates.items()), size, first, program.type if plain else ""
        return session.engine.translate(key, Given(program.code, immediates, first, size, known))

    def _immediates(self) -> dict[int, int]:
        """What 64-bit loads give in this world, but for kernel variables, whose addresses a test may change."""
        found = {}
        machine = self._session.machine
        before, machine.maps = machine.maps, self.maps
        for slot, insn in enumerate(self.program.code):
            if insn is not None and insn.row.kind is Kind.LOAD_IMM64 and insn.src != PSEUDO_BTF_ID:
                try:
                    found[slot] = immediate(machine, insn, slot)
                except ProgramFault:
                    continue  # It faults when it is run.
        machine.maps = before
        return found


class Session:
    """One world on the emulator. `program` is what runs, as `machine` has it; `fuel` what the last run left."""

    def __init__(self, engine: NativeEngine, host: Host, world: World) -> None:
        self.engine, self.host, self.world = engine, host, world
        self.machine = machine_of(world)
        self._arena: Arena = host.arena_for(world.memory)
        self._control = self._arena.control
        self._programs: dict[int, Linked] = {}
        self._running: Linked | None = None
        self._before_tail_calls: list[Linked] = []
        self._helpers: dict[int, Callable[..., int]] = {}
        self._mocks = -1
        self._error: BaseException | None = None
        self._faulted: tuple[Program, int] = _NO_PLACE
        self._fuel_given = 0

    @property
    def fuel(self) -> int:
        """Instructions that the last run might still have taken."""
        return self._control[Slot.FUEL]

    def linked(self, program: Program) -> Linked:
        """The program in this world."""
        found = self._programs.get(id(program))
        if found is None:
            found = self._programs[id(program)] = Linked(self, program)
        return found

    def execute(self, linked: Linked, registers: Sequence[int], fuel: int) -> tuple[int, Fault | None]:
        """Runs a program once, its context in place: r0, and the fault that stopped it."""
        control, machine = self._control, self.machine
        translated = linked.translated(registers[0])
        self._running, machine.call_function = linked, linked.call_function
        self._before_tail_calls.clear()
        self._faulted, self._fuel_given = (linked.program, 0), fuel
        control[Slot.FUEL], control[Slot.DEPTH], control[Slot.LOOPS] = fuel, 0, 0
        try:
            return self._emulate(translated.start, machine.frames[0].end, registers), None
        except Thrown as thrown:
            return thrown.cookie, None
        except (MemoryFault, ProgramFault) as error:
            return 0, as_fault(error, *self._faulted)
        finally:
            machine.depth = 0
            if self._running is not linked:
                self._enter(linked)

    def _emulate(self, target: int, frame: int, registers: Sequence[int]) -> int:
        """Runs a function to its end: r0. Raises what stopped it."""
        control, host = self._control, self.host
        control[Slot.TARGET], control[Slot.FRAME] = target, frame
        for index in range(5):
            control[Slot.ARGS + index] = registers[index] & M64 if index < len(registers) else 0
        control[Slot.FAULT] = control[Slot.STOP] = 0
        before = host.call, control[Slot.RETURN]
        host.call, control[Slot.RETURN] = self._called, host.labels["end"]
        try:
            host.run(self._arena)
        finally:
            host.call, control[Slot.RETURN] = before
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if control[Slot.FAULT]:
            raise self._access_fault()
        return control[Slot.RESULT]

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
        self.machine.depth = control[Slot.DEPTH]
        try:
            _SERVED[site.why](self, site)
        except BaseException as error:
            if isinstance(error, MemoryFault | ProgramFault):
                self._locate(error, site)
            self._error = error
            control[Slot.FUEL] += site.after
            control[Slot.STOP] = STOPPED

    def _helper(self, site: Site) -> None:
        self._call_helper(site.number)

    def _call_helper(self, number: int) -> None:
        control = self._control
        if self._mocks != self.world.helpers.version:
            self._mocks = self.world.helpers.version
            self._helpers.clear()
        helper = self._helpers.get(number)
        if helper is None:
            helper = self._helpers[number] = bind(self.machine, number)
        control[Slot.RESULT] = helper(*control[Slot.ARGS : Slot.ARGS + 5].tolist())
        control[Slot.STOP] = GO_ON

    def _helper_by_register(self, site: Site) -> None:
        number = self._control[Slot.JUMP]
        if number == TAIL_CALL:
            self._tail_call(site)
        else:
            self._call_helper(number)

    def _tail_call(self, site: Site) -> None:
        control = self._control
        if self.world.helpers.find(name_of(TAIL_CALL)) is not None:
            self._call_helper(TAIL_CALL)
            return
        target = tail_target(self.machine, control[Slot.ARGS + 1], control[Slot.ARGS + 2])
        if target is None:
            control[Slot.RESULT], control[Slot.STOP] = -2 & M64, GO_ON
            return
        assert isinstance(target, Program)
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
        arguments = self._control[Slot.ARGS : Slot.ARGS + 5].tolist()
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
        """Runs a function of a program, in a frame of its own: r0."""
        control, machine = self._control, self.machine
        depth, running, before = machine.depth, self._running, (machine.program, machine.maps, machine.call_function)
        if depth + 1 >= MAX_FRAMES:
            raise ProgramFault("stack", f"more than {MAX_FRAMES} frames")
        target = linked.translated().function(address - FUNCTION_BASE)
        self._enter(linked)
        machine.depth = control[Slot.DEPTH] = depth + 1
        try:
            return self._emulate(target, machine.frames[depth + 1].end, arguments)
        finally:
            machine.depth = control[Slot.DEPTH] = depth
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
    Why.FUEL: Session._out_of_fuel,
    Why.FRAMES: Session._too_deep,
    Why.NO_INSTRUCTION: Session._no_instruction,
    Why.ILLEGAL: Session._illegal,
}


def _calls(program: Program, helper: int) -> bool:
    return any(
        insn is not None and insn.row.kind is Kind.CALL and insn.src == CALL_HELPER and insn.imm == helper
        for insn in program.code
    )
