"""The python engine: programs as generated Python source, compiled once and linked to each world that they run in.

Invariants: equal to the reference engine in everything but the count of instructions, which it does not keep; fuel
is counted in turns of loops. A program's first run, where it has no loop, goes through the reference engine: making
the source takes longer than that.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from bpflisp.spec.alu import M32, M64, compute, signed
from bpflisp.spec.isa import CALL_HELPER, STACK_SIZE, Kind, Op
from simulator import contexts
from simulator.contexts.base import NO_FIELDS
from simulator.contexts.narrow import narrow_for
from simulator.contexts.xdp import XdpModel
from simulator.engines.engine import DEFAULT_FUEL, Options
from simulator.engines.loads import immediate, kernel_function, packet_bytes
from simulator.engines.reference import MAY_GOTO_LIMIT, ReferenceEngine, Stepper
from simulator.engines.source.names import MAIN, NO_CALLBACK
from simulator.engines.validity import needs_steps
from simulator.helpers.registry import bind
from simulator.machine import FUNCTION_BASE, IDLE, MAX_FRAMES, Machine, ProgramFault, Thrown, as_fault, machine_of
from simulator.maps.hash import Hash, LruHash
from simulator.memory import CONTEXT_BASE, PACKET_BASE, PAGE_BITS, MemoryFault
from simulator.outcome import Fault, Outcome
from simulator.packet import PACKET_TYPES, Input, as_input
from simulator.program import Program
from simulator.world import World

if TYPE_CHECKING:
    from simulator.engines.source.compiler import Compiled
    from simulator.engines.source.text import Surroundings

Function = Callable[..., int]

_CACHE_LIMIT = 512
_FIRST_RUNS = 1
_ENOUGH_WORLDS = 3
_ADJUST_META = 54
_INLINE = ("bpf_map_lookup_elem", "bpf_tail_call")
_PRINTK = 6
_FILLS_NOTHING = frozenset({1, 2, 3, 5, 7, 8, 14, 15, 35, 125, 130, 195})
"""Helpers that write to no memory of the program's: lookups, updates, time, chance, task, records."""
_NO_STACK = bytes(512)
_PACKET_PAGE = PACKET_BASE >> PAGE_BITS
_DEFAULT = Options()


