"""Contexts to draw: the fields of a program type's structure that a test may set, each with a number of its size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hypothesis import strategies as st

from bpflisp.spec.contexts import Field, access_table, context_struct, struct
from bpflisp.spec.programs import by_name
from simulator import Program

_ARGUMENTS: Final = frozenset({"raw_tracepoint", "raw_tracepoint_writable", "tracing", "lsm"})
_SKB_FIELDS: Final = ("mark", "priority", "cb", "tstamp")
"""What the kernel's test run takes of an skb whatever else is set."""

_LOOKUP_FIELDS: Final = ("remote_ip4", "local_ip4")
_LOOKUPS: Final = st.fixed_dictionaries(
    {"family": st.sampled_from((2, 10)), "protocol": st.sampled_from((6, 17)), "local_port": st.integers(0, 65535)}
)

_MOST_ARGUMENTS, _BLOCK = 6, 256


def contexts(of: str | Program) -> st.SearchStrategy[dict[str, Any]]:
    """Contexts of a program type, or of a program: mappings of field names to numbers, for `program(context)`, or for
    `program(packet, context=...)` where the type runs on packets.

    Drawn are fields that hold numbers; those that are not drawn have the value of the kernel's own test run. Raises
    ValueError for a type that there is not.
    """
    name, attach_type = (of.type, of.attach_type) if isinstance(of, Program) else (of, "")
    known = by_name(name)
    if known is None:
        raise ValueError(f"contexts({name!r}): there is no such program type")
    if name in _ARGUMENTS:
        return st.fixed_dictionaries({"args": st.lists(_number(8), max_size=_MOST_ARGUMENTS)})
    layout = context_struct(name)
    if name == "xdp":
        return st.fixed_dictionaries({}, optional={"ingress_ifindex": st.just(1), "rx_queue_index": st.just(0)})
    if layout is None:
        return st.fixed_dictionaries({"raw": st.binary(min_size=_BLOCK, max_size=_BLOCK)})
    if layout.name == "__sk_buff":
        fields = {field: struct("__sk_buff").field(field) for field in _SKB_FIELDS}
        return _drawn({name: field for name, field in fields.items() if field is not None})
    table = access_table(name, attach_type)
    readable = {
        field.name: field
        for field in layout.fields
        if table is None or ((read := table.access(field.offset, field.element_size, False)) and read.kind == "scalar")
    }
    if name == "sk_lookup":
        # The kernel's test run takes no other families and protocols, and works the cookie out itself.
        plain = {field: known for field, known in readable.items() if field in _LOOKUP_FIELDS}
        return st.tuples(_drawn(plain), _LOOKUPS).map(lambda parts: {**parts[0], **parts[1]})
    return _drawn(readable)


def _drawn(fields: Mapping[str, Field]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: _value(field) for name, field in fields.items()})


def _value(field: Field) -> st.SearchStrategy[Any]:
    count = field.size // field.element_size
    one = _number(field.element_size)
    return one if count == 1 else st.lists(one, min_size=count, max_size=count)


def _number(size: int) -> st.SearchStrategy[int]:
    most = (1 << 8 * min(size, 8)) - 1
    return st.one_of(st.integers(0, min(3, most)), st.integers(0, most))
