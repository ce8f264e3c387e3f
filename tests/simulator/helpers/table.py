"""The helper calls that the kernel was asked."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from simulator.program import MapDef
from tests.simulator.helpers.calls import CONTEXT, Argument, Case, MapArgument, Memory

TC, XDP, SOCKET = "sched_cls", "xdp", "socket_filter"
HASH = (MapDef("m", "hash", 4, 8, 2),)
ARRAY = (MapDef("m", "array", 4, 8, 2),)
PERCPU = (MapDef("m", "percpu_array", 4, 8, 2),)
LRU = (MapDef("m", "lru_hash", 4, 8, 100),)
QUEUE = (MapDef("m", "queue", 0, 8, 2),)
STACK = (MapDef("m", "stack", 0, 8, 2),)
BLOOM = (MapDef("m", "bloom_filter", 0, 8, 100),)
RING = (MapDef("m", "ringbuf", max_entries=4096),)
LPM = (MapDef("m", "lpm_trie", 8, 8, 4, flags=1),)


def key(number: int) -> Memory:
    """A four-byte key."""
    return Memory(number.to_bytes(4, "little"))


def value(number: int) -> Memory:
    """An eight-byte value."""
    return Memory(number.to_bytes(8, "little"))


def _maps() -> Iterator[Case]:
    for kind, maps in (("hash", HASH), ("array", ARRAY), ("percpu_array", PERCPU), ("lru_hash", LRU)):
        for flags in (0, 1, 2, 3, 4, 8, 1 << 40):
            for number in (0, 1, 2):
                steps = [("map_update_elem", (MapArgument(), key(number), value(7), flags))]
                steps.append(("map_update_elem", (MapArgument(), key(1), value(8), flags)))
                steps.append(("map_delete_elem", (MapArgument(), key(number))))
                yield Case(f"{kind} update {number} flags {flags:#x}", SOCKET, steps, maps=maps)
        full = [("map_update_elem", (MapArgument(), key(number), value(number), 0)) for number in range(4)]
        yield Case(f"{kind} full", SOCKET, full, maps=maps)
    for kind, maps in (("queue", QUEUE), ("stack", STACK), ("bloom", BLOOM)):
        for flags in (0, 1, 2, 4):
            push = [("map_push_elem", (MapArgument(), value(n), flags)) for n in (5, 6, 7)]
            taken = [("map_peek_elem", (MapArgument(), Memory(bytes(8), out=True)))]
            if kind != "bloom":
                taken += [("map_pop_elem", (MapArgument(), Memory(bytes(8), out=True)))] * 4
            yield Case(f"{kind} push {flags}", SOCKET, [*push, *taken], maps=maps)
    for prefix in (0, 8, 24, 32, 33):
        where = Memory(struct.pack("<I", prefix) + bytes([10, 1, 2, 3]))
        steps = [("map_update_elem", (MapArgument(), where, value(1), flags)) for flags in (2, 0, 1, 3)]
        yield Case(f"lpm update /{prefix}", SOCKET, [*steps, ("map_delete_elem", (MapArgument(), where))], maps=LPM)


def _records() -> Iterator[Case]:
    for size in (0, 1, 8, 1000, 4080, 4088, 4089, 5000):
        data = Memory(bytes(min(size, 256)))
        if size <= 256:
            steps = [("ringbuf_output", (MapArgument(), data, size, flags)) for flags in (0, 1, 2, 3, 4)]
            steps += [("ringbuf_query", (MapArgument(), what)) for what in range(7)]
            yield Case(f"ringbuf output {size}", SOCKET, steps, maps=RING)
    fill = [("ringbuf_output", (MapArgument(), Memory(bytes(240)), 240, 1))] * 18
    yield Case("ringbuf full", SOCKET, [*fill, ("ringbuf_query", (MapArgument(), 0))], maps=RING)


def _text() -> Iterator[Case]:
    texts = ("0", "12", "-7", "+5", "  42x", "0x1F", "0X1f", "017", "08", "zz", "", "-", "0x", "9223372036854775807",
             "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551615",
             "18446744073709551616", "\t10", "1 2", "0b1", "0Xg9", "0x-1", "- 1", "--1")  # fmt: skip
    for helper in ("strtol", "strtoul"):
        for text in texts:
            for base in (0, 8, 10, 16, 7):
                data = text.encode().ljust(24, b"\0")
                arguments = (Memory(data), len(text) or 1, base, Memory(b"\xee" * 8, out=True))
                yield Case(f"{helper} {text!r} base {base}", XDP, [(helper, arguments)])


def _formats() -> Iterator[Case]:
    formats = ("plain", "%d", "%i", "%u", "%x", "%X", "%ld", "%lu", "%lx", "%lld", "%llu", "%llx", "%%", "%c", "%5d|",
               "%05d", "%-5d|", "%#x", "%+d", "% d", "%px", "%d %d %d", "%d %d %d %d", "%z", "%f", "%", "%l", "%lc",
               "%n", "%hd", "%hhx", "a\x01b", "%o", "%s!", "%08llx")  # fmt: skip
    for text in formats:
        data = text.encode() + b"\0"
        arguments: list[Argument] = [Memory(data), len(data), -5, 77, 0x1_2345_6789]
        if "%s" not in text:
            yield Case(f"trace_printk {text!r}", SOCKET, [("trace_printk", arguments)])


def _checksums() -> Iterator[Case]:
    words = (b"", bytes(4), b"\xff" * 4, bytes(range(8)), b"\x12\x34\x56\x78" * 4)
    for old in words:
        for new in words:
            for seed in (0, 1, 0xFFFF, 0xFFFFFFFF):
                arguments: list[Argument] = []
                for data in (old, new):
                    arguments += [Memory(data), len(data)] if data else [0, 0]
                yield Case(f"csum_diff {old.hex()} {new.hex()} {seed:#x}", TC, [("csum_diff", (*arguments, seed))])
    for size in (0, 1, 2, 4, 8):
        for old, new in ((0, 0), (0x1234, 0x4321), (0xFFFF, 1), (0x12345678, 0x9ABCDEF0)):
            for offset in (24, 25, 60, 61, 0x10000):
                steps = [("l3_csum_replace", (CONTEXT, offset, old, new, size))]
                yield Case(f"l3_csum_replace {offset} {old:#x} {new:#x} {size}", TC, steps)
        for flags in (0x10, 0x20, 0x40, 0x60, 0x100):
            for offset in (24, 40):
                steps = [("l4_csum_replace", (CONTEXT, offset, 0x1234, 0x4321, size | flags))]
                yield Case(f"l4_csum_replace {offset} {size | flags:#x}", TC, steps)
    yield Case("csum_update", TC, [("csum_update", (CONTEXT, 5))])
    for level in range(5):
        yield Case(f"csum_level {level}", TC, [("csum_level", (CONTEXT, level))])


def _skb_bytes() -> Iterator[Case]:
    for kind in (TC, SOCKET):
        for offset in (0, 10, 30, 52, 59, 60, 61, 0x10000, 0x7FFFFFFF, 0x80000000, -1):
            arguments = (CONTEXT, offset, Memory(bytes(8), out=True), 8)
            yield Case(f"{kind} skb_load_bytes {offset}", kind, [("skb_load_bytes", arguments)])
            for start in (0, 1, 2):
                relative = ("skb_load_bytes_relative", (*arguments, start))
                yield Case(f"{kind} skb_load_bytes_relative {offset} {start}", kind, [relative])
    for offset in (0, 30, 52, 53, 0x7FFFFFFF, -1):
        for flags in (0, 1, 2, 3, 4):
            steps = [("skb_store_bytes", (CONTEXT, offset, Memory(b"abcdefgh"), 8, flags))]
            yield Case(f"skb_store_bytes {offset} {flags}", TC, steps)


def _skb_room() -> Iterator[Case]:
    after = (0, 16)
    for packet in ("v4", "v6", "other"):
        for size in (0, 13, 14, 15, 30, 60, 70, 2000, 70000):
            yield Case(
                f"{packet} skb_change_tail {size}", TC, [("skb_change_tail", (CONTEXT, size, 0))], packet, fields=after
            )
            yield Case(f"{packet} skb_pull_data {size}", TC, [("skb_pull_data", (CONTEXT, size))], packet)
        for size in (0, 1, 14, 40):
            yield Case(
                f"{packet} skb_change_head {size}", TC, [("skb_change_head", (CONTEXT, size, 0))], packet, fields=after
            )
        for to in (0x0008, 0xDD86, 0x1234):
            steps = [("skb_change_proto", (CONTEXT, to, 0))]
            yield Case(f"{packet} skb_change_proto {to:#x}", TC, steps, packet, fields=after)
        for mode in (0, 1, 2):
            for by in (0, 8, 20, -8, -20, -27, -28, -40, 0x1000, -0x1000):
                for flags in (0, 1, 2, 4, 6, 0x80, 0x100, 1 << 20):
                    steps = [("skb_adjust_room", (CONTEXT, by, mode, flags))]
                    yield Case(f"{packet} skb_adjust_room {by} {mode} {flags:#x}", TC, steps, packet, fields=after)
    yield Case("skb_change_tail flags", TC, [("skb_change_tail", (CONTEXT, 60, 1))])
    for kind in range(5):
        yield Case(f"skb_change_type {kind}", TC, [("skb_change_type", (CONTEXT, kind))], fields=(4,))
    for packet in ("v4", "vlan", "qinq"):
        tags = (0, 16, 20, 24, 28)
        push = ("skb_vlan_push", (CONTEXT, 0x0081, 5))
        pop = ("skb_vlan_pop", (CONTEXT,))
        other = ("skb_vlan_push", (CONTEXT, 0xA888, 0x2007))
        for name, steps in (
            ("push", [push]), ("push push", [push, other]), ("pop", [pop]), ("pop pop", [pop, pop]),
            ("push pop", [push, pop]), ("push push pop", [push, other, pop]), ("pop pop pop", [pop, pop, pop]),
        ):  # fmt: skip
            yield Case(f"{packet} vlan {name}", TC, steps, packet, fields=tags)
    for packet in ("v4", "ecn", "v6", "other"):
        yield Case(f"{packet} skb_ecn_set_ce", TC, [("skb_ecn_set_ce", (CONTEXT,))], packet)


def _skb_rest() -> Iterator[Case]:
    for flags in (0, 1, 2):
        yield Case(f"tc redirect {flags}", TC, [("redirect", (1, flags))])
        yield Case(f"redirect_peer {flags}", TC, [("redirect_peer", (1, flags))])
        yield Case(f"redirect_neigh {flags}", TC, [("redirect_neigh", (1, 0, 0, flags))])
        yield Case(f"clone_redirect 777 {flags}", TC, [("clone_redirect", (CONTEXT, 777, flags))])
    for size in (8, 20, 22, 24, 28, 30, 44):
        get = ("skb_get_tunnel_key", (CONTEXT, Memory(b"\x55" * 48, out=True), size, 0))
        put = ("skb_set_tunnel_key", (CONTEXT, Memory(bytes(48)), size, 0))
        yield Case(f"skb_get_tunnel_key {size}", TC, [get])
        yield Case(f"skb_set_tunnel_key {size}", TC, [put])
    for length in (0, 100, 65550, 70000):
        for by in (0, 100, -20, 66000):
            steps = [("check_mtu", (CONTEXT, 1, Memory(length.to_bytes(4, "little"), out=True), by, 0))]
            yield Case(f"tc check_mtu {length} {by}", TC, steps)
            yield Case(f"xdp check_mtu {length} {by}", XDP, steps)
    yield Case("check_mtu of no device", TC, [("check_mtu", (CONTEXT, 777, Memory(bytes(4), out=True), 0, 0))])
    yield Case("check_mtu flags", TC, [("check_mtu", (CONTEXT, 1, Memory(bytes(4), out=True), 0, 2))])
    for time, kind in ((0, 0), (5, 1), (5, 2), (5, 0), (0, 1), (5, 3)):
        yield Case(f"skb_set_tstamp {time} {kind}", TC, [("skb_set_tstamp", (CONTEXT, time, kind))])


def _xdp() -> Iterator[Case]:
    for by in (-300, -217, -216, -215, -40, -1, 1, 14, 45, 46, 47, 60, 70):
        yield Case(f"xdp_adjust_head {by}", XDP, [("xdp_adjust_head", (CONTEXT, by))])
        yield Case(
            f"xdp_adjust_head {by} and back",
            XDP,
            [("xdp_adjust_head", (CONTEXT, by)), ("xdp_adjust_head", (CONTEXT, -by))],
        )
        meta = ("xdp_adjust_meta", (CONTEXT, by))
        yield Case(f"xdp_adjust_meta {by}", XDP, [meta])
        yield Case(f"xdp_adjust_meta {by} then head -20", XDP, [meta, ("xdp_adjust_head", (CONTEXT, -20))])
        yield Case(f"xdp_adjust_meta {by} then head 20", XDP, [meta, ("xdp_adjust_head", (CONTEXT, 20))])
    for by in (-252, -256, -212, -208, -4, -8, 4):
        yield Case(
            f"xdp_adjust_meta {by} and more",
            XDP,
            [("xdp_adjust_meta", (CONTEXT, by)), ("xdp_adjust_meta", (CONTEXT, 4))],
        )
    for by in (-70, -47, -46, -45, -1, 1, 100, 3458, 3459, 3460, 3461, 5000):
        yield Case(f"xdp_adjust_tail {by}", XDP, [("xdp_adjust_tail", (CONTEXT, by))])
    for offset in (0, 52, 53, 60, 0x10000, -1):
        load = ("xdp_load_bytes", (CONTEXT, offset, Memory(b"\x55" * 8, out=True), 8))
        store = ("xdp_store_bytes", (CONTEXT, offset, Memory(b"abcdefgh"), 8))
        yield Case(f"xdp bytes {offset}", XDP, [load, store, ("xdp_get_buff_len", (CONTEXT,))])
    for flags in (0, 1, 2, 3, 4, 8):
        yield Case(f"xdp redirect {flags}", XDP, [("redirect", (1, flags))])


CASES = (
    *_maps(), *_records(), *_text(), *_formats(), *_checksums(), *_skb_bytes(), *_skb_room(), *_skb_rest(), *_xdp(),
)  # fmt: skip
