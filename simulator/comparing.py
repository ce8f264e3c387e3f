"""What two engines made of equal worlds, held against each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from bpflisp.spec import helpers
from bpflisp.spec.isa import CALL_HELPER, Kind

if TYPE_CHECKING:
    from simulator.outcome import Outcome
    from simulator.program import Program
    from simulator.world import World

Ran = tuple[str, "Outcome", "World"]
"""An engine's name, what its run came to, and the world after it."""

HOST_HELPERS: Final = (
    "bpf_ktime_", "bpf_jiffies64", "bpf_get_prandom_u32", "bpf_get_current_", "bpf_get_numa_node_id", "bpf_probe_read",
    "bpf_get_stack", "bpf_perf_event_read", "bpf_timer_", "bpf_get_cgroup_classid", "bpf_get_socket_", "bpf_redirect_",
)  # fmt: skip
"""Beginnings of the names of helpers whose answers the kernel engine takes from its host, not from the world."""


def kernel_cannot(program: Program) -> str:
    """Why the kernel's run of this program cannot be compared with another engine's; "" where it can."""
    for insn in program.code:
        if insn is None or insn.row.kind is not Kind.CALL or insn.src != CALL_HELPER:
            continue
        helper = helpers.by_id(insn.imm)
        name = helper.name if helper is not None else ""
        if name.startswith(HOST_HELPERS):
            return f"{name} gives what this host has, not what the world has"
    return ""


def difference(one: Ran, other: Ran) -> list[str]:
    """What differs, a line each; nothing where the runs agree."""
    (left, first, world), (right, second, other_world) = one, other
    found = [f"engines {left} and {right} differ"]
    for what, a, b in (*_outcomes(first, second, "kernel" in (left, right)), *_maps(world, other_world)):
        if a != b:
            found.append(f"  {what}: {a} on {left}, {b} on {right}")
    return found if len(found) > 1 else []


def _outcomes(first: Outcome, second: Outcome, with_kernel: bool) -> Iterator[tuple[str, object, object]]:
    yield "fault", first.fault and first.fault.kind, second.fault and second.fault.kind
    yield "return value", first.retval, second.retval
    yield "packet", _hex(first.packet), _hex(second.packet)
    # The kernel hands back some of the fields that a program may write.
    for name in common_fields(first, second) if with_kernel else {**first.context, **second.context}:
        yield f"context field {name}", first.context.get(name), second.context.get(name)
    if not with_kernel:
        yield "redirection", first.redirect, second.redirect
        yield "trace", list(first.trace), list(second.trace)


def common_fields(first: Outcome, second: Outcome) -> list[str]:
    """The context's fields that both tell of, in order."""
    return [name for name in first.context if name in second.context]


def _hex(packet: bytes | None) -> str:
    return "none" if packet is None else packet.hex()


def _maps(first: World, second: World) -> Iterator[tuple[str, object, object]]:
    for name in first.maps:
        yield f"map {name}", _contents(first, name), _contents(second, name)


def _contents(world: World, name: str) -> object:
    """A map's contents in a form that compares; None for a kind that cannot be listed."""
    found = world.maps[name]
    kind = found.definition.type
    if kind == "ringbuf":
        return [record.hex() for record in found]
    if kind == "prog_array":
        return None
    try:
        return {key.hex(): value.hex() for key, value in sorted(found.raw_items())}
    except OSError:
        return None
