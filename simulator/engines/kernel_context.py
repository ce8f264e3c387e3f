"""The context of a kernel test run: fields by name into the structure's bytes, and out of them.

Invariant: a field that is not given is zero, which the test run takes for "as in your own run".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from bpflisp.spec.contexts import Struct, access_table, context_struct
from bpflisp.spec.contexts import struct as struct_named
from bpflisp.spec.isa import Kind
from simulator.contexts.base import get, known_field, put
from simulator.contexts.skb import SKB_TYPES
from simulator.engines.bpf_syscall import Ran
from simulator.engines.engine import EngineUnavailable
from simulator.packet import Input
from simulator.program import Program

_ARGUMENTS: Final = 12

# The fields of __sk_buff that a test run hands back.
_SKB_GIVEN_BACK: Final = frozenset(
    {"mark", "priority", "ingress_ifindex", "ifindex", "cb", "tstamp", "wire_len", "gso_segs", "gso_size", "hwtstamp"}
)


def context_given(program: Program, given: Input) -> bytes | None:
    """The bytes of ctx_in; None for none. Raises InputRefused for a field that there is not."""
    if program.type in ("raw_tracepoint", "raw_tracepoint_writable"):
        arguments = [int(value) & (1 << 64) - 1 for value in given.context.get("args", ())]
        arguments += [0] * (_ARGUMENTS - len(arguments))
        return struct.pack(f"<{len(arguments)}Q", *arguments)
    if program.type == "syscall":
        return bytes(given.context.get("raw", b"")) or None
    layout = _layout(program)
    # An skb's context comes back only where one was given. It is given without need then, but to a program that may
    # read wire_len, which is 0 without a context and the packet's length with one.
    always = ("bpf_sk_lookup",) if _may_read_wire_len(program) else ("bpf_sk_lookup", "__sk_buff")
    if layout is None or not (given.context or layout.name in always):
        return None
    data = bytearray(layout.size)
    if layout.name == "xdp_md" and given.packet is not None:
        put(data, known_field(layout, "data_end"), len(given.packet))
    if isinstance(given.context.get("data_meta"), bytes):
        raise EngineUnavailable("the kernel's test run takes no metadata of an XDP program with a socket buffer")
    for name, value in given.context.items():
        put(data, known_field(layout, name), value)
    return bytes(data)


def _may_read_wire_len(program: Program) -> bool:
    """Whether a load reaches the offset of that field, from whatever it may be."""
    start = known_field(struct_named("__sk_buff"), "wire_len").offset
    loads = (insn for insn in program.code if insn is not None and insn.row.kind is Kind.LOAD)
    return any(start <= insn.off < start + 4 for insn in loads)


def context_after(program: Program, ran: Ran) -> Mapping[str, int]:
    """The fields that such programs may write, as far as the kernel hands them back.

    Of a flow dissector those are the keys that it filled in: they come back in the packet's place.
    """
    layout = _layout(program)
    if layout is None:
        return {}
    if program.type == "flow_dissector":
        view = memoryview(ran.data.ljust(layout.size, b"\0"))
        return {field.name: get(view, field) for field in layout.fields}
    table = access_table(program.type, program.attach_type)
    if table is None or layout.name != "__sk_buff" or len(ran.context) < layout.size:
        return {}
    starts, view = {offset for offset, _ in table.writes}, memoryview(ran.context)
    return {
        field.name: get(view, field)
        for field in layout.fields
        if field.offset in starts and field.name in _SKB_GIVEN_BACK
    }


def _layout(program: Program) -> Struct | None:
    """The structure that a test run of this type takes; None for one that takes none."""
    if program.type == "flow_dissector":
        # Its programs see an skb, but a test run takes the keys that they fill in.
        return struct_named("bpf_flow_keys")
    if program.type in SKB_TYPES or program.type in ("xdp", "sk_lookup"):
        return context_struct(program.type)
    return None
