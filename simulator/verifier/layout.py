"""Everything of the verifier that is not the exploration of paths: what comes before it, and what comes after.

`prepare` runs the checks from BPF_PROG_LOAD up to the first instruction of the first path, in the kernel's order, and
gives the explorer what it asks for at each slot. `finish` runs what the kernel does once every path was accepted.

Invariant: a Layout is never changed once made. Lists are indexed by slot unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from bpflisp.lean import dataclass, field
from simulator.verifier import btfinfo, cfg
from simulator.verifier.attach import GPL_LICENSES, check_attach_target
from simulator.verifier.callfacts import THROW, calls_of
from simulator.verifier.cfg import CallFacts, Marks
from simulator.verifier.deadcode import check_function_loads
from simulator.verifier.fastcall import Fastcalls, find_fastcalls
from simulator.verifier.live_registers import live_registers
from simulator.verifier.liveness import StackLiveness
from simulator.verifier.loadattr import check_attributes, effective_attach_type
from simulator.verifier.refusal import Refused
from simulator.verifier.resolve import CALLBACKS_SINCE, Loaded, Resolver
from simulator.verifier.slots import Slots
from simulator.verifier.stackdepth import Frames, StackCheck, may_have_private_stack

if TYPE_CHECKING:
    from bpflisp.spec.btf import Btf
    from bpflisp.spec.insn import Insn
    from bpflisp.spec.kernels import Profile
    from simulator.program import Program

MAX_KFUNCS: Final = 256

_E2BIG, _EACCES, _EINVAL, _EPROTO = 7, 13, 22, 71

# Before, a loop could be closed by a jump, and not by falling through.
_ANY_BACK_EDGE_SINCE: Final = "6.8"

# Before, a function that a tag names as what is called for an exception is like any other.
_EXCEPTIONS_SINCE: Final = "6.7"

# Kernel functions that read what a network card says of a packet; for programs bound to one, which we do not load.
_MAY_GOTO_BYTES: Final = 16
"""What a function with may_goto needs on the stack on x86-64, from 6.15 on: a counter and a time."""

_LOOP_BYTES: Final = 24

_DEVICE_KFUNCS: Final = ("bpf_xdp_metadata_rx_",)


@dataclass(frozen=True, slots=True)
class Subprogram:
    """One function of the program: slots `start` up to `end`, excluded.

    `name` is "" and `type_id` (of its BTF FUNC) 0 without func_info. A global function is verified on its own and its
    callers see its signature alone. `changes_packet` and `might_sleep` say what it or what it calls may do.
    """

    number: int
    start: int
    end: int
    name: str = ""
    type_id: int = 0
    is_global: bool = False
    is_exception_callback: bool = False
    has_tail_call: bool = False
    has_packet_load: bool = False
    changes_packet: bool = False
    might_sleep: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """What the explorer asks for.

    `subprogram_of` the number of the function of a slot; `prune_point` that states are compared there; `jump_point`
    that the history of jumps notes it; `force_checkpoint` that a state is always kept there; `calls_callback` that the
    call runs a function of the program; `jump_target` that some jump leads there; `loop` the number of the strongly
    connected component, 0 for none; `live_registers` the mask of registers that may be read from there on (bit n for
    rn); `loaded` the meaning of each 64-bit load by slot; `calls` the facts of helper and kfunc calls that are
    allowed; `maps` the indices of the maps used, in the order of first use; `orders` each function's slots in
    postorder.
    """

    program: Program
    profile: Profile
    code: Sequence[Insn | None]
    slots: Slots
    attach_type: str
    gpl: bool
    subprograms: Sequence[Subprogram]
    subprogram_of: Sequence[int]
    prune_point: Sequence[bool]
    jump_point: Sequence[bool]
    jump_target: Sequence[bool]
    force_checkpoint: Sequence[bool]
    calls_callback: Sequence[bool]
    loop: Sequence[int]
    live_registers: Sequence[int]
    orders: Sequence[Sequence[int]]
    loaded: Mapping[int, Loaded]
    calls: Mapping[int, CallFacts]
    kfuncs: Mapping[int, str]
    maps: Sequence[int]
    fastcalls: Fastcalls
    exception_callback: int = -1

    def subprogram_at(self, slot: int) -> Subprogram | None:
        """The function that starts at a slot."""
        found = self.subprograms[self.subprogram_of[slot]]
        return found if found.start == slot else None

    def stack_liveness(self) -> StackLiveness:
        """A fresh analysis of live stack slots for one exploration."""
        starts = [one.start for one in self.subprograms]
        return StackLiveness(self.slots, starts, self.orders, self.subprogram_of, self.calls_callback)


def prepare(program: Program, profile: Profile, kernel_btf: Btf | None = None) -> Layout:
    """All that comes before the exploration. Raises Refused in the kernel's words, or Unsupported."""
    check_attributes(program, profile)
    slots = Slots.of(program.insns)
    btfinfo.check_functions_early(program)
    starts = _function_starts(program, slots, profile)
    exception_callback = btfinfo.exception_callback(program) if profile.since(_EXCEPTIONS_SINCE) else 0
    if exception_callback:
        cfg.add_function(starts, exception_callback, len(slots))
    try:
        return _prepare(program, profile, kernel_btf, slots, starts, exception_callback)
    except Refused as refusal:
        refusal.functions = starts
        raise


