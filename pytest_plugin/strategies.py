"""Hypothesis strategies for what programs are given: packets, and the contents of maps.

    @given(packets(ip="v4|v6", l4="tcp|udp", malformed=True), maps(obj))

Invariant: what is drawn can be given to a program: a packet has 14 bytes or more, a map takes its entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from hypothesis import strategies as st

from bpflisp.spec.isa import Kind, Op
from simulator import MapDef, Object, Program, World

SHORTEST = 14
"""Bytes of the shortest packet: an Ethernet header."""

_LONGEST, _MOST_BOUNDS = 1500, 64
IP_KINDS, L4_KINDS = ("v4", "v6"), ("tcp", "udp", "icmp")

_PORTS: Final = (22, 23, 53, 80, 443, 8080)
_MACS: Final = ("02:00:00:00:00:01", "02:00:00:00:00:02", "ff:ff:ff:ff:ff:ff")
_FLAGS: Final = ("S", "A", "SA", "F", "FA", "R", "PA", "", "SFRPAU")


@dataclass(frozen=True)
class _Hints:
    """Numbers that a program compares with: as ports in both byte orders, and as lengths."""

    ports: Sequence[int] = _PORTS
    lengths: Sequence[int] = ()


def packets(
    ip: str = "v4|v6",
    l4: str = "tcp|udp",
    *,
    malformed: bool = False,
    vlan: bool = True,
    program: Program | None = None,
) -> st.SearchStrategy[Any]:
    """Scapy packets: Ethernet, VLAN tags, IP with options or extension headers and fragments, a transport, payload.

    `ip` and `l4` are alternatives with | between: v4, v6; tcp, udp, icmp. `malformed` draws also packets that are cut
    short (not under 14 bytes), that have wrong lengths in their headers, or whose payload is none. `program` is looked
    at for the numbers that it compares with, and for the bounds that it tests packets against: such ports and lengths,
    and those one more and one less, are drawn more often. Raises ValueError for an alternative that there is not.
    """
    kinds, transports = _alternatives("ip", ip, IP_KINDS), _alternatives("l4", l4, L4_KINDS)
    hints = _hints(program) if program is not None else _Hints()
    whole = st.builds(_stack, _ethernet(), _vlans() if vlan else st.just([]), _network(kinds, transports, hints))
    if hints.lengths:
        whole = st.one_of(whole, st.builds(_padded, whole, st.sampled_from(hints.lengths)))
    if not malformed:
        return whole
    drawn = st.one_of(whole, st.builds(_cut, whole, _ends(hints)), st.builds(_patched, whole, st.data()))
    return drawn if program is None or program.type == "xdp" else drawn.map(_with_network_header)


def _alternatives(name: str, text: str, known: Sequence[str]) -> list[str]:
    asked = text.split("|")
    for each in asked:
        if each not in known:
            raise ValueError(f"packets({name}={text!r}): {each!r} is none of {', '.join(known)}")
    return asked


def _hints(program: Program) -> _Hints:
    """The immediates of a program's comparisons and additions."""
    numbers = {
        insn.imm & 0xFFFFFFFF for insn in program.code if insn is not None and insn.row.kind in (Kind.BRANCH, Kind.ALU)
    }
    small = sorted(number for number in numbers if number < 1 << 16)
    swapped = [int.from_bytes(number.to_bytes(2, "little"), "big") for number in small]
    bounds = sorted(_bounds(program))[:_MOST_BOUNDS]
    lengths = {number + off for number in bounds for off in (-1, 0, 1)}
    return _Hints((*_PORTS, *small, *swapped), tuple(sorted(length for length in lengths if length >= SHORTEST)))


def _bounds(program: Program) -> set[int]:
    """Lengths that a program may test a packet against: what it adds to addresses, alone and after one another."""
    added = {
        insn.imm
        for insn in program.code
        if insn is not None and insn.row.kind is Kind.ALU and insn.row.op is Op.ADD and not insn.row.reg
    }
    steps = {number for number in added if 0 < number <= _LONGEST}
    sums = {one + other for one in steps for other in steps} if len(steps) <= 24 else set()
    return {number for number in steps | sums if SHORTEST - 1 <= number <= _LONGEST}


# Layers, from the outside to the inside


def _ethernet() -> st.SearchStrategy[Any]:
    from scapy.layers.l2 import Ether

    return st.builds(Ether, src=st.just(_MACS[0]), dst=st.sampled_from(_MACS[1:]))


