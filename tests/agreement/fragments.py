"""Pieces of plausible programs: each writes a few instructions of one kind, and sees to what they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.agreement.fragments_calls import function_call, helper_call, legacy_packet, socket, tail_call
from tests.agreement.fragments_kernel import (
    any_call,
    arena,
    dynptr,
    global_call,
    interrupts,
    iterator,
    section,
    task,
    tasks,
    throw,
)
from tests.agreement.fragments_managed import (
    allocated,
    kept,
    listed,
    resilient_lock,
    spin_lock,
    timer,
    work,
)
from tests.agreement.fragments_memory import atomic, lookup, map_in_map, packet, reach, reach_variable, ring, update
from tests.agreement.fragments_numbers import (
    arithmetic,
    condition,
    context_access,
    linked,
    loop,
    may_goto,
    stack,
    stack_variable,
)
from tests.agreement.fragments_runs import (
    each_element,
    keyless,
    longest_prefix,
    looped,
    old_load,
    packet_helper,
    per_cpu,
    publish,
    record,
    shrunk_and_grown,
)
from tests.agreement.writer import Writer

Fragment = Callable[[Writer], None]

FRAGMENTS: dict[Fragment, int] = {
    arithmetic: 6, condition: 5, linked: 3, stack: 5, stack_variable: 2, context_access: 3, packet: 4, reach: 4,
    reach_variable: 4, lookup: 4, update: 2, atomic: 2, loop: 2, function_call: 2, ring: 2, tail_call: 1,
    legacy_packet: 1, helper_call: 4, may_goto: 1, socket: 2, map_in_map: 1,
}  # fmt: skip
"""Each with how often it is drawn."""


VERDICT_FRAGMENTS: dict[Fragment, int] = FRAGMENTS | {
    section: 2, interrupts: 2, iterator: 2, tasks: 1, task: 2, dynptr: 3, throw: 1, any_call: 2, global_call: 2,
    arena: 1, allocated: 2, kept: 2, listed: 3, resilient_lock: 2, spin_lock: 2, timer: 2, work: 1, looped: 2,
    each_element: 2,
}  # fmt: skip
"""The same for programs that are to be judged alone: kernel functions, and objects that the kernel manages."""


RUN_FRAGMENTS: dict[Fragment, int] = FRAGMENTS | {
    packet_helper: 5, shrunk_and_grown: 2, looped: 2, each_element: 2, keyless: 2, longest_prefix: 2, record: 2,
    old_load: 2, per_cpu: 1, publish: 2, packet: 6, tail_call: 2, helper_call: 2, socket: 1,
}  # fmt: skip
"""The same for programs that are to be run."""


def any_of(fragments: Mapping[Fragment, int], w: Writer) -> None:
    """One of them, for the inside of a condition."""
    w.random.choices(list(fragments), list(fragments.values()))[0](w)
