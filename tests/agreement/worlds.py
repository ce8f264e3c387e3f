"""Worlds and inputs for programs that are run on several engines: drawn at random, put in place again and again.

A world is made once for a program and an engine, so that the program is loaded and translated once; a `State` is what
its maps hold and which CPU runs, and a world is put into one state after the other.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bpflisp.spec.contexts import context_struct
from simulator.engines.kernel_maps import PLAIN_TYPES
from simulator.maps.base import Map
from simulator.maps.nested import MapOfMaps
from simulator.maps.perf import PerfEventArray
from simulator.maps.queue import BloomFilter, Queue
from simulator.maps.ringbuf import RingBuffer
from simulator.packet import PACKET_TYPES, Input
from simulator.program import MapDef, Program
from simulator.world import World

_ARRAYS: Final = frozenset({"array", "percpu_array"})
_INNER = 2
"""Maps that are put into each map of maps."""

Entries = Mapping[str, Sequence[tuple[bytes, bytes]]]


@dataclass(frozen=True, slots=True)
class State:
    """What the maps of a world hold, by name, and the CPU that runs; `now` is the world's time in nanoseconds."""

    entries: Entries = field(default_factory=dict)
    cpu: int = 0
    now: int = 1_000_000_000_000


def new_world(program: Program, others: Mapping[str, Program]) -> World:
    """A world with the program's maps, maps in its maps of maps, and programs for its prog arrays."""
    world = World()
    world.add_programs(others)
    world.task.pid = world.task.tgid = os.getpid()
    world.task.uid, world.task.gid = os.getuid(), os.getgid()
    bound = [made for each in (program, *others.values()) for made in world.bind(each)]
    for made in bound:
        if isinstance(made, MapOfMaps):
            template = made.definition.inner
            assert template is not None
            for number in range(min(_INNER, made.definition.max_entries)):
                inner = world.add_map(template, f"{made.name}/{number}")
                made.set(number.to_bytes(made.definition.key_size, "little"), inner)
    return world


def put(world: World, state: State) -> None:
    """Puts a world into a state. What bloom filters have they keep: nothing takes a value out of one."""
    world.cpu = state.cpu
    world.clock.now = state.now
    world.random.seed(world.seed)
    world.printed.clear()
    for name, found in world.maps.items():
        _put(found, state.entries.get(name, ()))


def _put(found: Map, entries: Sequence[tuple[bytes, bytes]]) -> None:
    made = found.definition
    if isinstance(found, RingBuffer | PerfEventArray):
        found.read()
    elif isinstance(found, Queue):
        while found.take() is not None:
            pass
        for _, value in entries:
            found.update(b"", value)
    elif isinstance(found, BloomFilter):
        for _, value in entries:
            found.update(b"", value)
    elif made.type in PLAIN_TYPES and not made.frozen:
        _put_plain(found, dict(entries))


def _put_plain(found: Map, wanted: dict[bytes, bytes]) -> None:
    empty = bytes(found.user_value_size)
    for key, value in list(found.raw_items()):
        if found.definition.type in _ARRAYS:
            if value != wanted.get(key, empty):
                found.update(key, wanted.pop(key, empty))
        elif key not in wanted:
            found.delete(key)
    for key, value in wanted.items():
        found.update(key, value)


def contents(world: World) -> dict[str, Any]:
    """What the maps of a world hold, by name; of ring buffers and perf event arrays their records."""
    found: dict[str, Any] = {}
    for name, have in world.maps.items():
        if isinstance(have, RingBuffer | PerfEventArray):
            found[name] = have.records
        elif isinstance(have, Queue):
            found[name] = list(have)
        elif have.definition.type in PLAIN_TYPES and not have.definition.frozen:
            found[name] = dict(have.raw_items())
    return found


def states(world: World, rng: random.Random, count: int, cpus: int) -> Iterator[State]:
    """So many states for a world: the first is empty, the others have a few entries, which programs look for."""
    for number in range(count):
        entries: Entries = {name: _entries(made, rng) for name, made in world.maps.items()} if number else {}
        yield State(entries, rng.randrange(cpus), rng.randrange(1 << 42))


def _entries(found: Map, rng: random.Random) -> list[tuple[bytes, bytes]]:
    made = found.definition
    if isinstance(found, Queue | BloomFilter):
        return [(b"", _value(rng, made.value_size)) for _ in range(rng.randrange(min(made.max_entries, 4) + 1))]
    if made.type not in PLAIN_TYPES or made.frozen:
        return []
    keys = {_key(rng, made, number) for number in range(min(made.max_entries, 5)) if rng.random() < 0.7}
    return [(key, _value(rng, found.user_value_size)) for key in sorted(keys)]


