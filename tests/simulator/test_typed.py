"""Keys and values by BTF: written in any form that fits, read as what compares with it; structs as classes."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from simulator import World, load
from tests.plugin.objects import ROOT

OBJECT = load(ROOT / "fixtures" / "typed" / "typed.bpf.o")
PEERS = load(ROOT / "fixtures" / "typed" / "addresses.bpf.o")
FIELDS: dict[str, Any] = {
    "src": "10.0.0.1",
    "dport": 80,
    "mac": "02:00:00:00:00:01",
    "name": "eth0",
    "size": 9,
    "verdict": "DENY",
    "low": 5,
    "high": 3,
    "pair": [{"a": 1}, {"b": 2}],
}


@pytest.fixture
def world() -> World:
    return World(OBJECT, cpus=3)


def test_a_struct_is_a_class() -> None:
    flow = OBJECT.types.flow
    value = flow(**FIELDS)
    assert (flow.__name__, flow.size, flow.fields[:2]) == ("flow", 48, ("src", "dst"))
    assert (value.src, value.mac, value.name, str(value.name)) == ("10.0.0.1", FIELDS["mac"], "eth0", "eth0")
    assert (value.dport, value.size, value.verdict, value.low, value.high) == (80, 9, 7, 5, 3)
    assert value.pair[1] == {"a": 0, "b": 2}
    assert value.src == ipaddress.IPv4Address("10.0.0.1")
    assert value.src != "10.0.0.2"
    assert flow.from_bytes(bytes(value)) == value
    assert value.replace(dport=81).dport == 81
    assert bytes(flow()) == bytes(flow.size)


def test_a_struct_is_a_key_and_a_value(world: World) -> None:
    flow = OBJECT.types.flow
    key = flow(**FIELDS)
    world.maps.flows[key] = 7
    assert world.maps.flows[FIELDS] == 7
    assert dict(world.maps.flows.items()) == {key: 7}
    (found,) = world.maps.flows
    assert found.mac == FIELDS["mac"]
    world.maps.hosts["10.0.0.9"] = key
    assert world.maps.hosts[ipaddress.ip_address("10.0.0.9")] == FIELDS | {"dst": 0, "sport": 0} | {
        "pair": [{"a": 1, "b": 0}, {"a": 0, "b": 2}],
        "verdict": 7,
    }
    assert list(world.maps.hosts) == ["10.0.0.9"]


def test_addresses_of_devices_and_names_of_enums(world: World) -> None:
    world.maps.macs["02:00:00:00:00:07"] = "DENY"
    assert world.maps.macs["02-00-00-00-00-07"] == 7
    (key,) = world.maps.macs
    assert key == "02:00:00:00:00:07"
    assert key == bytes.fromhex("020000000007")


def test_addresses_of_ipv6_in_each_form_that_programs_keep_them_in() -> None:
    world, address = World(PEERS), ipaddress.ip_address("2001:db8::7")
    world.maps.peers["2001:db8::7"] = {"addr": "2001:db8::7", "words": address, "routers": ["10.0.0.1", 0]}
    (found,) = world.maps.peers.values()
    (key,) = world.maps.peers
    for value in (key, found.addr, found.words):
        assert value == "2001:db8:0::7"
        assert value == address
        assert value != "2001:db8::8"
    assert found.words == [0xB80D0120, 0, 0, 0x07000000]
    assert found.addr.in6_u.u6_addr8 == address
    assert found.routers == ["10.0.0.1", "0.0.0.0"]


def test_a_signed_field_of_bits() -> None:
    peer = PEERS.types.peer
    for number in range(-4, 4):
        assert peer(below=number, rest=-number).below == number
        assert peer(below=number, rest=-number).rest == -number
    assert peer(below=7).below == -1  # the same bits
    assert OBJECT.types.flow(low=-1).low == 7


def test_what_is_shown_is_what_may_be_given() -> None:
    peer = PEERS.types.peer
    value = peer(addr="::1", routers=["10.0.0.1", 0], mac="02:00:00:00:00:01", name="eth0")
    shown = repr(value)
    flow = OBJECT.types.flow
    assert repr(flow(src="10.0.0.1", name="x")).startswith("flow(src='10.0.0.1', dst='0.0.0.0', sport=0, dport=0, ")
    taken = {"mac": "02:00:00:00:00:01", "name": "eth0", "addr": "::1"}
    assert all(f"{name}={text!r}" in shown for name, text in taken.items())
    assert peer(**taken) == value.replace(routers=[0, 0])


@pytest.mark.parametrize(
    ("name", "prefixes", "inside", "best"),
    [
        ("v4", ["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0"], "10.1.2.3", 1),
        ("v6", ["2001:db8::/32", "2001:db8:1::/48"], "2001:db8:1::7", 1),
    ],
)
def test_prefixes_are_networks(world: World, name: str, prefixes: list[str], inside: str, best: int) -> None:
    trie = world.maps[name]
    for number, prefix in enumerate(prefixes):
        trie[prefix] = number
    assert set(trie) == {ipaddress.ip_network(prefix) for prefix in prefixes}
    assert trie[inside] == best
    assert trie[ipaddress.ip_address(inside)] == best
    assert trie[ipaddress.ip_network(prefixes[0])] == 0
    del trie[prefixes[best]]
    assert trie[inside] == 0


def test_the_program_finds_the_prefix() -> None:
    assert OBJECT["typed"](bytes(14), maps={"v4": {"10.1.0.0/16": 1}}) == 1


def test_each_cpu_has_a_value(world: World) -> None:
    world.maps.counts[0] = [{"dport": number} for number in range(3)]
    assert [value.dport for value in world.maps.counts[0]] == [0, 1, 2]


BAD = {
    "w.maps.hosts['10.0.0.300'] = {}": "ValueError: the key of map hosts: '10.0.0.300' does not fit in 4 bytes",
    "w.maps.hosts['10.0.0.1'] = {'dprt': 1}": "ValueError: the value of map hosts: flow has no field 'dprt'; it has",
    "o.types.flow(low=8)": "ValueError: field low: 8 does not fit in 3 bits",
    "o.types.flow(low=-5)": "ValueError: field low: -5 does not fit in 3 bits",
    "o.types.flow(pair=[{'a': 1}, {'b': 70000}])": "ValueError: field pair: field b: 70000 does not fit in 2 bytes",
    "o.types.flow(low='x')": "ValueError: field low: 'x' does not fit in 4 bytes",
    "o.types.flow(low=1.5)": "TypeError: field low: 1.5 is no value of type",
    "w.maps.hosts['10.0.0.1'] = {'dport': 70000}": "the value of map hosts: field dport: 70000 does not fit in 2 bytes",
    "w.maps.hosts['10.0.0.1'] = {'name': 'a' * 11}": "does not fit in 10 bytes",
    "w.maps.macs['02:00:00:00:00:07'] = 'DENIED'": "verdict has no 'DENIED'; it has ALLOW, DENY",
    "w.maps.v4['10.0.0.0/33'] = 1": "ValueError: the key of map v4: '10.0.0.0/33' is no prefix of addresses",
    "w.maps.v4['2001:db8::/32'] = 1": "ValueError: the key of map v4: 2001:db8::/32 has 16 bytes, not 4",
    "w.maps.counts[0] = [1]": "ValueError: map counts: 1 values for 3 CPUs",
    "w.maps.flws": "AttributeError: no map 'flws' in this world; did you mean flows?",
    "w.maps['host']": "KeyError: \"no map 'host' in this world; did you mean hosts?\"",
    "o.types.flo": "AttributeError: no struct 'flo' in *; did you mean flow",
    "o.types.flow(dprt=1)": "ValueError: flow has no field 'dprt'",
    "o.types.flow.from_bytes(b'')": "ValueError: flow has 48 bytes, and there are 0",
}


@pytest.mark.parametrize("code", BAD)
def test_what_does_not_fit_is_told(world: World, code: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)) as caught:
        exec(code, {"w": world, "o": OBJECT})
    told = f"{type(caught.value).__name__}: {caught.value}"
    for part in BAD[code].split("*"):
        assert part in told


def test_a_lisp_struct_is_a_class_too() -> None:
    obj = load(ROOT / "fixtures" / "programs" / "event_logger" / "program.lisp")
    connection = obj.types.connection
    assert connection(length=40).length == 40
    assert issubclass(connection, type(connection(length=1)))