def _vlans() -> st.SearchStrategy[list[Any]]:
    from scapy.layers.l2 import Dot1Q

    return st.lists(st.builds(Dot1Q, vlan=st.integers(0, 4095), prio=st.integers(0, 7)), max_size=2)


def _network(kinds: Sequence[str], transports: Sequence[str], hints: _Hints) -> st.SearchStrategy[Any]:
    payload = st.binary(max_size=64)
    drawn = []
    for kind in kinds:
        network = _ipv4() if kind == "v4" else _ipv6()
        drawn += [st.builds(_join, network, _transport(each, kind, hints), payload) for each in transports]
    return st.one_of(drawn)


def _ipv4() -> st.SearchStrategy[Any]:
    from scapy.layers.inet import IP, IPOption_NOP, IPOption_RR

    addresses = st.ip_addresses(v=4).map(str)
    options = st.lists(st.sampled_from([IPOption_NOP(), IPOption_RR(routers=["0.0.0.0"])]), max_size=3)
    return st.builds(
        IP,
        src=addresses,
        dst=addresses,
        ttl=st.integers(0, 255),
        tos=st.integers(0, 255),
        flags=st.sampled_from(["", "DF", "MF"]),
        frag=st.sampled_from([0, 0, 0, 1, 100]),
        options=st.one_of(st.just([]), options),
    )


def _ipv6() -> st.SearchStrategy[list[Any]]:
    from scapy.layers import inet6

    addresses = st.ip_addresses(v=6).map(str)
    header = st.builds(inet6.IPv6, src=addresses, dst=addresses, hlim=st.integers(0, 255))
    extensions = st.sampled_from(
        [inet6.IPv6ExtHdrHopByHop(), inet6.IPv6ExtHdrDestOpt(), inet6.IPv6ExtHdrFragment(offset=0, m=1)]
    )
    return st.builds(lambda head, more: [head, *more], header, st.lists(extensions, max_size=2, unique_by=type))


def _transport(kind: str, ip: str, hints: _Hints) -> st.SearchStrategy[Any]:
    from scapy.layers import inet, inet6

    ports = st.one_of(st.sampled_from(hints.ports), st.integers(0, 65535))
    if kind == "udp":
        return st.builds(inet.UDP, sport=ports, dport=ports)
    if kind == "icmp":
        return st.builds(inet.ICMP, type=st.sampled_from([0, 8])) if ip == "v4" else st.builds(inet6.ICMPv6EchoRequest)
    options = st.sampled_from([[], [("MSS", 1460)], [("NOP", None), ("WScale", 7)], [("Timestamp", (1, 0))]])
    return st.builds(
        inet.TCP,
        sport=ports,
        dport=ports,
        flags=st.sampled_from(_FLAGS),
        seq=st.integers(0, 0xFFFFFFFF),
        options=options,
    )


def _join(network: Any, transport: Any, payload: bytes) -> list[Any]:
    layers = network if isinstance(network, list) else [network]
    return [*layers, transport, *([payload] if payload else [])]


def _stack(ethernet: Any, vlans: Sequence[Any], inside: Sequence[Any]) -> Any:
    packet = ethernet
    for layer in (*vlans, *inside):
        packet = packet / layer
    return packet


def _padded(packet: Any, length: int) -> Any:
    """With zeros at its end, up to a length."""
    from scapy.packet import Raw

    missing = length - len(bytes(packet))
    return packet / Raw(bytes(missing)) if missing > 0 else packet


# What is wrong with a packet


def _ends(hints: _Hints) -> st.SearchStrategy[int]:
    anywhere = st.integers(SHORTEST, 128)
    return st.one_of(anywhere, st.sampled_from(hints.lengths)) if hints.lengths else anywhere


def _cut(packet: Any, end: int) -> Any:
    return dissected(bytes(packet)[: max(SHORTEST, end)])


def _with_network_header(packet: Any) -> Any:
    """Long enough for the header that its type says: the kernel's test run of an skb takes no shorter one."""
    raw = bytes(packet)
    least = {b"\x08\x00": SHORTEST + 20, b"\x86\xdd": SHORTEST + 40}.get(raw[12:14], 0)
    return packet if len(raw) >= least else dissected(raw.ljust(least, b"\0"))


