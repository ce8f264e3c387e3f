"""What can be said of any refusal: what its instruction works on, where that came from, and what the path holds.

For classes of which nothing more particular is known (`reasons`), and for messages of the others that it does not read.

Invariant: only what the state at the refused instruction shows is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from bpflisp.spec.isa import Kind
from simulator.verifier import regs as r
from simulator.verifier.regs import type_name

if TYPE_CHECKING:
    from simulator.verifier.scene import Scene

KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "scalar": "a number", "fp": "stack", "pkt": "packet", "pkt_meta": "packet metadata", "map_ptr": "a map",
        "map_key": "a map's key", "map_value": "a map's value", "mem": "other memory", "ctx": "the context",
        "ringbuf_mem": "a ring buffer's record", "buf": "a buffer", "trusted_ptr_": "a trusted kernel pointer",
        "ptr_": "a kernel pointer", "sock": "a socket", "sock_common": "a socket", "func": "a function",
        "map_value_or_null": "a map's value that may be null", "rcu_ptr_": "a kernel pointer under RCU",
        "pkt_end": "the packet's end", "untrusted_ptr_": "a kernel pointer that nobody vouches for",
        "dynptr_ptr": "a dynptr", "arena": "arena memory", "flow_keys": "flow keys", "rdonly_mem": "read-only memory",
    }
)  # fmt: skip
"""A kind of value as the kernel names it -> in words."""

_HOLDERS: Final = frozenset({"graph", "lock", "section", "sleepable", "reference"})
_PROGRAM: Final = frozenset(
    {"sleepable", "kernel-function", "map-not-allowed", "packet-access", "attach-target", "legacy-packet-load"}
)


def because(scene: Scene) -> tuple[str, tuple[int, ...]]:
    """(a sentence, the instructions that matter); ("", ()) where nothing can be told."""
    parts, slots = [], []
    name = scene.called(scene.idx)
    if scene.refused.code in _PROGRAM:
        parts.append(_program(scene))
    for register in (one for one in _operands(scene) if one <= 10):
        reg = scene.value(register)
        if reg.type == r.NOT_INIT:
            continue
        origin = scene.last_change(register)
        where = f", from {scene.place(origin)}" if origin is not None else ""
        kind = type_name(reg.type)
        given = f"argument {register} of {name}" if name else f"r{register}"
        shown = f"{reg.num.smin}, a number" if reg.type == r.SCALAR and reg.num.is_const else KINDS.get(kind, kind)
        parts.append(f"{given} is {shown}{where}")
        slots += [origin] if origin is not None else []
    if scene.refused.code in _HOLDERS:
        parts.append(_held(scene))
    return "; ".join(filter(None, parts)), tuple(slots)


def _operands(scene: Scene) -> list[int]:
    """The registers that a refusal is about: the one that the message names, else those of the instruction."""
    named = scene.register
    insn = scene.insn
    if named is not None:
        return [named]
    if insn is None or scene.refused.code in _HOLDERS:
        return []
    kind = insn.row.kind
    if kind is Kind.EXIT:
        return [0]
    if kind is Kind.CALL:
        passed = [register for register in range(1, 6) if scene.value(register).type != r.NOT_INIT]
        return passed if insn.src == 1 else [one for one in passed if scene.value(one).type != r.SCALAR]
    if kind in (Kind.LOAD, Kind.LOAD_SIGNED, Kind.LOAD_ACQUIRE):
        return [insn.src]
    if kind is Kind.ALU or kind is Kind.BRANCH:
        return [insn.dst, insn.src] if insn.row.reg else [insn.dst]
    return [insn.dst] if "dst" in insn.row.uses and insn.dst < 10 else []


def _program(scene: Scene) -> str:
    program = scene.m.program
    kind = " ".join(filter(None, (program.type, program.attach_type)))
    sleeps = "sleepable" if scene.m.state.sleepable else "not sleepable"
    name = scene.called(scene.idx)
    return f"the program is {kind}, {sleeps}" + (f", and calls {name}" if name else "")


def _held(scene: Scene) -> str:
    """Locks and sections that this path is in."""
    holds = scene.m.state.holds
    locks = [f"a lock taken at {scene.place(ref.insn)}" for ref in holds.refs if ref.kind == "lock"]
    irqs = [f"interrupts off since {scene.place(ref.insn)}" for ref in holds.refs if ref.kind == "irq"]
    sections = ["an RCU section"] * bool(holds.rcu) + ["a section without preemption"] * bool(holds.preempt)
    found = [*locks, *irqs, *sections]
    return f"this path holds {', '.join(found)}" if found else "this path holds no lock and is in no section here"
