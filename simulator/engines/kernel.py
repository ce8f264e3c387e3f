"""The engine `kernel`: BPF_PROG_LOAD and BPF_PROG_TEST_RUN, the truth where bpf(2) may be used.

The program is verified by the kernel as it is loaded; the world's maps are carried into the kernel's before a run and
out of them after it. What of a world the kernel cannot be given is listed in `CANNOT_SET`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Final

from bpflisp.spec import programs
from simulator.engines import bpf_syscall, kernel_trace
from simulator.engines.bpf_syscall import ENOTSUPP, BpfError, Handle, ProgramRequest, Ran
from simulator.engines.engine import EngineUnavailable, Options
from simulator.engines.kernel_context import context_after, context_given
from simulator.engines.kernel_load import NotInKernelError, Resources, create_map, program_request
from simulator.engines.kernel_maps import Twin
from simulator.engines.kernel_twins import twin_of
from simulator.maps.base import Map
from simulator.maps.prog_array import ProgArray
from simulator.outcome import Outcome
from simulator.packet import PACKET_TYPES, Input, InputRefused
from simulator.program import Program
from simulator.world import World

CANNOT_SET: Final = MappingProxyType(
    {
        "clock": "programs read the host's clock, not the world's",
        "random": "random numbers are the kernel's own, and no seed repeats them",
        "task": "the current task is the one that runs the test",
        "fuel": "the verifier bounds the run, not the number of instructions asked for",
        "helpers": "a mocked helper is refused",
        "redirect": "a redirection shows in the return value; its target does not",
        "r0": "a test run returns 32 bits of r0",
        "bloom filters": "what a program pushes into one stays in the kernel: bpf(2) cannot read it out",
        "stack traces": "the ids and traces of a stack_trace map are the kernel's, and stay there",
    }
)
"""What of a world, or of an outcome, this engine cannot give -> what it does instead."""


SIGNALLING: Final = frozenset({109, 117})
"""Helpers that signal the current task: bpf_send_signal, bpf_send_signal_thread."""


_LENGTHENING: Final = frozenset({38, 43, 50})
"""Helpers that may make a packet much longer: bpf_skb_change_tail, bpf_skb_change_head, bpf_skb_adjust_room."""

_ROOM_AFTER: Final = (1 << 16) + 4096
"""Bytes for such a packet after the run: it is no longer than 64 KiB, and the link header of another type."""


class KernelRefusedError(RuntimeError):
    """The kernel's verifier refused the program. `errno` is its error number, `log` what the verifier wrote."""

    def __init__(self, program: Program, error: BpfError) -> None:
        last = [line for line in error.log.splitlines() if line and not line.startswith("processed ")]
        super().__init__(f"the kernel refuses {program.name or program.type}: {last[-1] if last else error.strerror}")
        self.errno = error.errno
        self.log = error.log


@dataclass
class _Session:
    """What one world has in the kernel: programs, and the twins of its maps by their handles in the world."""

    kit: Resources = field(default_factory=Resources)
    twins: dict[int, Twin] = field(default_factory=dict)
    loaded: dict[int, tuple[Program, Handle]] = field(default_factory=dict)


class KernelEngine:
    """Runs programs in the running kernel. Everything that it made there goes with the world that it was made for."""

    name = "kernel"

    def run(self, program: Program, given: Input, world: World, options: Options) -> Outcome:
        """See `simulator.engines.engine.Engine`; raises besides KernelRefusedError for what the verifier refuses."""
        _check(program, world, options)
        session = world.engine_state.setdefault(self.name, _Session())
        printing = kernel_trace.prints(program)
        with _on_cpu(world.cpu), _kernel_words():
            handle = _load(session, program, world)
            for twin in list(session.twins.values()):
                twin.push()
            mark = kernel_trace.begin() if printing else ""
            ran = _test_run(handle, program, given, options)
            printed = kernel_trace.since(mark) if printing else ()
            for twin in session.twins.values():
                twin.pull()
        world.printed.extend(printed)
        return Outcome(
            retval=ran.retval,
            packet=ran.data if program.type in PACKET_TYPES - {"flow_dissector"} else None,
            trace=tuple(printed),
            context=context_after(program, ran),
            r0=ran.retval,
        )


_NEVER_TESTED = frozenset({"xdp_devmap", "xdp_cpumap"})
"""Attach types of programs that the test run refuses whatever their input: they run behind a redirect."""