def _prepare(
    program: Program,
    profile: Profile,
    kernel_btf: Btf | None,
    slots: Slots,
    starts: list[int],
    exception_callback: int,
) -> Layout:
    functions = cfg.functions_of(starts, slots)
    cfg.check_functions(functions, slots)
    if program.func_info:
        btfinfo.check_functions(program, functions)
    else:
        btfinfo.check_abnormal_returns(functions)
    btfinfo.check_lines(program, functions, slots)
    resolver = Resolver(program, slots, profile, kernel_btf)
    loaded = resolver.run()
    function_of = [number for number, one in enumerate(functions) for _ in range(one.start, one.end)]
    calls_at = calls_of(program, slots, profile)
    walk = cfg.Walk(
        slots,
        functions,
        function_of,
        calls_at,
        any_back_edge=profile.since(_ANY_BACK_EDGE_SINCE),
        callbacks_are_loops=profile.has("callbacks-are-loops"),
    )
    marks = walk.run(exception_callback)
    orders = cfg.postorder_of(functions, slots)
    check_attach_target(program, profile, kernel_btf)
    loops = cfg.loops_of(slots)
    subprograms = _subprograms(program, functions, exception_callback)
    found = {at: calls_at(at) for at in slots.crossings() if slots.is_helper_call(at) or slots.is_kfunc_call(at)}
    return Layout(
        program=program,
        profile=profile,
        code=program.code,
        slots=slots,
        attach_type=effective_attach_type(program),
        gpl=program.license in GPL_LICENSES,
        subprograms=subprograms,
        subprogram_of=function_of,
        **_columns(marks),
        loop=loops,
        live_registers=live_registers(slots, orders, calls_at),
        orders=orders,
        loaded=loaded,
        calls={at: facts for at, facts in found.items() if facts is not None},
        kfuncs=program.kfuncs,
        maps=tuple(resolver.used),
        fastcalls=find_fastcalls(functions, slots, calls_at, _fastcall_targets(profile, marks)),
        exception_callback=function_of[exception_callback] if exception_callback else -1,
    )


def _fastcall_targets(profile: Profile, marks: Marks) -> Sequence[bool]:
    """The jump targets that end a fastcall pattern: of kernels that look at them, a later fix."""
    looks = profile.since("7.2") or (profile.version[:2] == (6, 12) and profile.since("6.12.117"))
    return marks.jump_target if looks else [False] * len(marks.jump_target)


def _columns(marks: Marks) -> dict[str, Sequence[bool]]:
    return {name: getattr(marks, name) for name in Marks.__slots__}


def _function_starts(program: Program, slots: Slots, profile: Profile) -> list[int]:
    """Where functions start: slot 0, and what calls and callback loads lead to. Checks the kernel functions called."""
    starts = [0]
    kfuncs: set[str] = set()
    callbacks = profile.since(CALLBACKS_SINCE)
    for at in slots.crossings():
        if slots.is_subprogram_call(at) or (callbacks and slots.is_function_load(at)):
            cfg.add_function(starts, at + slots.imm[at] + 1, len(slots))
        elif callbacks and slots.is_kfunc_call(at) and (at in program.kfuncs or slots.imm[at] or slots.off[at]):
            _add_kfunc(program, at, slots.off[at], kfuncs)
    return starts


def _add_kfunc(program: Program, at: int, offset: int, seen: set[str]) -> None:
    if program.license not in GPL_LICENSES:
        raise Refused("cannot call kernel function from non-GPL compatible program", insn=at)
    if offset:  # of a module's BTF in a list of descriptors, which no Program has
        why = "kfunc offset > 0 without fd_array is invalid"
        if offset < 0:
            why = "negative offset disallowed for kernel module function call"
        words = "failed to find BTF for kernel function"
        raise Refused(words, insn=at, log=(why, words), errno=_EPROTO if offset > 0 else _EINVAL)
    name = program.kfuncs.get(at, f"#{at}")
    if name.startswith(_DEVICE_KFUNCS):
        raise Refused("metadata kfuncs require device-bound program", insn=at)
    seen.add(name)
    if len(seen) > MAX_KFUNCS:
        raise Refused("too many different kernel function calls", insn=at, errno=_E2BIG)


