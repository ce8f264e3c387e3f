"""The calls of which sequences are made: helpers on packets, with arguments at and beyond what they take."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.simulator.helpers.calls import CONTEXT, Memory

Step = tuple[str, Sequence[Any]]

_SIZES: Final = (1, 2, 4, 8, 14, 16, 20)
_OFFSETS: Final = (0, 1, 12, 14, 16, 22, 24, 34, 36, 40, 50, 59, 60, 61, 0xFFFF, -1, 0x7FFFFFFF)
_OLD, _NEW = (0, 1, 0x1234, 0xFFFF), (0, 7, 0x4321, 0xFFFF0000)
_L4_FLAGS: Final = (0, 2, 4, 0x10, 0x12, 0x20, 0x22, 0x14, 0x40, 0x42, 0x30, 0x32, 0x80, 0x82, 0x100)
_ETHERNET_INSIDE = 14 << 56
_ROOM_FLAGS: Final = (
    0, 0, 1, 2, 4, 3, 5, 6, 8, 16, 0x20, 0x40, 0x60, 0x80, 0x100, _ETHERNET_INSIDE | 2, _ETHERNET_INSIDE | 0x42,
    _ETHERNET_INSIDE | 10, 20 << 56 | 2,
)  # fmt: skip
_LENGTHS: Final = (0, 60, 65536, 70000, 0xFFFFFFFF)

_READ_ONLY: Final = ("skb_load_bytes", "skb_load_bytes_relative")
_MAY: Final = {
    "socket_filter": _READ_ONLY,
    "cgroup_skb": _READ_ONLY,
    "lwt_in": ("skb_load_bytes", "skb_pull_data", "csum_diff", "get_route_realm"),
    "lwt_xmit": (
        "skb_load_bytes", "skb_store_bytes", "skb_pull_data", "csum_diff", "skb_change_tail", "skb_change_head",
        "redirect", "clone_redirect", "l3_csum_replace", "l4_csum_replace", "get_route_realm", "csum_update",
        "csum_level", "set_hash_invalid", "skb_set_tunnel_key", "skb_get_tunnel_key",
    ),
}  # fmt: skip
"""What program types may call, of those that may not call all."""


def step(rng: random.Random, kind: str) -> Step:
    """A call that a program of this type may make."""
    table, may = (_XDP, None) if kind == "xdp" else (_SKB, _MAY.get(kind))
    name = rng.choice([name for name in table if may is None or name in may])
    return name, table[name](rng)


def _bytes(rng: random.Random, size: int, out: bool = False) -> Memory:
    return Memory(rng.randbytes(size), out)


def _offset(rng: random.Random) -> int:
    return rng.choice((*_OFFSETS, rng.randrange(-20, 130)))


def _load(rng: random.Random) -> list[Any]:
    size = rng.choice(_SIZES)
    return [CONTEXT, _offset(rng), _bytes(rng, size, out=True), size]


def _store(rng: random.Random) -> list[Any]:
    size = rng.choice(_SIZES)
    return [CONTEXT, _offset(rng), _bytes(rng, size), size]


def _sum(rng: random.Random) -> list[Any]:
    return [_bytes(rng, 16), rng.choice((4, 8, 16)), _bytes(rng, 16), rng.choice((4, 8, 16)), rng.choice((0, 1, -1))]


def _mtu(rng: random.Random) -> list[Any]:
    length = Memory(rng.choice(_LENGTHS).to_bytes(4, "little"), out=True)
    return [CONTEXT, rng.choice((0, 1, 777)), length, rng.choice((0, 10, -30, 5000, 70000)), rng.choice((0, 0, 1, 2))]


_Arguments = Callable[[random.Random], list[Any]]

_SKB: Final[dict[str, _Arguments]] = {
    "skb_load_bytes": _load,
    "skb_load_bytes_relative": lambda rng: [*_load(rng), rng.choice((0, 1, 2))],
    "skb_store_bytes": lambda rng: [*_store(rng), rng.choice((0, 0, 0, 1, 2, 3, 4))],
    "l3_csum_replace": lambda rng: [
        CONTEXT, _offset(rng), rng.choice(_OLD), rng.choice(_NEW), rng.choice((0, 2, 4, 1, 0x10))
    ],
    "l4_csum_replace": lambda rng: [
        CONTEXT, _offset(rng), rng.choice(_OLD), rng.choice(_NEW), rng.choice(_L4_FLAGS)
    ],
    "csum_diff": _sum,
    "csum_update": lambda rng: [CONTEXT, rng.choice((0, 5, 0xFFFF))],
    "csum_level": lambda rng: [CONTEXT, rng.randrange(5)],
    "skb_vlan_push": lambda rng: [
        CONTEXT, rng.choice((0x81, 0xA888, 8, 0)), rng.choice((0, 5, 0xFFF, 0x1FFF, 0xFFFF))
    ],
    "skb_vlan_pop": lambda rng: [CONTEXT],
    "skb_change_proto": lambda rng: [CONTEXT, rng.choice((8, 0xDD86, 0x81)), rng.choice((0, 0, 0, 1))],
    "skb_change_tail": lambda rng: [
        CONTEXT, rng.choice((0, 14, 20, 34, 60, 61, 100, 1500, 5000, rng.randrange(300))), rng.choice((0, 0, 0, 1))
    ],
    "skb_change_head": lambda rng: [CONTEXT, rng.choice((0, 1, 14, 40, 100, 300, 1000)), rng.choice((0, 0, 0, 1))],
    "skb_change_type": lambda rng: [CONTEXT, rng.randrange(8)],
    "skb_adjust_room": lambda rng: [
        CONTEXT, rng.choice((0, 4, 8, 20, 40, -4, -8, -20, -40, 300, rng.randrange(-60, 60))),
        rng.choice((0, 1, 0, 1, 2)), rng.choice(_ROOM_FLAGS),
    ],
    "skb_pull_data": lambda rng: [CONTEXT, rng.choice((0, 1, 14, 60, 61, 100, 2000, -1))],
    "set_hash": lambda rng: [CONTEXT, rng.choice((0, 5, 0xFFFFFFFF))],
    "set_hash_invalid": lambda rng: [CONTEXT],
    "skb_set_tstamp": lambda rng: [CONTEXT, rng.choice((0, 5, 1 << 40)), rng.randrange(4)],
    "skb_ecn_set_ce": lambda rng: [CONTEXT],
    "get_cgroup_classid": lambda rng: [CONTEXT],
    "skb_cgroup_classid": lambda rng: [CONTEXT],
    "get_route_realm": lambda rng: [CONTEXT],
    "check_mtu": _mtu,
    "redirect": lambda rng: [rng.choice((0, 1, 777)), rng.randrange(3)],
    "redirect_peer": lambda rng: [rng.randrange(2), rng.randrange(2)],
    "redirect_neigh": lambda rng: [1, 0, 0, rng.randrange(2)],
    "clone_redirect": lambda rng: [CONTEXT, rng.choice((777, 0)), rng.randrange(3)],
    "skb_set_tunnel_key": lambda rng: [
        CONTEXT, Memory(rng.choice((rng.randbytes(22) + bytes(26), rng.randbytes(48), bytes(48)))),
        rng.choice((8, 20, 22, 24, 28, 44, 30)), rng.choice((0, 0, 1, 2, 4, 8, 16, 32)),
    ],
    "skb_get_tunnel_key": lambda rng: [
        CONTEXT, _bytes(rng, 48, out=True), rng.choice((8, 20, 22, 24, 28, 44, 30)), rng.choice((0, 0, 1, 2, 16, 17))
    ],
    "skb_set_tunnel_opt": lambda rng: [CONTEXT, _bytes(rng, 8), rng.choice((4, 5, 8))],
    "skb_get_tunnel_opt": lambda rng: [CONTEXT, _bytes(rng, 8, out=True), 8],
}  # fmt: skip

_XDP: Final[dict[str, _Arguments]] = {
    "xdp_adjust_head": lambda rng: [
        CONTEXT, rng.choice((0, -4, 4, 14, 20, -40, -216, -217, -256, 46, 47, rng.randrange(-260, 80)))
    ],
    "xdp_adjust_tail": lambda rng: [
        CONTEXT, rng.choice((0, -4, 4, 14, 20, -40, 100, 3000, 3500, rng.randrange(-80, 80)))
    ],
    "xdp_adjust_meta": lambda rng: [
        CONTEXT, rng.choice((0, -4, 4, -8, 8, -32, -36, -252, -256, 3, -212, rng.randrange(-64, 16) * 4))
    ],
    "xdp_load_bytes": _load,
    "xdp_store_bytes": _store,
    "xdp_get_buff_len": lambda rng: [CONTEXT],
    "check_mtu": _mtu,
    "redirect": lambda rng: [rng.choice((0, 1, 777)), rng.choice((0, 1, 2, 8))],
    "csum_diff": _sum,
}  # fmt: skip