class PythonEngine:
    """Runs programs as compiled Python."""

    name = "python"

    def __init__(self) -> None:
        self._reference = ReferenceEngine()
        self.first_runs = _FIRST_RUNS
        """How many runs of a program without loops the reference engine makes."""
        self._compiled: dict[Any, Compiled] = {}
        self._files: dict[str, Compiled] = {}
        self._met: dict[Any, int] = {}
        self._alone: dict[int, Linked] = {}

    def run(self, program: Program, given: Input, world: World, options: Options) -> Outcome:
        """See `simulator.engines.engine.Engine`."""
        linked = self._linked(program, world)
        if linked.waits or options.trace or linked.stepped:
            linked.waits = max(0, linked.waits - 1)
            return self._reference.run(program, given, world, options)
        linked.machine.start(program, linked.maps, linked.model)
        registers = linked.model.enter(linked.machine, given)
        for _ in range(options.repeat - 1):
            again = self._execute(linked, registers, options.fuel)
            if again.fault:
                return again
        return self._execute(linked, registers, options.fuel)

    def run_packet(self, program: Program, packet: bytes, world: World | None) -> Outcome:
        """A run with nothing but a packet, which is to be quick: the same as `run` with default options.

        A program that neither calls anything nor has maps leaves nothing behind in its world, so that without a world
        one is as good as a new one.
        """
        found = self._alone if world is None else world.engine_state
        linked: Linked | None = found.get(id(program))
        if linked is None or linked.mocks != linked.helpers.version:
            return self._first_packet(program, packet, world)
        if linked.quick is not None:
            if world is not None:
                world.ready = program, linked.quick
            return linked.quick(packet)
        if linked.waits or linked.stepped:
            return self._first_packet(program, packet, world)
        linked.machine.start(program, linked.maps, linked.model)
        outcome = self._execute(linked, linked.model.enter_packet(linked.machine, packet), DEFAULT_FUEL)
        linked.quick = self._quick(linked)
        return outcome

    def _quick(self, linked: Linked) -> Callable[[bytes], Outcome] | None:
        """A run of a compiled program that does the least that such a program needs; None where that is not known.

        Such a program runs on XDP packets, and calls only helpers that neither change the packet nor print nor call
        back: room, redirection, frames and trace then stay as they are.
        """
        machine, model, function = linked.machine, linked.model, linked.function
        if linked.calls or function is None or not isinstance(model, XdpModel):
            return None
        frame = linked.frame if linked.stack else None
        start, enter, maps = machine.start, model.enter_packet, linked.maps
        program, again, outcome_of = linked.program, linked.turns, object.__new__
        world, helpers, mocks, writes = linked.world, linked.helpers, linked.mocks, linked.writes
        pages, keeps_context = machine.pages, not linked.writes_context
        assert machine.packet is not None
        view, size, turn = machine.packet.view, machine.packet.size, -1

        def run(packet: bytes) -> Outcome:
            nonlocal view, size, turn
            if helpers.version != mocks:
                # A helper was mocked since: another link of the program is due.
                world.ready = None
                return self.run_packet(program, packet, world)
            if machine.turn == turn and len(packet) == size and keeps_context:
                # Nothing else ran since, so that the context is what this program left it: as it was.
                if writes:
                    view[:] = packet
            else:
                start(program, maps, model)
                enter(machine, packet)
                assert machine.packet is not None
                view, size, turn = machine.packet.view, machine.packet.size, machine.turn
            if frame is not None:
                frame[:] = _NO_STACK
            if again:
                machine.fuel = repeat(None, DEFAULT_FUEL)
            # An outcome by hand: its own constructor takes half as long again.
            outcome = outcome_of(Outcome)
            outcome.fault = None
            if not writes:
                # Nobody writes to the packet: the program may as well read what was given.
                pages[_PACKET_PAGE] = packet  # type: ignore[call-overload]
            try:
                r0 = function(CONTEXT_BASE)
            except Exception as error:
                r0, outcome.fault = 0, self._fault(error, linked)
            finally:
                pages[_PACKET_PAGE] = view
            outcome.retval, outcome.packet, outcome.trace = r0 & M32, view.tobytes() if writes else packet, ()
            outcome.context, outcome.redirect, outcome.insns_executed, outcome.r0 = NO_FIELDS, None, 0, r0
            return outcome

        return run

    def _first_packet(self, program: Program, packet: bytes, world: World | None) -> Outcome:
        if world is not None or not _is_alone(program):
            return self.run(program, as_input(program, packet), world or World(), _DEFAULT)
        linked = self._alone[id(program)] = Linked(self, program, World())
        linked.waits = 0
        linked.machine.start(program, linked.maps, linked.model)
        return self._execute(linked, linked.model.enter_packet(linked.machine, packet), DEFAULT_FUEL)

    def _linked(self, program: Program, world: World) -> Linked:
        linked = world.engine_state.get(id(program))
        if linked is None or linked.mocks != world.helpers.version:
            linked = self.link(program, world)
        assert isinstance(linked, Linked)
        return linked

    def _execute(self, linked: Linked, registers: Sequence[int], fuel: int) -> Outcome:
        """Runs the program once, its context in place."""
        machine, printed = linked.machine, linked.world.printed
        function = linked.function if linked.function is not None and not machine.meta else linked.ready()
        machine.call_function = linked.call_function
        machine.depth = machine.tail_calls = machine.loops = 0
        if linked.stack:
            machine.frames[0].view[:] = _NO_STACK
        machine.fuel = repeat(None, fuel)
        before, fault = len(printed), None
        try:
            r0 = function(*registers)
        except Thrown as thrown:
            r0 = thrown.cookie
        except Exception as error:
            r0, fault = 0, self._fault(error, linked)
        machine.fuel = IDLE
        packet, fields = linked.model.leave(machine)
        trace = tuple(printed[before:]) if len(printed) != before else ()
        return Outcome(r0 & M32, packet, fault, trace, fields, machine.redirect, 0, r0)

    def link(self, program: Program, world: World) -> Linked:
        """The program in a world, linked there for good."""
        linked = world.engine_state[id(program)] = Linked(self, program, world)
        return linked

    def stepper(self, machine: Machine, program: Program) -> Stepper:
        """What steps through a program that only the reference engine runs."""
        return self._reference.stepper(machine, program, _DEFAULT)

    def translate(self, around: Surroundings) -> Compiled:
        """The source of a program, compiled."""
        from simulator.engines.source.compiler import compile_program

        return compile_program(around)

    def parameters(self, linked: Linked, compiled: Compiled) -> Mapping[str, Any]:
        """What the parameters of a program's source stand for where it is linked."""
        return Parameters(linked)

    def is_worth_it(self, key: tuple[Any, ...]) -> bool:
        """Whether a program is compiled already, or was met in several worlds, so that it is worth compiling."""
        if key in self._compiled:
            return True
        self._met[key] = self._met.get(key, 0) + 1
        if len(self._met) > _CACHE_LIMIT:
            del self._met[next(iter(self._met))]
        return self._met.get(key, 0) > _ENOUGH_WORLDS

    def compile(self, key: tuple[Any, ...], around: Callable[[], Surroundings]) -> Compiled:
        """The code object of a program, made where there is none, of what `around` then tells."""
        found = self._compiled.get(key)
        if found is None:
            if len(self._compiled) >= _CACHE_LIMIT:
                oldest = next(iter(self._compiled))
                del self._files[self._compiled.pop(oldest).file]
            found = self._compiled[key] = self.translate(around())
            self._files[found.file] = found
        return found

    def _fault(self, error: Exception, linked: Linked) -> Fault:
        """The fault that an error is; what is no fault of a program is raised again."""
        place = self.place(error)
        if place is None:
            raise error
        frame, line, compiled, direct = place
        machine = linked.machine
        program = machine.program or linked.program
        about = compiled.lines[line]
        slot = about.slot if about else 0
        if isinstance(error, MemoryFault | ProgramFault):
            return as_fault(error, program, slot)
        if about is None or about.access is None or not direct:
            raise error
        address = eval(about.access.address, {}, dict(frame.f_locals)) & M64
        return as_fault(machine.memory.fault(address, about.access.size, about.access.write), program, slot)

    def place(self, error: Exception) -> tuple[FrameType, int, Compiled, bool] | None:
        """The innermost generated frame of an error, its line, and whether the error was raised in it itself."""
        found, at = None, error.__traceback__
        while at is not None:
            compiled = self._files.get(at.tb_frame.f_code.co_filename)
            if compiled is not None:
                found = at.tb_frame, at.tb_lineno, compiled, at.tb_next is None
            at = at.tb_next
        return found