def _check(program: Program, world: World, options: Options) -> None:
    """Raises EngineUnavailable for what this engine cannot do here."""
    why = _why_not()
    if why:
        raise EngineUnavailable(f"the kernel engine cannot run: {why}")
    kind = programs.by_name(program.type)
    if kind is None or not kind.test_run:
        raise EngineUnavailable(f"the kernel has no test run for {program.type} programs: use another engine")
    if program.attach_type in _NEVER_TESTED:
        raise EngineUnavailable(f"the kernel has no test run for programs of {program.section}: use another engine")
    if options.trace:
        raise EngineUnavailable("the kernel does not show its steps: trace on the engine 'reference'")
    if kernel_trace.calls(program, SIGNALLING):
        raise EngineUnavailable("bpf_send_signal would signal the process that runs the test: use another engine")
    mocked = sorted(world.helpers)
    if mocked:
        raise EngineUnavailable(f"the kernel's helpers cannot be mocked, and this world mocks {', '.join(mocked)}")


@cache
def _why_not() -> str:
    """Why bpf(2) cannot be used here, "" where it can; asked once a process, for it takes a map and a program."""
    return bpf_syscall.available()[1]


@contextmanager
def _on_cpu(cpu: int) -> Iterator[None]:
    """Runs this thread on one CPU, then where it could run before: per-CPU values are those of the world's CPU."""
    before = os.sched_getaffinity(0)
    if before == {cpu}:
        yield
        return
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as error:
        raise EngineUnavailable(f"this host cannot run on CPU {cpu}, where the world's programs run: {error}") from None
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _kernel_words() -> Iterator[None]:
    """What the kernel has not, or a map that it refuses, is a reason why this engine cannot run the program."""
    try:
        yield
    except NotInKernelError as error:
        raise EngineUnavailable(f"the kernel engine cannot run this program: {error}") from error
    except BpfError as error:
        raise EngineUnavailable(f"the kernel engine cannot run this program: {error.strerror}") from error


def _load(session: _Session, program: Program, world: World) -> Handle:
    """The program in the kernel, with the twins of its maps; loaded once a world."""
    known = session.loaded.get(id(program))
    if known is not None:
        return known[1]
    bound = world.bind(program)
    for ours in bound:
        if ours.handle not in session.twins:
            _twin(session, ours, world)
    twins = {index: session.twins[ours.handle].handle for index, ours in enumerate(bound)}
    kit = Resources(maps=twins, stack=session.kit.stack, btf=session.kit.btf)
    request = program_request(program, kit)
    handle = session.kit.keep(_loaded(program, request))
    session.loaded[id(program)] = program, handle
    return handle


def _loaded(program: Program, request: ProgramRequest) -> Handle:
    """Loads the program without a log, which costs more than the rest where it is long; a refused one again with it."""
    try:
        return bpf_syscall.prog_load(request, log_level=0).handle
    except BpfError as error:
        if error.errno == errno.E2BIG:
            raise KernelRefusedError(program, error) from None
    try:
        return bpf_syscall.prog_load(request).handle
    except BpfError as error:
        raise KernelRefusedError(program, error) from None


def _twin(session: _Session, ours: Map, world: World) -> None:
    def target(array: ProgArray, index: int) -> Handle | None:
        found = array.program_at(index, world.programs)
        if found is None:
            return None
        before = set(session.twins)
        handle = _load(session, found, world)
        # The target may have brought maps of its own, which the round that is under way does not reach.
        for made in session.twins.keys() - before:
            session.twins[made].push()
        return handle

    def inner(found: Map) -> Handle:
        if found.handle not in session.twins:
            _twin(session, found, world)
            session.twins[found.handle].push()
        return session.twins[found.handle].handle

    handle = create_map(ours.definition, session.kit)
    session.twins[ours.handle] = twin_of(ours, handle, world.memory, target, inner)


def _test_run(handle: Handle, program: Program, given: Input, options: Options) -> Ran:
    """The run itself. Raises InputRefused where the kernel does not take the input."""
    context = context_given(program, given)
    # Neither of these gives a context back, nor runs more than once; asked to, they refuse.
    plain = program.type in ("raw_tracepoint", "raw_tracepoint_writable", "syscall")
    repeat = 0 if plain else options.repeat
    try:
        room = _ROOM_AFTER if given.packet is not None and kernel_trace.calls(program, _LENGTHENING) else None
        return bpf_syscall.prog_test_run(
            handle.fd, given.packet, context, repeat=repeat, data_out=room, context_out=not plain
        )
    except BpfError as error:
        # EFAULT is what a tracing program that does not trace functions gets.
        if error.errno in (ENOTSUPP, errno.EOPNOTSUPP) or (program.type, error.errno) == ("tracing", errno.EFAULT):
            raise EngineUnavailable(f"the kernel has no test run for this {program.type} program") from None
        raise InputRefused(error.errno or errno.EINVAL, f"the kernel's test run refuses the input: {error}") from None
