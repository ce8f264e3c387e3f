"""One program on every engine, state after state and input after input, and on the kernel: what differs.

A case is one input in one state. The kernel is asked once, and again, elsewhere, only where an engine differs from it:
what it does not do twice alike (it leaked an address, or read stack that nobody wrote) is nobody's to repeat.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bpflisp.spec import programs
from bpflisp.spec.isa import CALL_HELPER, STACK_SIZE, Kind
from simulator.engines import bpf_syscall
from simulator.engines.bpf_syscall import BpfError
from simulator.engines.engine import EngineUnavailable, Options
from simulator.engines.kernel import KernelRefusedError
from simulator.engines.kernel_load import Resources, program_request
from simulator.machine import machine_of
from simulator.outcome import Fault
from simulator.packet import Input, InputRefused
from simulator.program import Program
from simulator.run import engine_named, run
from simulator.world import World
from tests.agreement.fragments_calls import HOST_S
from tests.agreement.worlds import State, contents, inputs, new_world, put, states

FUEL = 400_000
HELD_RUNS = 1_000_000
"""How often the program that holds memory runs: some tens of milliseconds."""

MANY = 256
"""Entries of an LRU map that no program here fills."""

BAD = ("differ", "fault", "lost")


@dataclass(slots=True)
class Tally:
    """What came of a program: cases by engine and kind, and of each kind the first that is worth a word."""

    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    words: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, engine: str, kind: str, detail: str = "", cases: int = 1) -> None:
        """Counts cases."""
        key = engine, kind
        self.counts[key] = self.counts.get(key, 0) + cases
        if detail:
            self.words.setdefault(key, detail)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one run left behind: its value, the packet, the context's fields, what it printed, and all the maps hold."""

    retval: int
    packet: bytes | None
    context: Mapping[str, int]
    maps: Mapping[str, Any]
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The states and inputs that a program is run in and on: each input in each state, in order."""

    states: Sequence[State]
    inputs: Sequence[Input]
    others: Mapping[str, Program] = field(default_factory=dict)


def plan(program: Program, seed: str, size: tuple[int, int], others: Mapping[str, Program]) -> Plan:
    """So many states and inputs for a program, from a seed."""
    rng = random.Random(seed)
    world = new_world(program, others)
    drawn = list(states(world, rng, size[0], min(world.cpus, os.cpu_count() or 1)))
    return Plan(drawn, inputs(program, rng, size[1]), others)


def compare(program: Program, todo: Plan, engines: Sequence[str]) -> Tally:
    """Runs a program everywhere, and on the kernel where it can be held against it."""
    tally = Tally()
    aside = not_comparable(program)
    ruler = "kernel" if not aside else engines[0]
    if aside and not accepted(program):
        tally.add("kernel", "refused")
        return tally
    worlds = {name: new_world(program, todo.others) for name in dict.fromkeys((ruler, *engines))}
    for number, state in enumerate(todo.states):
        for world in worlds.values():
            put(world, state)
        if not aside:
            # Where the kernel engine would go for each run; moving takes longer than a run.
            os.sched_setaffinity(0, {state.cpu})
        wrong = _in_state(program, todo, number, worlds, ruler, tally)
        if wrong == "stop":
            break
    if aside:
        tally.add("kernel", *aside, cases=len(todo.states) * len(todo.inputs))
    return tally


def _in_state(program: Program, todo: Plan, state: int, worlds: Mapping[str, World], ruler: str, tally: Tally) -> str:
    """Runs the inputs in the state that the worlds are in; "stop" where the program is done with."""
    waiting = [name for name in worlds if name != ruler]
    for at, given in enumerate(todo.inputs):
        try:
            truth = once(program, worlds[ruler], given, ruler)
        except KernelRefusedError:
            tally.add(ruler, "refused")
            return "stop"
        except (EngineUnavailable, BpfError, OSError) as error:
            tally.add(ruler, "not run", str(error))
            return "stop"
        except InputRefused as refusal:
            _refused_alike(program, given, worlds, waiting, refusal, tally)
            continue
        if truth.fault is not None:
            tally.add(ruler, *_kind_of(truth.fault))
            return "stop"
        for name in list(waiting):
            kind, word = _judged(program, worlds[name], given, name, truth)
            if kind == "differ" and ruler == "kernel":
                if shows_address(truth) or returns_address(program, todo, state, at):
                    kind, word = "set aside", "it shows an address of the kernel's"
                elif reads_unwritten(program, todo, state, at):
                    kind, word = "set aside", "it reads memory that nobody wrote"
                elif not twice_alike(program, todo, state, at, truth):
                    kind, word = "set aside", "the kernel does not do it twice alike"
            where = f"state {state}, input {at}: {word}" if kind in BAD else word
            tally.add(name, kind if ruler == "kernel" or kind != "agree" else "agree: ours", where)
            if kind != "agree":
                waiting.remove(name)
        if not waiting:
            # From here on the worlds of this state are no longer equal.
            return "next"
    return "next"


def _refused_alike(
    program: Program,
    given: Input,
    worlds: Mapping[str, World],
    names: Sequence[str],
    refusal: InputRefused,
    tally: Tally,
) -> None:
    """An input that the kernel does not take: ours must not take it either."""
    for name in names:
        try:
            once(program, worlds[name], given, name)
        except InputRefused:
            tally.add(name, "agree")
        else:
            tally.add(name, "differ", f"takes an input that the kernel refuses: {refusal}")


def once(program: Program, world: World, given: Input, engine: str) -> Seen:
    """One run, and what it left behind."""
    if engine == "python" and given.packet is not None and not given.context:
        # With default options the python engine takes a shorter way.
        outcome = run(program, given.packet, world, engine)
    else:
        outcome = engine_named(engine).run(program, given, world, Options(fuel=FUEL))
    if outcome.fault is not None:
        return Seen(0, None, {}, {}, outcome.fault)
    return Seen(outcome.retval, outcome.packet, outcome.context, contents(world))


def _judged(program: Program, world: World, given: Input, engine: str, truth: Seen) -> tuple[str, str]:
    try:
        ours = once(program, world, given, engine)
    except EngineUnavailable as error:
        return "not run", str(error)
    except InputRefused as error:
        return "differ", f"we refuse what the kernel takes: {error}"
    if ours.fault is not None:
        return _kind_of(ours.fault)
    word = difference(ours, truth)
    return ("differ", word) if word else ("agree", "")


def _kind_of(fault: Fault) -> tuple[str, str]:
    """A helper that is not modelled is no bug, and a run that is too long for a comparison neither."""
    kind = {"helper": "unmodelled", "fuel": "long"}.get(fault.kind, "fault")
    return kind, f"slot {fault.insn}: {fault.message}" if kind == "fault" else fault.message


def difference(ours: Seen, truth: Seen) -> str:
    """The first thing in which two runs differ, "" where none does."""
    if ours.retval != truth.retval:
        return f"returned {ours.retval:#x}, not {truth.retval:#x}"
    if ours.packet != truth.packet:
        return f"packet {_hex(ours.packet)}, not {_hex(truth.packet)}"
    for name, value in truth.context.items():
        if ours.context.get(name, value) != value:
            return f"context field {name} is {ours.context[name]:#x}, not {value:#x}"
    for name in truth.maps:
        if ours.maps[name] != truth.maps[name]:
            return f"map {name}: {_map_difference(ours.maps[name], truth.maps[name])}"
    return ""


def _map_difference(ours: Any, truth: Any) -> str:
    if isinstance(ours, list):
        return f"holds {[row.hex() for row in ours]}, not {[row.hex() for row in truth]}"
    keys = [key for key in ours.keys() | truth.keys() if ours.get(key) != truth.get(key)]
    return ", ".join(f"[{key.hex()}] is {_hex(ours.get(key))}, not {_hex(truth.get(key))}" for key in sorted(keys))


def _hex(data: bytes | None) -> str:
    return "none" if data is None else data.hex()


def accepted(program: Program) -> bool:
    """Whether the kernel accepts a program that it is not asked to run."""
    try:
        with Resources() as kit:
            bpf_syscall.prog_load(program_request(program, kit), log_level=0).handle.close()
    except (BpfError, LookupError):
        return False
    return True


_ADDRESS = re.compile(rb"[\x00-\xff]{5}[\x88-\x9f\xc8-\xca\xd0-\xd6\xea]\xff\xff", re.DOTALL)


def shows_address(seen: Seen) -> bool:
    """Whether an address of the kernel's memory is in what a run left behind."""
    values = [value for held in seen.maps.values() for value in (held.values() if isinstance(held, dict) else held)]
    return any(_ADDRESS.search(data) for data in (*values, seen.packet or b""))