class Linked:
    """A program in one world: its maps, its functions with that world's memory and helpers.

    It holds on to the program, so that the program's id stays its own. `waits` is how many runs more the reference
    engine makes.
    """

    def __init__(self, engine: PythonEngine, program: Program, world: World) -> None:
        self._engine, self.program, self.world = engine, program, world
        self.turns = _loops(program)
        self.machine = machine_of(world)
        self.model = contexts.model_for(program)
        self.maps = world.bind(program)
        self.mocks = world.helpers.version
        self.function: Function | None = None
        self.functions: Mapping[int, Function] = {}
        self.stack = self.writes = self.writes_context = True
        self.frame = self.machine.frames[0].view
        self.helpers = world.helpers
        self.calls = not _only_plain_calls(program)
        self.quick: Callable[[bytes], Outcome] | None = None
        """The quickest way to run it on nothing but a packet, once there is one."""
        self._variants: dict[tuple[bool, bool], tuple[Mapping[int, Function], Compiled]] = {}
        self._helpers = all(world.helpers.find(name) is None for name in _INLINE)
        self.stepped = needs_steps(program)
        """Whether the reference engine makes all of its runs."""
        self.waits = 0 if self.turns or engine.is_worth_it(self._key(plain=True, again=False)) else engine.first_runs

    def ready(self) -> Function:
        """The program's function for the packet that is in place, compiled and linked where it is not yet."""
        plain = not self.machine.meta
        self.functions, compiled = self._variant(plain, again=False)
        self.stack, fills = compiled.stack, _fills_memory(self.program)
        if plain:
            self.function = self.functions[MAIN]
            self.writes, self.writes_context = compiled.writes or fills, compiled.context or fills
        return self.functions[MAIN]

    def again(self, context: int, depth: int) -> int:
        """Runs it where a tail call comes to it: in the frame at `depth`, with this number in r1."""
        if depth == 0 and (context == CONTEXT_BASE or not self.model.size):
            return self.ready()(context)
        self.functions = self._variant(not self.machine.meta, again=True)[0]
        return self.functions[0](context, 0, 0, 0, 0, depth)

    def _variant(self, plain: bool, again: bool) -> tuple[Mapping[int, Function], Compiled]:
        """The functions of one way to enter it, and the source that they are of."""
        found = self._variants.get((plain, again))
        if found is None:
            compiled = self._engine.compile(self._key(plain, again), lambda: self._around(plain, again))
            space: dict[str, Any] = {}
            exec(compiled.code, space)
            parameters = self._engine.parameters(self, compiled)
            functions = space["link"](*(parameters[name] for name in compiled.needs))
            found = self._variants[plain, again] = functions, compiled
        return found

    def _key(self, plain: bool, again: bool) -> tuple[Any, ...]:
        shapes = tuple((made.type, made.key_size, made.value_size) for made in self.program.maps)
        return self.program.insns, self.program.type, shapes, plain, again, self._helpers, self.model.size

    def _around(self, plain: bool, again: bool) -> Surroundings:
        from simulator.engines.source.ranges import Known
        from simulator.engines.source.text import Surroundings

        known = self.model.known if plain and not _adjusts_metadata(self.program) else {}
        maps, narrow = tuple(self.program.maps), narrow_for(self.program.type)
        return Surroundings(self.program, maps, self.model.size, Known(known, self._helpers, narrow), again)

    def call_function(self, address: int, arguments: Sequence[int]) -> int:
        """Runs a function of the program for a helper, or for a timer that runs out between runs."""
        if self.machine.fuel is IDLE:
            self.machine.fuel = repeat(None, DEFAULT_FUEL)
        function = self.functions.get(address - FUNCTION_BASE)
        if function is None:
            raise ProgramFault("jump", f"no function at {address:#x}")
        machine = self.machine
        depth = machine.depth
        if depth + 1 >= MAX_FRAMES:
            _too_deep()
        given = [*arguments, 0, 0, 0, 0, 0][:5]
        try:
            return function(*given, depth + 1)
        finally:
            machine.depth = depth

    def tail_call(self, context: int, handle: int, index: int) -> int | None:
        """Goes on in another program: what it returns, or None where the call fails."""
        from simulator.helpers.maps import tail_target

        machine = self.machine
        target = tail_target(machine, handle, index)
        if target is None:
            return None
        assert isinstance(target, Program)
        linked = self.world.engine_state.get(id(target))
        if linked is None or linked.mocks != self.world.helpers.version:
            linked = self._engine.link(target, self.world)
        before = machine.program, machine.maps, machine.call_function
        machine.program, machine.maps, machine.call_function = target, linked.maps, linked.call_function
        if linked.stepped:
            r0 = self._engine.stepper(machine, target).call(0, (context,))
        else:
            r0 = linked.again(context, machine.depth)
        machine.program, machine.maps, machine.call_function = before
        return r0


