"""Fields of the structs that helpers fill, so that a mock can set them by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from simulator.mocks import Call

# Helper -> (which argument points to the struct, field -> (offset, size)). Source: include/uapi/linux/bpf.h.
FILLED: Final[Mapping[str, tuple[int, Mapping[str, tuple[int, int]]]]] = {
    "bpf_fib_lookup": (
        1,
        {
            "family": (0, 1), "l4_protocol": (1, 1), "sport": (2, 2), "dport": (4, 2), "tot_len": (6, 2),
            "mtu_result": (6, 2), "ifindex": (8, 4), "tos": (12, 1), "flowinfo": (12, 4), "rt_metric": (12, 4),
            "ipv4_src": (16, 4), "ipv6_src": (16, 16), "ipv4_dst": (32, 4), "ipv6_dst": (32, 16),
            "h_vlan_proto": (48, 2), "h_vlan_TCI": (50, 2), "tbid": (48, 4), "mark": (52, 4), "smac": (52, 6),
            "dmac": (58, 6),
        },
    ),
    "bpf_skb_get_tunnel_key": (
        1,
        {
            "tunnel_id": (0, 4), "remote_ipv4": (4, 4), "remote_ipv6": (4, 16), "tunnel_tos": (20, 1),
            "tunnel_ttl": (21, 1), "tunnel_ext": (22, 2), "tunnel_flags": (22, 2), "tunnel_label": (24, 4),
            "local_ipv4": (28, 4), "local_ipv6": (28, 16),
        },
    ),
}  # fmt: skip


def fill(call: Call, fields: Mapping[str, int | bytes]) -> None:
    """Writes the named fields into the struct that the call's argument points to. AttributeError: no such field."""
    if call.name not in FILLED:
        raise AttributeError(f"{call.name} fills no struct that is known: mock it with a function that writes")
    argument, known = FILLED[call.name]
    for name, value in fields.items():
        if name not in known:
            raise AttributeError(f"the struct of {call.name} has no field {name!r}; it has {', '.join(known)}")
        offset, size = known[name]
        data = value if isinstance(value, bytes) else value.to_bytes(size, "little")
        call.write(call.args[argument] + offset, data.ljust(size, b"\0"))
