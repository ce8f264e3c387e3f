"""What calls of helpers and kernel functions mean before any path is explored.

Invariant: a call that this program may not make has no facts; the refusal comes later, when a path reaches it.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from bpflisp.spec import helpers, kfuncs
from bpflisp.spec.helpers import RetType
from bpflisp.spec.kernels import Profile
from bpflisp.spec.programs import F_SLEEPABLE
from simulator.program import Program
from simulator.verifier.cfg import CallFacts, CallsAt
from simulator.verifier.slots import Slots

TIMER_SET_CALLBACK: Final = 170
SYNC_CALLBACK_HELPERS: Final = frozenset({164, 180, 181, 209})
"""for_each_map_elem, find_vma, loop, user_ringbuf_drain."""

INLINED_HELPERS: Final = frozenset({8})
"""Those that the x86 JIT of 6.18 replaces by instructions that keep r1 to r5: get_smp_processor_id."""

CHANGES_PACKET: Final = frozenset(
    {9, 10, 11, 12, 13, 18, 19, 31, 38, 39, 43, 44, 50, 54, 63, 65, 73, 74, 75, 76, 90, 91, 143}
)
"""Helpers after which packet pointers are void; a tail call may lead to any of them."""
_TAIL_CALL: Final = 12


def changes_packet(profile: Profile) -> frozenset[int]:
    """The numbers of `CHANGES_PACKET` that a kernel counts among them."""
    return CHANGES_PACKET if profile.has("tail-calls-move-packets") else CHANGES_PACKET - {_TAIL_CALL}


@cache
def packet_changers() -> frozenset[str]:
    """The names of `CHANGES_PACKET`."""
    return frozenset(helper.name for helper in helpers.all_helpers() if helper.id in CHANGES_PACKET)


ASYNC_CALLBACK_KFUNCS: Final = ("bpf_wq_set_callback", "bpf_task_work_schedule_")
SYNC_CALLBACK_KFUNCS: Final = ("bpf_rbtree_add",)
CHANGES_PACKET_KFUNCS: Final = frozenset({"bpf_xdp_pull_data"})
THROW: Final = "bpf_throw"


def calls_of(program: Program, slots: Slots, profile: Profile) -> CallsAt:
    """Slot of a call -> its facts, for one program on one kernel."""
    sleepable = bool(program.flags & F_SLEEPABLE)
    may_call = helpers.allowed(profile.name, program.type, program.attach_type, sleepable)
    changing = changes_packet(profile)

    def at(slot: int) -> CallFacts | None:
        if slots.is_kfunc_call(slot):
            name = program.kfuncs.get(slot)
            return None if name is None else kfunc_facts(name, program.type, program.attach_type)
        number = slots.imm[slot]
        if not slots.is_helper_call(slot) or number not in may_call:
            # Which functions change packets is known of any number, allowed or not.
            changes = slots.is_helper_call(slot) and number in changing
            return CallFacts(params=5, changes_packet=True) if changes else None
        return helper_facts(number, program.type, program.attach_type, sleepable, number in changing)

    return at


@cache
def helper_facts(number: int, program_type: str, attach_type: str, sleepable: bool, changes_packet: bool) -> CallFacts:
    """The facts of a helper that may be called. KeyError where the number is no helper."""
    proto = helpers.proto(number, program_type, attach_type, sleepable)
    return CallFacts(
        params=len(proto.args),
        is_void=proto.ret.type is RetType.VOID,
        fastcall=proto.allow_fastcall and number in INLINED_HELPERS,
        might_sleep=proto.might_sleep,
        changes_packet=changes_packet,
        sync_callback=number in SYNC_CALLBACK_HELPERS,
        async_callback=number == TIMER_SET_CALLBACK,
    )


@cache
def kfunc_flags(name: str, program_type: str, attach_type: str) -> frozenset[str] | None:
    """The flags (without KF_) under which such a program may call a kernel function; None where it may not.

    Who may call it is what 6.18.44 answered; of the types that it was not asked about, what registrations say.
    """
    kfunc = kfuncs.by_name(name)
    if kfunc is None:
        return None
    allowed = kfuncs.allowed(program_type, attach_type)
    registered = kfunc.flags_for(program_type)
    if allowed is None:
        return registered
    if name not in allowed:
        return None
    return kfunc.flags if registered is None else registered


@cache
def kfunc_facts(name: str, program_type: str, attach_type: str) -> CallFacts | None:
    """The facts of a kernel function; None where such a program may not call it or its signature is not known.

    What runs callbacks is known by name, allowed or not: a refused call is marked all the same.
    """
    kfunc = kfuncs.by_name(name)
    flags = kfunc_flags(name, program_type, attach_type)
    sync = name.startswith(SYNC_CALLBACK_KFUNCS)
    later = name.startswith(ASYNC_CALLBACK_KFUNCS)
    if kfunc is None or flags is None or kfunc.args is None:
        return CallFacts(params=5, sync_callback=sync, async_callback=later) if sync or later else None
    return CallFacts(
        params=len(kfunc.args),
        is_void=kfunc.ret == "void",
        fastcall="FASTCALL" in flags,
        might_sleep="SLEEPABLE" in flags,
        changes_packet=name in CHANGES_PACKET_KFUNCS,
        iter_next="ITER_NEXT" in flags,
        sync_callback=sync,
        async_callback=later,
        throws=name == THROW,
    )