_Format = Literal["B", "H", "I", "Q"]
_FORMATS: Mapping[int, _Format] = {1: "B", 2: "H", 4: "I", 8: "Q"}
_SIGNED_FORMATS = {1: "b", 2: "h", 4: "i", 8: "q"}


class Parameters(Mapping[str, Any]):
    """What the parameters of generated source stand for in one world, by name: see `simulator.engines.source.text`."""

    def __init__(self, linked: Linked) -> None:
        self._linked, self._machine = linked, linked.machine

    def __getitem__(self, name: str) -> Any:
        kind, size = name[0], name[1:]
        if size.isdigit():
            return self._numbered(kind, int(size))
        named: Mapping[str, Any] = {
            "pages": self._machine.pages,
            "m": self._machine,
            "world": self._machine.world,
            "no_stack": _NO_STACK,
            "kept": self._kept,
            "divide": _divide,
            "tail": self._linked.tail_call,
            "too_deep": _too_deep,
            "out_of_fuel": _out_of_fuel,
            "no_instruction": _no_instruction,
            "illegal": _illegal,
            "may_goto": self._may_goto,
            "by_register": self._by_register,
            "kernel_function": self._kernel_function,
            "from_packet": self._from_packet,
            "immediate": self._immediate,
        }
        return named[name]

    def __iter__(self) -> NoReturn:
        raise TypeError("parameters are made when they are asked for")

    def __len__(self) -> NoReturn:
        raise TypeError("parameters are made when they are asked for")

    def _numbered(self, kind: str, number: int) -> Any:
        machine, maps = self._machine, self._linked.maps
        match kind:
            case "u" | "i" | "b":
                formats = _SIGNED_FORMATS if kind == "i" else _FORMATS
                return struct.Struct((">" if kind == "b" else "<") + formats[number]).unpack_from
            case "p":
                return struct.Struct("<" + _FORMATS[number]).pack_into
            case "w":
                return _swap(number)
            case "W":
                return machine.memory.words(number)
            case "C":
                assert machine.context is not None
                return machine.context.view.cast("B").cast(_FORMATS[number])
            case "S":
                return machine.frames[0].view.cast(_FORMATS[number])
            case "F":
                return [frame.view.cast(_FORMATS[number]) for frame in machine.frames]
            case "h":
                return maps[number].handle
            case "v":
                return maps[number].value_base()
            case "L":
                found = maps[number]
                if isinstance(found, Hash) and not isinstance(found, LruHash) and not found.per_cpu:
                    return found.found.get
                return found.address_of
            case "T":
                start, length = divmod(number, STACK_SIZE + 1)
                return machine.frames[0].view[start : start + length].tobytes
            case "K":
                return struct.Struct(f"{number}s").unpack_from
            case _:
                return bind(machine, number)

    def _may_goto(self) -> bool:
        self._machine.loops += 1
        return self._machine.loops > MAY_GOTO_LIMIT

    def _kept(self, off: int, size: int, value: int, immediate: bool) -> None:
        """A store to a field of the context of which the kernel keeps less."""
        kept = narrow_for(self._linked.program.type).kept((off, size), value, immediate)
        if kept is not None:
            self._machine.write(CONTEXT_BASE + off, kept.to_bytes(size, "little"))

    def _by_register(self, number: int, *arguments: int) -> int:
        return bind(self._machine, number)(*arguments)

    def _kernel_function(self, slot: int, *arguments: int) -> int:
        return kernel_function(self._machine, slot, arguments)

    def _from_packet(self, index: int, size: int) -> int | None:
        data = packet_bytes(self._machine, signed(index, 32), size)
        return None if data is None else int.from_bytes(data, "big")

    def _immediate(self, slot: int) -> int:
        program = self._linked.program
        insn = program.code[slot]
        assert insn is not None
        return immediate(self._machine, insn, slot)


