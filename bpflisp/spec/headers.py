"""Protocol headers and the constants that go with them: where each field lies, how wide it is, in which byte order.

Names are the book's (section 5 of the language reference), and in the same way for the protocols that it leaves out.
A field in network order is converted when it is read where `convert` says so; the book leaves addresses and checksums
as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from bpflisp.lean import dataclass


@dataclass(frozen=True, slots=True)
class HeaderField:
    """One field: offset and size in bytes; `convert` when its accessor turns network order into the machine's."""

    name: str
    offset: int
    size: int
    convert: bool = False


@dataclass(frozen=True, slots=True)
class Header:
    """One header: its length in bytes without options, and its fields. `ctype` is the C structure's name."""

    name: str
    size: int
    ctype: str
    fields: Sequence[HeaderField]

    def field(self, name: str) -> HeaderField | None:
        """The field of this name."""
        return next((field for field in self.fields if field.name == name), None)


def _header(name: str, size: int, ctype: str, *rows: tuple[str, int, int] | tuple[str, int, int, bool]) -> Header:
    return Header(name, size, ctype, tuple(HeaderField(*row) for row in rows))


_N = True

_HEADERS = (
    _header(
        "eth", 14, "ethhdr",
        ("dst-mac-hi", 0, 4), ("dst-mac-lo", 4, 2), ("src-mac-hi", 6, 4), ("src-mac-lo", 10, 2), ("type", 12, 2, _N),
    ),
    _header("vlan", 4, "vlan_hdr", ("tci", 0, 2, _N), ("type", 2, 2, _N)),
    _header(
        "arp", 28, "arphdr",
        ("htype", 0, 2, _N), ("ptype", 2, 2, _N), ("hlen", 4, 1), ("plen", 5, 1), ("op", 6, 2, _N),
        ("sender-mac-hi", 8, 4), ("sender-mac-lo", 12, 2), ("sender-addr", 14, 4),
        ("target-mac-hi", 18, 4), ("target-mac-lo", 22, 2), ("target-addr", 24, 4),
    ),
    _header(
        "ipv4", 20, "iphdr",
        ("ver-ihl", 0, 1), ("tos", 1, 1), ("total-len", 2, 2, _N), ("id", 4, 2, _N), ("frag-off", 6, 2, _N),
        ("ttl", 8, 1), ("protocol", 9, 1), ("checksum", 10, 2), ("src-addr", 12, 4), ("dst-addr", 16, 4),
    ),
    _header(
        "ipv6", 40, "ipv6hdr",
        ("ver-tc-flow", 0, 4, _N), ("payload-len", 4, 2, _N), ("nexthdr", 6, 1), ("hop-limit", 7, 1),
        ("src-addr-hi", 8, 8), ("src-addr-lo", 16, 8), ("dst-addr-hi", 24, 8), ("dst-addr-lo", 32, 8),
    ),
    _header("icmp", 8, "icmphdr", ("type", 0, 1), ("code", 1, 1), ("checksum", 2, 2), ("rest", 4, 4)),
    _header(
        "icmpv6", 8, "icmp6hdr",
        ("type", 0, 1), ("code", 1, 1), ("checksum", 2, 2), ("rest", 4, 4),
    ),
    _header(
        "tcp", 20, "tcphdr",
        ("src-port", 0, 2, _N), ("dst-port", 2, 2, _N), ("seq", 4, 4, _N), ("ack-seq", 8, 4, _N), ("data-off", 12, 1),
        ("flags", 13, 1), ("window", 14, 2, _N), ("checksum", 16, 2), ("urgent", 18, 2, _N),
    ),
    _header(
        "udp", 8, "udphdr",
        ("src-port", 0, 2, _N), ("dst-port", 2, 2, _N), ("length", 4, 2, _N), ("checksum", 6, 2),
    ),
)  # fmt: skip

HEADERS: Final[Mapping[str, Header]] = MappingProxyType({header.name: header for header in _HEADERS})
"""Header name -> its layout."""