def _key(rng: random.Random, made: MapDef, number: int) -> bytes:
    if made.type == "lpm_trie":
        bits = rng.randrange((made.key_size - 4) * 8 + 1)
        return bits.to_bytes(4, "little") + rng.choice((bytes(made.key_size - 4), rng.randbytes(made.key_size - 4)))
    return number.to_bytes(made.key_size, "little")


def _value(rng: random.Random, size: int) -> bytes:
    kind = rng.random()
    if kind < 0.3:
        return bytes(size)
    if kind < 0.6:
        return rng.randrange(256).to_bytes(size, "little")
    return rng.randbytes(size)


# ---- inputs ----------------------------------------------------------------------------------------------------------


def inputs(program: Program, rng: random.Random, count: int) -> list[Input]:
    """So many inputs for a program: packets of several kinds with some fields set, or the context of its type."""
    return [_input(program, rng, number) for number in range(count)]


def _input(program: Program, rng: random.Random, number: int) -> Input:
    if program.type in PACKET_TYPES:
        return Input(packet(rng, number), _fields(program, rng) if number > 1 else {})
    match program.type:
        case "raw_tracepoint":
            return Input(None, {"args": [_word(rng) for _ in range(rng.choice((2, 5, 12)))]})
        case "syscall":
            return Input(None, {"raw": rng.randbytes(128) if number else bytes(128)})
        case "sk_lookup":
            return Input(None, _lookup(rng))
        case _:
            return Input(None, _structure(program, rng))


def packet(rng: random.Random, number: int) -> bytes:
    """A packet: zeros, noise, or IPv4 or IPv6 with TCP, UDP or ICMP, whole or cut, with a VLAN tag or without."""
    if number == 0:
        return bytes(64)
    if number == 1 or rng.random() < 0.1:
        return bytes(12) + b"\x88\xb5" + rng.randbytes(rng.choice((0, 1, 46, 100, 500)))
    link = rng.choice((bytes(6), b"\xff" * 6, rng.randbytes(6))) + bytes(6)
    protocol = rng.choice((6, 17, 1, 58))
    ports = rng.randrange(1024).to_bytes(2, "big") + rng.choice((7, 23, 53, 80, 443)).to_bytes(2, "big")
    body = ports + rng.randbytes(rng.randrange(20, 120))
    six = rng.random() < 0.3
    if six:
        network = b"\x60" + bytes(3) + len(body).to_bytes(2, "big") + bytes([protocol, 64]) + rng.randbytes(32)
    else:
        length = (20 + len(body)).to_bytes(2, "big")
        network = b"\x45\0" + length + bytes(4) + bytes([64, protocol]) + rng.randbytes(10)
    kind = b"\x86\xdd" if six else b"\x08\0"
    tag = b"\x81\0" + rng.randbytes(2) if rng.random() < 0.1 else b""
    whole = link + tag + kind + network + body
    least = 14 + len(tag) + len(network)
    return whole if rng.random() < 0.7 else whole[: rng.randrange(least, len(whole))]


def _word(rng: random.Random) -> int:
    return rng.choice((0, 1, rng.randrange(256), rng.getrandbits(32), rng.getrandbits(64)))


def _fields(program: Program, rng: random.Random) -> dict[str, Any]:
    """Fields of the context besides the packet, as the kernel's test run takes them."""
    if program.type == "flow_dissector":
        return {}
    if program.type == "xdp":
        return rng.choice(({}, {}, {"data": rng.choice((4, 8, 32))}, {"ingress_ifindex": 1}))
    found = {
        "mark": rng.getrandbits(32),
        "priority": rng.randrange(16),
        "cb": [rng.getrandbits(32) for _ in range(5)],
        "tstamp": rng.getrandbits(40),
        "gso_segs": rng.randrange(4),
    }
    return {name: value for name, value in found.items() if rng.random() < 0.4}


def _structure(program: Program, rng: random.Random) -> dict[str, Any]:
    """Some fields of a context that is a structure. Its socket, which the kernel always has, is left to the engine."""
    layout = context_struct(program.type)
    if layout is None:
        return {"raw": rng.randbytes(256)}
    drawn = [field for field in layout.fields if rng.random() < 0.5 and field.name != "sk"]
    return {field.name: rng.choice((bytes(field.size), rng.randbytes(field.size))) for field in drawn}


def _lookup(rng: random.Random) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "protocol": rng.choice((6, 17)),
        "remote_port": rng.randrange(1 << 16),
        "local_port": rng.randrange(1 << 16),
    }
    if rng.random() < 0.5:
        return fields | {"family": 2, "remote_ip4": rng.getrandbits(32), "local_ip4": rng.getrandbits(32)}
    return fields | {"family": 10, "local_ip6": rng.randbytes(16), "remote_ip6": rng.randbytes(16)}
