"""The reference engine: one instruction after the other, by the tables of `bpflisp.spec`. Slow, and meant to be read.

Invariants: registers are unsigned 64-bit numbers; registers 1 to 5 keep their values over a call of a helper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from bpflisp.spec.alu import M32, M64, byte_order, compare, compute, signed
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import CALL_HELPER, CALL_SUBPROGRAM, FRAME_POINTER, Kind, Op
from simulator import contexts
from simulator.contexts.narrow import narrow_for
from simulator.engines.engine import Options
from simulator.engines.loads import immediate, kernel_function, packet_bytes
from simulator.engines.validity import is_address_cast, sound, whole
from simulator.helpers.maps import tail_target
from simulator.helpers.registry import bind, name_of
from simulator.machine import FUNCTION_BASE, MAX_FRAMES, Machine, ProgramFault, Thrown, as_fault, machine_of
from simulator.maps import Map
from simulator.maps.arena import Arena, cast
from simulator.memory import CONTEXT_BASE, MemoryFault
from simulator.outcome import Fault, Outcome
from simulator.packet import Input
from simulator.program import Program
from simulator.world import World

_TAIL_CALL = 12
MAY_GOTO_LIMIT = 8192
"""How often a may_goto lets through: BPF_MAX_LOOPS of the kernel's rewriting."""


class ReferenceEngine:
    """Steps through a program. `trace=True` notes each instruction and the registers after it."""

    name = "reference"

    def run(self, program: Program, given: Input, world: World, options: Options) -> Outcome:
        """See `simulator.engines.engine.Engine`."""
        machine = machine_of(world)
        model = contexts.model_for(program)
        machine.start(program, world.bind(program), model)
        registers = model.enter(machine, given)
        printed = len(world.printed)
        for _ in range(max(1, options.repeat)):
            machine.begin()
            stepper = self.stepper(machine, program, options)
            r0, fault = stepper.execute(registers)
            if fault:
                break
        packet, fields = model.leave(machine)
        trace = (*stepper.trace, *world.printed[printed:])
        return Outcome(r0 & M32, packet, fault, trace, fields, machine.redirect, stepper.executed, r0)

    def stepper(self, machine: Machine, program: Program, options: Options) -> Stepper:
        """What makes one run."""
        return Stepper(machine, program, options)