def returns_address(program: Program, todo: Plan, state: int, last: int) -> bool:
    """Whether what it returns is, here, an address of the run's own memory: there it is part of another one."""
    world = new_world(program, todo.others)
    put(world, todo.states[state])
    seen = [once(program, world, given, "reference") for given in todo.inputs[: last + 1]][-1]
    return world.memory.region_at(seen.retval) is not None


def not_comparable(program: Program) -> tuple[str, str] | None:
    """Why the program cannot be held against the kernel, if so: then our engines are held against each other."""
    kind = programs.by_name(program.type)
    if kind is None or not kind.test_run:
        return "not run", f"{program.type} has no test run"
    calls = (insn for insn in program.code if insn is not None and insn.row.kind is Kind.CALL)
    if any(insn.src == CALL_HELPER and insn.imm in HOST_S for insn in calls):
        return "set aside", "it asks for the host's time, chance, stack, task or cgroup"
    if any("lru" in definition.type and definition.max_entries < MANY for definition in program.maps):
        return "set aside", "which entry a full LRU map gives up is the kernel's own"
    return None


def reads_unwritten(program: Program, todo: Plan, state: int, last: int) -> bool:
    """Whether the program comes to something else when other bytes are on the stack and in front of the packet before
    it writes there."""
    seen = []
    for blank in (bytes(STACK_SIZE), b"\xa5" * STACK_SIZE):
        world = new_world(program, todo.others)
        put(world, todo.states[state])
        machine_of(world).blank = blank
        seen.append([once(program, world, given, "reference") for given in todo.inputs[: last + 1]])
    return seen[0] != seen[1]


