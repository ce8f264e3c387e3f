"""How one kernel's verifier reasons: the named rules of its profile, asked once, as plain booleans for hot paths.

A rule's name, when it begins and what it says are in `bpflisp.spec.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bpflisp.spec.kernels import Profile


@dataclass(frozen=True, slots=True)
class Ways:
    """A field for each rule that the verifier asks about while it explores: `jeq_infer_not_null` is the rule's name."""

    jeq_infer_not_null: bool
    constants_get_no_id: bool
    moves_of_32_bits_keep_id: bool
    spilled_constants: bool
    spills_get_id: bool
    narrow_spills_narrowed: bool
    maps_are_not_null: bool
    half_pointers_may_be_null: bool
    reads_grow_stack: bool
    helpers_spare_stack: bool
    empty_reads_are_named: bool
    results_need_no_value: bool
    narrow_fills: bool
    scrubbed_by_variable_store: bool
    static_registers: bool
    static_stack: bool
    loops_by_component: bool
    precision_across_frames: bool
    scalar_ids_in_pruning: bool
    long_histories_end: bool
    callbacks_are_loops: bool
    returns_are_precise: bool
    zeros_are_imprecise: bool
    packet_loads_return: bool
    tail_calls_return: bool
    sums_are_the_pointer: bool
    global_calls_in_sections: bool
    sections_close_before_references: bool
    signed_instructions: bool
    ordered_accesses: bool
    locks_span_functions: bool
    kptrs_in_values: bool
    kptrs_are_referenced: bool
    dynptrs_are_watched: bool
    keys_in_any_memory: bool
    globals_when_called: bool
    global_memory_arguments: bool
    global_argument_tags: bool
    task_stacks_are_sized: bool
    processors_are_counted: bool
    constants_stored_in_context: bool
    records_given_back_whole: bool
    tracepoints_may_be_null: bool
    sockmaps_changed_by_few: bool
    linked_scalars_delta: bool
    linked_scalars_negative: bool
    linked_scalars_settled: bool
    may_goto_over_nothing: bool


@cache
def ways_of(profile: Profile) -> Ways:
    """The rules of a kernel."""
    return Ways(**{field.name: profile.has(field.name.replace("_", "-")) for field in fields(Ways)})