BUILTIN_CONSTANTS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "XDP_ABORTED": 0, "XDP_DROP": 1, "XDP_PASS": 2, "XDP_TX": 3, "XDP_REDIRECT": 4,
        "BPF_ANY": 0, "BPF_NOEXIST": 1, "BPF_EXIST": 2, "NULL": 0,
        "TC_ACT_OK": 0, "TC_ACT_SHOT": 2, "TC_ACT_STOLEN": 4, "TC_ACT_REDIRECT": 7,
        "SK_DROP": 0, "SK_PASS": 1,
    }
)  # fmt: skip
"""The book's constants that need no definition."""

MORE_CONSTANTS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "BPF_F_LOCK": 4,
        "TC_ACT_UNSPEC": -1, "TC_ACT_RECLASSIFY": 1, "TC_ACT_PIPE": 3, "TC_ACT_QUEUED": 5, "TC_ACT_REPEAT": 6,
        "TC_ACT_TRAP": 8,
        "BPF_F_CURRENT_CPU": 0xFFFFFFFF, "BPF_F_INGRESS": 1, "BPF_F_BROADCAST": 8, "BPF_F_EXCLUDE_INGRESS": 16,
        "BPF_F_RECOMPUTE_CSUM": 1, "BPF_F_INVALIDATE_HASH": 2, "BPF_F_PSEUDO_HDR": 16, "BPF_F_MARK_MANGLED_0": 32,
        "BPF_RB_NO_WAKEUP": 1, "BPF_RB_FORCE_WAKEUP": 2,
        "AF_INET": 2, "AF_INET6": 10, "SOCK_STREAM": 1, "SOCK_DGRAM": 2,
        "NF_DROP": 0, "NF_ACCEPT": 1, "BPF_OK": 0, "BPF_DROP": 2, "BPF_REDIRECT": 7, "BPF_LWT_REROUTE": 128,
        "BPF_FLOW_DISSECTOR_CONTINUE": 129,
    }
)  # fmt: skip
"""Constants of the same kind that the book leaves out: names and numbers of uapi/linux/bpf.h and pkt_cls.h."""

INSTRUCTION_CONSTANTS: Final[Mapping[str, int]] = MappingProxyType(
    {
        **{f"bpf-reg-{number}": number for number in range(11)},
        "bpf-ld": 0, "bpf-ldx": 1, "bpf-st": 2, "bpf-stx": 3,
        "bpf-alu": 4, "bpf-jmp": 5, "bpf-jmp32": 6, "bpf-alu64": 7,
        "bpf-k": 0, "bpf-x": 8, "bpf-imm": 0, "bpf-mem": 0x60, "bpf-memsx": 0x80, "bpf-atomic": 0xC0,
        "bpf-w": 0, "bpf-h": 8, "bpf-b": 0x10, "bpf-dw": 0x18,
        **{f"bpf-{name}": number << 4 for number, name in enumerate(
            ("add", "sub", "mul", "div", "or", "and", "lsh", "rsh", "neg", "mod", "xor", "mov", "arsh", "end"))},
        **{f"bpf-{name}": number << 4 for number, name in enumerate(
            ("ja", "jeq", "jgt", "jge", "jset", "jne", "jsgt", "jsge", "call", "exit", "jlt", "jle", "jslt", "jsle"))},
    }
)  # fmt: skip
"""Parts of opcodes and registers (RFC 9669), as the book's encoder names them, for `asm`."""

NAMED_CONSTANTS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "ethertype-ipv4": 0x0800, "ethertype-ipv6": 0x86DD, "ethertype-arp": 0x0806, "ethertype-vlan": 0x8100,
        "ethertype-qinq": 0x88A8,
        "eth-hdr-len": 14, "vlan-hdr-len": 4, "arp-hdr-len": 28, "ipv4-hdr-len": 20, "ipv6-hdr-len": 40,
        "icmp-hdr-len": 8, "icmpv6-hdr-len": 8, "tcp-hdr-len": 20, "udp-hdr-len": 8,
        "ip-proto-icmp": 1, "ip-proto-tcp": 6, "ip-proto-udp": 17, "ip-proto-ipv6-icmp": 58,
        "tcp-fin": 1, "tcp-syn": 2, "tcp-rst": 4, "tcp-psh": 8, "tcp-ack": 16, "tcp-urg": 32,
    }
)  # fmt: skip
"""The book's constants between plus signs (`+tcp-syn+`), without them; and vlan, qinq, arp and icmpv6 in their way."""
