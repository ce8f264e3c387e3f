"""Programs and their code: translated once for all worlds, linked to each world that they run in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import CALL_HELPER, PSEUDO_BTF_ID, Kind
from simulator import contexts
from simulator.contexts.narrow import narrow_for
from simulator.engines.loads import immediate
from simulator.engines.native.encode import Code
from simulator.engines.native.host import Host
from simulator.engines.native.instructions import Given
from simulator.engines.native.lookup import Tables
from simulator.engines.native.translate import Translator
from simulator.engines.source.ranges import Known
from simulator.engines.validity import needs_steps
from simulator.machine import ProgramFault, machine_of
from simulator.memory import CONTEXT_BASE
from simulator.program import Program
from simulator.world import World

_ADJUST_META = 54
_START = Struct("<13Q")
_M64 = (1 << 64) - 1
_MAX_STARTS = 64


class Translated:
    """A program's code: where its functions begin. One that nothing names is added when it is called all the same."""

    def __init__(self, host: Host, given: Given) -> None:
        self._host, self._given = host, given
        self._code = host.add(self._write)
        self.start, self.fresh = self._code.address("main"), self._code.address("fresh")
        """Where the program begins, its frame zeroed before or not."""
        self._entries: dict[int, int] = {}
        """Functions by their first slot."""

    def _write(self, code: Code) -> None:
        translator = Translator(self._given, code, self._host.site)
        translator.write()
        self.writes_packet = translator.writes_packet

    def function(self, slot: int) -> int:
        """Where the function at a slot begins, its frame to be zeroed on the way."""
        if slot not in self._entries:
            label = ("enter", slot)
            self._entries[slot] = self._code.address(label) if self._code.has(label) else self._add(slot)
        return self._entries[slot]

    def _add(self, slot: int) -> int:
        def write(code: Code) -> None:
            Translator(self._given, code, self._host.site).write(slot)

        return self._host.add(write).address(("enter", slot))


Translate = Callable[[Any, Given], Translated]
"""Finds the code of a program by a key, or makes it."""

CallFunction = Callable[["Linked", int, Sequence[int]], int]
"""Runs a function of a linked program."""


class Linked:
    """A program in one world. It holds on to the program, so that the program's id stays its own."""

    def __init__(
        self, program: Program, world: World, tables: Tables, translate: Translate, call: CallFunction
    ) -> None:
        self.program, self._world, self._tables, self._machine = program, world, tables, machine_of(world)
        self._translate, self._call = translate, call
        self.model = contexts.model_for(program)
        self.maps = world.bind(program)
        self.stepped = needs_steps(program)
        """Whether the reference engine makes its runs."""
        self.adjusts_meta = _calls(program.code, _ADJUST_META)
        self._variants: dict[tuple[bool, bool, bool], Translated] = {}
        self._starts: dict[Any, bytes] = {}
        self.call_function = self._call_function

    def translated(self, context: int = CONTEXT_BASE, depth: int = 0) -> Translated:
        """Its code for the packet that is in place, this number in r1, and a frame at this depth."""
        plain = not self._machine.meta and not self.adjusts_meta
        first = depth == 0 and (context == CONTEXT_BASE or not self.model.size)
        variant = plain, first, self._world.helpers.find("bpf_map_lookup_elem") is None
        found = self._variants.get(variant)
        if found is None:
            found = self._variants[variant] = self._translated(*variant)
        return found

    def start(self, registers: Sequence[int], fuel: int, ends: int) -> bytes:
        """What the control page has for a run of it to begin, which goes to `ends` where it stops."""
        key = registers, fuel, self._machine.meta, self._world.helpers.version
        found = self._starts.get(key)
        if found is None:
            if len(self._starts) >= _MAX_STARTS:
                self._starts.clear()
            target = self.translated(registers[0]).start
            found = self._starts[key] = start_block(registers, self._machine.frames[0].end, fuel, 0, 0, ends, target)
        return found

    def _call_function(self, address: int, arguments: Sequence[int]) -> int:
        """Runs a function of the program for a helper, or for a timer."""
        return self._call(self, address, arguments)

    def _translated(self, plain: bool, first: bool, lookups: bool) -> Translated:
        program, size = self.program, self.model.size
        immediates = self._immediates()
        known = Known(self.model.known if plain else {}, inline_lookups=lookups, narrow=narrow_for(program.type))
        value_sizes = tuple(made.value_size for made in program.maps)
        ways = {index: way for index, found in enumerate(self.maps) if lookups and (way := self._tables.way(found))}
        facts = tuple(immediates.items()), tuple(ways.items()), value_sizes, size, first, lookups
        given = Given(program.code, immediates, first, size, known, ways, value_sizes)
        return self._translate((program.insns, program.type if plain else "", facts), given)

    def _immediates(self) -> dict[int, int]:
        """What 64-bit loads give in this world, but for kernel variables, whose addresses a test may change."""
        found, machine = {}, self._machine
        before, machine.maps = machine.maps, self.maps
        for slot, insn in enumerate(self.program.code):
            if insn is not None and insn.row.kind is Kind.LOAD_IMM64 and insn.src != PSEUDO_BTF_ID:
                try:
                    found[slot] = immediate(machine, insn, slot)
                except ProgramFault:
                    continue  # It faults when it is run.
        machine.maps = before
        return found


def start_block(
    registers: Sequence[int], frame: int, fuel: int, depth: int, loops: int, ends: int, target: int
) -> bytes:
    """What a run begins with, as `layout.Slot` has it from ARGS to TARGET."""
    given = [register & _M64 for register in registers]
    return _START.pack(*given, *[0] * (5 - len(given)), frame, fuel, depth, loops, 0, 0, ends, target)


def _calls(code: Sequence[Insn | None], helper: int) -> bool:
    return any(
        insn is not None and insn.row.kind is Kind.CALL and insn.src == CALL_HELPER and insn.imm == helper
        for insn in code
    )