class Stepper:
    """One run of one program and of what it tail-calls."""

    def __init__(self, machine: Machine, program: Program, options: Options) -> None:
        self.machine, self.memory = machine, machine.memory
        self.options = options
        self.executed = 0
        self.trace: list[str] = []
        self.faulted: tuple[Program, int] = (program, 0)
        self.loops = 0
        self.program, self.maps = program, machine.maps
        self.code = program.code
        self.narrow = narrow_for(program.type)
        self.arena = arena_of(machine.maps)
        machine.call_function = self._call_back

    def execute(self, registers: Sequence[int]) -> tuple[int, Fault | None]:
        """Runs the program from its first slot with these values in r1 and on: r0, and the fault that stopped it."""
        try:
            return self.call(0, registers), None
        except Thrown as thrown:
            return thrown.cookie, None
        except (MemoryFault, ProgramFault) as error:
            return 0, as_fault(error, *self.faulted)

    def call(self, start: int, arguments: Sequence[int]) -> int:
        """Runs a function from its first slot in a frame of the current depth; r0."""
        machine = self.machine
        registers = [0] * 11
        registers[1 : 1 + len(arguments)] = arguments
        registers[FRAME_POINTER] = machine.frames[machine.depth].end
        pc: int | None = start
        while pc is not None:
            at = pc
            try:
                pc = self._step(at, registers)
            except (MemoryFault, ProgramFault) as error:
                if not hasattr(error, "located"):
                    error.located = True  # type: ignore[union-attr]
                    self.faulted = (self.program, at)
                raise
        return registers[0]

    def _step(self, at: int, registers: list[int]) -> int | None:
        """Executes the instruction at this slot; the next slot, None at an exit."""
        insn = self.code[at] if 0 <= at < len(self.code) else None
        if insn is None:
            raise ProgramFault("jump", f"no instruction at slot {at}")
        if self.executed >= self.options.fuel:
            raise ProgramFault("fuel", f"more than {self.options.fuel} instructions")
        self.executed += 1
        handler = _HANDLERS.get(insn.row.kind)
        if self.arena is not None and is_address_cast(insn):
            registers[insn.dst] = cast(registers[insn.src], insn.imm != 1, self.arena)
            return at + 1
        if handler is None or not sound(insn) or not whole(self.code, at):
            raise ProgramFault("illegal", f"no instruction: opcode {insn.opcode:#04x}")
        after = handler(self, insn, at, registers)
        if self.options.trace:
            self._note(at, insn, registers)
        return at + insn.slots if after is _NEXT else after

    def _note(self, at: int, insn: Insn, registers: list[int]) -> None:
        from bpflisp.spec.text import insn_text

        values = " ".join(f"r{number}={value:#x}" for number, value in enumerate(registers))
        self.trace.append(f"{at}: {insn_text(insn)} ; {values}")

    # One method a kind: the next slot, or _NEXT for the one that follows.

    def _alu(self, insn: Insn, at: int, registers: list[int]) -> int:
        operand = registers[insn.src] if insn.row.reg else insn.imm
        registers[insn.dst] = compute(insn.row.op, insn.row.width, registers[insn.dst], operand & M64)
        return _NEXT

    def _negate(self, insn: Insn, at: int, registers: list[int]) -> int:
        registers[insn.dst] = compute(Op.NEG, insn.row.width, registers[insn.dst], 0)
        return _NEXT

    def _end(self, insn: Insn, at: int, registers: list[int]) -> int:
        if insn.imm not in (16, 32, 64):
            raise ProgramFault("illegal", f"byte order of {insn.imm} bits")
        registers[insn.dst] = byte_order(insn.row.op, insn.imm, registers[insn.dst])
        return _NEXT

    def _load(self, insn: Insn, at: int, registers: list[int]) -> int:
        base, off, size = registers[insn.src], insn.off, insn.row.size
        if base == CONTEXT_BASE and (off, size) in self.narrow.loads and insn.row.kind is Kind.LOAD:
            off, size = self.narrow.loads[off, size]
        value = int.from_bytes(self._read((base + off) & M64, size), "little")
        if insn.row.kind is Kind.LOAD_SIGNED:
            value = signed(value, insn.row.size * 8) & M64
        registers[insn.dst] = value
        return _NEXT

    def _store(self, insn: Insn, at: int, registers: list[int]) -> int:
        value = registers[insn.src] if insn.row.reg else insn.imm
        base, place, narrow = registers[insn.dst], (insn.off, insn.row.size), self.narrow
        if base == CONTEXT_BASE and (place in narrow.cut or place in narrow.queues):
            kept = narrow.kept(place, value, immediate=not insn.row.reg)
            if kept is None:
                return _NEXT
            value = kept
        self._write(base + insn.off, insn.row.size, value)
        return _NEXT

    def _read(self, address: int, size: int) -> bytes:
        try:
            return self.memory.read(address, size)
        except MemoryFault:
            if self.arena is None or not self.arena.sees(address):
                raise
            return self.arena.read(address, size)

    def _write(self, address: int, size: int, value: int) -> None:
        data = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        try:
            self.memory.write(address & M64, data)
        except MemoryFault:
            if self.arena is None or not self.arena.sees(address & M64):
                raise
            self.arena.write(address & M64, data)

    def _atomic(self, insn: Insn, at: int, registers: list[int]) -> int:
        row, address = insn.row, (registers[insn.dst] + insn.off) & M64
        mask = (1 << row.width) - 1
        old = int.from_bytes(self._read(address, row.size), "little")
        if row.op is Op.CMPXCHG:
            new = registers[insn.src] if old == registers[0] & mask else old
            self._write(address, row.size, new)
            registers[0] = old
            return _NEXT
        self._write(address, row.size, compute(row.op, row.width, old, registers[insn.src] & mask))
        if row.fetch:
            registers[insn.src] = old
        return _NEXT

    def _load_imm64(self, insn: Insn, at: int, registers: list[int]) -> int:
        registers[insn.dst] = immediate(self.machine, insn, at)
        return _NEXT

    def _load_packet(self, insn: Insn, at: int, registers: list[int]) -> int | None:
        offset = (insn.imm + (registers[insn.src] if insn.row.reg else 0)) & M32
        data = packet_bytes(self.machine, signed(offset, 32), insn.row.size)
        if data is None:
            registers[0] = 0
            return None
        registers[0] = int.from_bytes(data, "big")
        return _NEXT

    def _jump(self, insn: Insn, at: int, registers: list[int]) -> int:
        return at + 1 + (insn.off if insn.row.width == 16 else insn.imm)

    def _branch(self, insn: Insn, at: int, registers: list[int]) -> int:
        operand = registers[insn.src] if insn.row.reg else insn.imm
        taken = compare(insn.row.op, insn.row.width, registers[insn.dst], operand & M64)
        return at + 1 + insn.off if taken else _NEXT

    def _may_goto(self, insn: Insn, at: int, registers: list[int]) -> int:
        self.loops += 1
        return at + 1 + insn.off if self.loops > MAY_GOTO_LIMIT else _NEXT

    def _call(self, insn: Insn, at: int, registers: list[int]) -> int | None:
        if insn.row.kind is Kind.CALL_REG:
            return self._helper(registers[insn.dst] & M32, registers)
        if insn.src == CALL_HELPER:
            return self._helper(insn.imm, registers)
        if insn.src == CALL_SUBPROGRAM:
            registers[0] = self._function(at + 1 + insn.imm, registers[1:6])
            return _NEXT
        registers[0] = kernel_function(self.machine, at, registers[1:6])
        return _NEXT

    def _helper(self, number: int, registers: list[int]) -> int | None:
        machine = self.machine
        if number == _TAIL_CALL and machine.world.helpers.find(name_of(_TAIL_CALL)) is None:
            return self._tail_call(registers)
        registers[0] = bind(machine, number)(*registers[1:6])
        return _NEXT

    def _tail_call(self, registers: list[int]) -> int | None:
        """A tail call ends the function: what the other program returns is what this one returns."""
        target = tail_target(self.machine, registers[2], registers[3])
        if target is None:
            registers[0] = -2 & M64
            return _NEXT
        assert isinstance(target, Program)
        before = self.program, self.maps
        self._enter(target, self.machine.world.bind(target))
        registers[0] = self.call(0, registers[1:2])
        self._enter(*before)
        return None

    def _enter(self, program: Program, maps: Sequence[Map]) -> None:
        self.program, self.code, self.maps = program, program.code, maps
        self.machine.program, self.machine.maps, self.arena = program, maps, arena_of(maps)

    def _function(self, start: int, arguments: Sequence[int]) -> int:
        machine = self.machine
        if machine.depth + 1 >= MAX_FRAMES:
            raise ProgramFault("stack", f"more than {MAX_FRAMES} frames")
        machine.depth += 1
        try:
            machine.frames[machine.depth].view[:] = machine.blank
            return self.call(start, arguments)
        finally:
            machine.depth -= 1

    def _call_back(self, address: int, arguments: Sequence[int]) -> int:
        """Runs a function of the program for a helper, or for a timer when another program may have run."""
        machine = self.machine
        before = machine.program, machine.maps
        machine.program, machine.maps = self.program, self.maps
        try:
            return self._function(address - FUNCTION_BASE, arguments)
        finally:
            machine.program, machine.maps = before

    def _exit(self, insn: Insn, at: int, registers: list[int]) -> None:
        return None