# ---- once more, elsewhere --------------------------------------------------------------------------------------------


def twice_alike(program: Program, todo: Plan, state: int, last: int, truth: Seen) -> bool:
    """Whether the kernel does the same again, with stack, context, packet and maps at other addresses.

    It runs from another thread, whose kernel stack is another, and while a long run of a program that does nothing has
    the memory that the kernel would give to the packet.
    """
    found: list[Seen | Exception] = []

    def again() -> None:
        try:
            world = new_world(program, todo.others)
            put(world, todo.states[state])
            found.extend(once(program, world, given, "kernel") for given in todo.inputs[: last + 1])
        except Exception as error:
            found.append(error)

    packet = todo.inputs[last].packet
    busy = threading.Thread(target=_hold_memory, args=(program, todo.states[state].cpu, packet))
    thread = threading.Thread(target=again)
    busy.start()
    time.sleep(0.002)
    thread.start()
    thread.join()
    busy.join()
    return isinstance(found[-1], Seen) and not difference(found[-1], truth)


def _hold_memory(program: Program, cpu: int, packet: bytes | None) -> None:
    if packet is None:
        return
    nothing = replace(program, insns=bytes.fromhex("b7000000000000009500000000000000"), maps=(), btf=None, func_info=())
    os.sched_setaffinity(0, {cpu})
    with Resources() as kit:
        handle = kit.keep(bpf_syscall.prog_load(program_request(nothing, kit)).handle)
        bpf_syscall.prog_test_run(handle.fd, packet, repeat=HELD_RUNS)
