"""The native engine: translated programs on the emulator, in the world of each run.

Invariants: equal to the reference engine in everything, the count of instructions included. A run that is asked for its
trace goes through the reference engine, which steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bpflisp.spec.alu import M32
from simulator.contexts.xdp import XdpModel
from simulator.engines.engine import Options
from simulator.engines.native.batch import MAX_PACKETS, MAX_SIZE, Batch, BatchOutcomes
from simulator.engines.native.host import Host, require_unicorn
from simulator.engines.native.instructions import Given
from simulator.engines.native.linked import Translated
from simulator.engines.native.session import Session
from simulator.engines.reference import ReferenceEngine
from simulator.machine import machine_of
from simulator.outcome import Outcome, Outcomes
from simulator.packet import MIN_PACKET, Input, as_input
from simulator.program import Program
from simulator.world import World

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
        session = self.session(world)
        linked = session.programs.get(id(program)) or session.linked(program)
        if options.trace or linked.stepped:
            return self._reference.run(program, given, world, options)
        machine, printed, model, fuel = session.machine, world.printed, linked.model, options.fuel
        before = len(printed)
        machine.start(program, linked.maps, model)
        registers = model.enter(machine, given)
        machine.begin()
        r0, fault = session.execute(linked, registers, fuel)
        for _ in range(options.repeat - 1):
            if fault is not None:
                break
            machine.begin()
            r0, fault = session.execute(linked, registers, fuel)
        packet, fields = model.leave(machine)
        trace = tuple(printed[before:]) if len(printed) != before else ()
        return Outcome(r0 & M32, packet, fault, trace, fields, machine.redirect, fuel - session.left, r0)

    def run_many(self, program: Program, packets: Sequence[Any], world: World, options: Options) -> Outcomes:
        """Runs a program on packets, one after the other: of XDP programs many at one start of the emulator."""
        session = self.session(world)
        linked = session.linked(program)
        whole = (
            not linked.stepped
            and isinstance(linked.model, XdpModel)
            and not linked.adjusts_meta
            and set(map(type, packets)) <= {bytes}
        )
        if not whole or not all(MIN_PACKET <= len(packet) <= MAX_SIZE for packet in packets):
            return Outcomes([self.run(program, as_input(program, packet), world, options) for packet in packets])
        batches = []
        for start in range(0, len(packets), MAX_PACKETS):
            batch = Batch(packets[start : start + MAX_PACKETS], options.fuel)
            self.session(world).execute_batch(linked, batch)
            batches.append(batch)
        return BatchOutcomes(batches)

    def session(self, world: World) -> Session:
        """What this engine keeps of a world, made when it is first asked for."""
        found: Session | None = world.engine_state.get(_STATE)
        host = self._host
        if found is None or found.host is not host or host.is_filling:
            # What other engines keep of this world has views of memory that now moves.
            machine = machine_of(world)
            world.engine_state.clear()
            world.ready = None
            world.engine_state["machine"] = machine
            found = world.engine_state[_STATE] = Session(self.host, world, self.translate)
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
            assert self._host is not None
            found = self._translated[key] = Translated(self._host, given)
        return found