def arena_of(maps: Sequence[Map]) -> Arena | None:
    """The arena of a program, which has one at most."""
    return next((found for found in maps if isinstance(found, Arena)), None)


_NEXT: Final = -1 << 40
"""No slot: the instruction after this one."""

_HANDLERS: dict[Kind, Callable[[Stepper, Insn, int, list[int]], int | None]] = {
    Kind.ALU: Stepper._alu,
    Kind.NEG: Stepper._negate,
    Kind.END: Stepper._end,
    Kind.LOAD: Stepper._load,
    Kind.LOAD_SIGNED: Stepper._load,
    Kind.LOAD_ACQUIRE: Stepper._load,
    Kind.STORE: Stepper._store,
    Kind.STORE_IMM: Stepper._store,
    Kind.STORE_RELEASE: Stepper._store,
    Kind.ATOMIC: Stepper._atomic,
    Kind.LOAD_IMM64: Stepper._load_imm64,
    Kind.LOAD_PACKET: Stepper._load_packet,
    Kind.JUMP: Stepper._jump,
    Kind.BRANCH: Stepper._branch,
    Kind.MAY_GOTO: Stepper._may_goto,
    Kind.CALL: Stepper._call,
    Kind.CALL_REG: Stepper._call,
    Kind.EXIT: Stepper._exit,
}