def _subprograms(program: Program, functions: Sequence[cfg.Function], callback: int) -> tuple[Subprogram, ...]:
    made = []
    for number, one in enumerate(functions):
        info = program.func_info[number] if program.func_info else None
        btf = program.btf
        made.append(
            Subprogram(
                number=number,
                start=one.start,
                end=one.end,
                name=btf.type(info.type_id).name if btf is not None and info is not None else "",
                type_id=info.type_id if info is not None else 0,
                is_global=btf is not None and info is not None and btfinfo.is_global(btf, info),
                is_exception_callback=bool(callback) and one.start == callback,
                has_tail_call=one.has_tail_call,
                has_packet_load=one.has_packet_load,
                changes_packet=one.changes_packet,
                might_sleep=one.might_sleep,
            )
        )
    return tuple(made)


@dataclass(frozen=True, slots=True)
class Explored:
    """What the explorer found out that the closing checks need.

    `stack_depth` by function: the lowest offset accessed, as a positive number, a multiple of 8. `callbacks` and
    `async_callbacks` are the functions that were used as such, by number; `broken_fastcalls` those whose spill slots
    were used outside of fastcall patterns; `seen` by slot: some path went through; `unresolved` the slots of calls of
    kernel functions that the kernel lacks, on some path; `inlined_loops` the slots of inlined calls of bpf_loop.
    """

    stack_depth: Sequence[int]
    seen: Sequence[bool]
    callbacks: frozenset[int] = frozenset()
    async_callbacks: frozenset[int] = frozenset()
    broken_fastcalls: frozenset[int] = frozenset()
    unresolved: frozenset[int] = frozenset()
    inlined_loops: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Finished:
    """`stack_depth` by function as the kernel gives it at last: without the spills that it takes out, and with what
    it needs itself for may_goto; and the function that it adds where one may throw and none catches.
    """

    stack_depth: Sequence[int] = field(default=())


def finish(layout: Layout, explored: Explored) -> Finished:
    """What comes after the exploration: stack sizes of call chains, calls that should be gone. Raises Refused."""
    depth = _depth_without_spills(layout, explored)
    subprograms = layout.subprograms
    exceptional = {one.number for one in subprograms if one.is_exception_callback}
    frames = Frames(
        starts=[one.start for one in subprograms],
        ends=[one.end for one in subprograms],
        depth=depth,
        has_tail_call=[one.has_tail_call for one in subprograms],
        has_packet_load=[one.has_packet_load for one in subprograms],
        is_callback=[one.number in explored.callbacks | exceptional for one in subprograms],
        is_async_callback=[one.number in explored.async_callbacks | exceptional for one in subprograms],
        is_exception_callback=[one.is_exception_callback for one in subprograms],
    )
    throws = frozenset(at for at, name in layout.kfuncs.items() if name == THROW)
    private = layout.profile.has("private-stack") and may_have_private_stack(layout.program.type, layout.attach_type)
    StackCheck(layout.slots, frames, throws, private, 16 if layout.profile.has("stacks-in-sixteens") else 32).run()
    adds = _adds_function(layout, explored, throws)
    check_function_loads(layout.slots, [one.start for one in subprograms], explored.seen, explored.inlined_loops, adds)
    _check_kfuncs_known(layout, explored)
    return Finished([*_final_depths(layout, explored, depth), *([0] if adds else [])])


def _final_depths(layout: Layout, explored: Explored, depth: Sequence[int]) -> list[int]:
    """The stack of each function that is left once dead ones are taken out, with what the kernel keeps in its frame:
    the counter and the time of may_goto, the registers of an inlined bpf_loop.
    """
    sizes = list(depth)
    for number in {layout.subprogram_of[at] for at in layout.slots.crossings() if layout.slots.is_may_goto(at)}:
        sizes[number] += _MAY_GOTO_BYTES
    for number in {layout.subprogram_of[at] for at in explored.inlined_loops}:
        sizes[number] += _LOOP_BYTES
    return [sizes[one.number] for one in layout.subprograms if any(explored.seen[one.start : one.end])]


def _adds_function(layout: Layout, explored: Explored, throws: frozenset[int]) -> bool:
    """Whether the kernel adds the function that catches what is thrown."""
    return layout.exception_callback < 0 and any(explored.seen[at] for at in throws)


def _depth_without_spills(layout: Layout, explored: Explored) -> list[int]:
    """The stack of each function once the kernel took the spills of inlined calls out."""
    depth = list(explored.stack_depth)
    fastcalls = layout.fastcalls
    for one in layout.subprograms:
        removed = any(one.start <= call < one.end for call in fastcalls.removable)
        if removed and not fastcalls.keep_stack[one.number] and one.number not in explored.broken_fastcalls:
            depth[one.number] = -fastcalls.stack_off[one.number]
    return depth


def _check_kfuncs_known(layout: Layout, explored: Explored) -> None:
    """A kernel function that this kernel lacks may be called in dead code alone."""
    for at in sorted(explored.unresolved):
        raise Refused("invalid kernel function call not eliminated in verifier pass", insn=at)