def _swap(size: int) -> Callable[[int], int]:
    pack, unpack = struct.Struct("<" + _FORMATS[size]).pack, struct.Struct(">" + _FORMATS[size]).unpack

    def swap(value: int) -> int:
        swapped: int = unpack(pack(value))[0]
        return swapped

    return swap


def _divide(quotient: bool, width: int, a: int, b: int) -> int:
    return compute(Op.SDIV if quotient else Op.SMOD, width, a, b)


def _too_deep() -> NoReturn:
    raise ProgramFault("stack", f"more than {MAX_FRAMES} frames")


def _out_of_fuel() -> NoReturn:
    raise ProgramFault("fuel", "more instructions than the run was given")


def _no_instruction(slot: int) -> NoReturn:
    raise ProgramFault("jump", f"no instruction at slot {slot}")


def _illegal(opcode: int) -> NoReturn:
    raise ProgramFault("illegal", f"no instruction: opcode {opcode:#04x}")


def _once(ask: Callable[[Program], bool]) -> Callable[[Program], bool]:
    """The answer about a program, kept with it: every world links its programs anew."""

    def answer(program: Program) -> bool:
        kept: dict[str, bool] = program.__dict__.setdefault("_asked", {})
        if ask.__name__ not in kept:
            kept[ask.__name__] = ask(program)
        return kept[ask.__name__]

    return answer


@_once
def _loops(program: Program) -> bool:
    """Whether any jump goes backwards."""
    jumps = (insn for insn in program.code if insn is not None and insn.row.kind in (Kind.JUMP, Kind.BRANCH))
    return any((insn.imm if insn.row.kind is Kind.JUMP and insn.row.width == 32 else insn.off) < 0 for insn in jumps)


@_once
def _only_plain_calls(program: Program) -> bool:
    """Whether it calls nothing but helpers that neither print nor call back, and no functions of its own."""
    for insn in program.code:
        if insn is None or insn.row.kind not in (Kind.CALL, Kind.CALL_REG, Kind.MAY_GOTO):
            continue
        if insn.row.kind is not Kind.CALL or insn.src != CALL_HELPER or insn.imm not in NO_CALLBACK - {_PRINTK}:
            return False
    return True


@_once
def _fills_memory(program: Program) -> bool:
    """Whether it calls a helper that may write to memory that the program chooses, which may be the packet."""
    calls = (insn for insn in program.code if insn is not None and insn.row.kind is Kind.CALL)
    return any(insn.imm not in _FILLS_NOTHING for insn in calls)


def _is_alone(program: Program) -> bool:
    """Whether a run of the program can leave nothing behind: it has no maps and calls nothing."""
    kinds = {insn.row.kind for insn in program.code if insn is not None}
    return program.type in PACKET_TYPES and not program.maps and not kinds & {Kind.CALL, Kind.CALL_REG}


@_once
def _adjusts_metadata(program: Program) -> bool:
    return any(
        insn is not None and insn.row.kind is Kind.CALL and insn.src == CALL_HELPER and insn.imm == _ADJUST_META
        for insn in program.code
    )
