"""Fields that are narrower in the kernel's own structure than in the one that programs see.

The kernel makes an access to a field of the context into one to its own, and where a load is as wide as its own field,
it is left as it is: the upper half of `protocol` reads as the lower. What is written is cut to the kernel's field. An
engine cannot have that from a context of plain bytes, so it asks here, by the instruction's offset and size.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final, NamedTuple

_FIELD = 4
_IN_KERNEL: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(
    {
        "__sk_buff": {
            "pkt_type": 1, "queue_mapping": 2, "protocol": 2, "vlan_tci": 2, "vlan_proto": 2, "tc_index": 2,
            "tc_classid": 2, "family": 2, "gso_segs": 2, "gso_size": 2,
        },
        "bpf_sk_lookup": {"family": 2, "protocol": 2, "local_port": 2},
    }
)  # fmt: skip
"""Structure -> field of four bytes -> bytes of the kernel's own."""

_WRITTEN: Final = ("tc_index", "tc_classid")
_QUEUE: Final = "queue_mapping"
NO_QUEUE: Final = 0xFFFF
"""Numbers from this on are no queue: the write of one is left out."""

Place = tuple[int, int]


class Narrow(NamedTuple):
    """The accesses of one structure that are not what its bytes say: by (offset, size).

    `loads` have the place that is read instead. Of what is written at `cut` 16 bits are kept; at `queues` too, and
    nothing at all is written of numbers from NO_QUEUE on.
    """

    loads: Mapping[Place, Place]
    cut: frozenset[Place]
    queues: frozenset[Place]

    def kept(self, place: Place, value: int, immediate: bool) -> int | None:
        """What a store of `value` (64 bits; signed, where it is the instruction's own number) leaves there: None for
        nothing."""
        if place in self.queues and (value if not immediate else max(value, 0)) >= NO_QUEUE:
            return None
        return value & 0xFFFF


PLAIN: Final = Narrow(MappingProxyType({}), frozenset(), frozenset())
"""Of a context that is what its bytes say."""


@cache
def narrow_for(prog_type: str) -> Narrow:
    """What differs in the context of a program type."""
    if prog_type in ("xdp", "conformance"):
        return PLAIN  # Known without asking for what other types need.
    from simulator.contexts.skb import SKB_TYPES

    if prog_type in SKB_TYPES:
        return _narrow("__sk_buff")
    return _narrow("bpf_sk_lookup") if prog_type == "sk_lookup" else PLAIN


def _narrow(name: str) -> Narrow:
    from bpflisp.spec.contexts import struct

    offsets = {field.name: field.offset for field in struct(name).fields}
    loads = {
        (offsets[field] + at, size): (offsets[field], _FIELD)
        for field, own in _IN_KERNEL[name].items()
        for size in (1, 2)
        for at in range(size, _FIELD, size)
        if size >= own
    }
    if name != "__sk_buff":
        return Narrow(loads, frozenset(), frozenset())
    cut = frozenset((offsets[field], _FIELD) for field in _WRITTEN)
    return Narrow(loads, cut, frozenset({(offsets[_QUEUE], _FIELD)}))