def _patched(packet: Any, data: Any) -> Any:
    """One byte of the headers changed: a length, a version, a protocol."""
    raw = bytearray(bytes(packet))
    at = data.draw(st.integers(12, min(len(raw) - 1, 60)))
    raw[at] = data.draw(st.integers(0, 255))
    return dissected(bytes(raw))


def dissected(raw: bytes) -> Any:
    """The bytes as a scapy packet that builds exactly them again, in as many layers as scapy can read."""
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw

    try:
        packet = Ether(raw)
        if bytes(packet) == raw:
            return packet
    except Exception:  # scapy's dissectors raise whatever their code comes upon
        pass
    return Ether(raw[:SHORTEST]) / Raw(raw[SHORTEST:])


# Contents of maps

_TYPES: Final = frozenset(
    {"hash", "lru_hash", "percpu_hash", "lru_percpu_hash", "array", "percpu_array", "lpm_trie"}
)  # fmt: skip
_MOST = 64


def contexts(of: str | Program) -> st.SearchStrategy[dict[str, Any]]:
    """Contexts of a program type or a program; see `pytest_plugin.drawn_contexts.contexts`."""
    from pytest_plugin.drawn_contexts import contexts as drawn

    return drawn(of)


def state_machine(obj: Object, program: str = "", given: st.SearchStrategy[Any] | None = None, **options: Any) -> Any:
    """A rule-based state machine over an object; see `pytest_plugin.machines.state_machine`."""
    from pytest_plugin.machines import state_machine as made

    return made(obj, program, given, **options)


def entries(obj: Object) -> dict[str, st.SearchStrategy[tuple[Any, Any]]]:
    """For each map that can be drawn, a typed key and its value."""
    chosen = {name: made for name, made in obj.maps.items() if made.type in _TYPES and made.init is None}
    return {
        name: st.tuples(_key(made), _bytes(made.value_size)).map(
            lambda pair, made=made: next(iter(_typed(made, [pair]).items()))  # type: ignore[misc]
        )
        for name, made in chosen.items()
    }


def maps(obj: Object, *, entries: int = 4) -> st.SearchStrategy[dict[str, dict[Any, Any]]]:
    """Contents for the maps of an object, for `program(packet, maps=...)`: map's name -> typed keys -> typed values.

    Drawn are hash, LRU, array, per-CPU and LPM maps, with up to `entries` entries each; an object's own data sections
    and what programs alone can fill stay as they are.
    """
    chosen = {name: made for name, made in obj.maps.items() if made.type in _TYPES and made.init is None}
    drawn: Mapping[str, Any] = {name: _entries(made, entries) for name, made in chosen.items()}
    return st.fixed_dictionaries(dict(drawn))


def _entries(made: MapDef, most: int) -> st.SearchStrategy[dict[Any, Any]]:
    pairs = st.lists(st.tuples(_key(made), _bytes(made.value_size)), max_size=min(most, made.max_entries))
    return pairs.map(lambda drawn: _typed(made, drawn))


def _key(made: MapDef) -> st.SearchStrategy[bytes]:
    if "array" in made.type:
        last = min(made.max_entries, _MOST) - 1
        return st.integers(0, last).map(lambda index: index.to_bytes(4, "little"))
    if made.type == "lpm_trie":
        bits = 8 * (made.key_size - 4)
        return st.tuples(st.integers(0, bits), st.binary(min_size=bits // 8, max_size=bits // 8)).map(
            lambda drawn: drawn[0].to_bytes(4, "little") + drawn[1]
        )
    return _bytes(made.key_size)


def _bytes(size: int) -> st.SearchStrategy[bytes]:
    """Bytes of a size: a small number, one that programs like, or anything."""
    numbers = st.one_of(st.integers(0, 3), st.sampled_from(_PORTS))
    small = numbers.map(lambda number: number.to_bytes(max(size, 2), "little")[:size])
    return st.one_of(small, st.binary(min_size=size, max_size=size))


def _typed(made: MapDef, drawn: Sequence[tuple[bytes, bytes]]) -> dict[Any, Any]:
    """The entries as a map of this kind gives them back."""
    scratch = World([replace(made, max_entries=min(made.max_entries, _MOST))])
    target = scratch.maps[made.name]
    copies = target.user_value_size // max(1, made.value_size + -made.value_size % 8) if target.per_cpu else 1
    for key, value in drawn:
        target.update(key, value.ljust(target.user_value_size // copies, b"\0") * copies)
    if "array" in made.type:
        return {int.from_bytes(key, "little"): target[key] for key, _ in drawn}
    return dict(target.items())
