"""Keys and values of maps as Python's own: int, str, bytes, dict, by BTF where the map has it."""

from __future__ import annotations

import ipaddress
from typing import Any

from simulator.maps import values
from simulator.maps.base import Map, round_up


def to_key(of: Map, key: Any) -> bytes:
    """The bytes of a key. A string for 4 or 16 bytes without BTF types is an address in network order; a prefix or an
    address, as text or an object of `ipaddress`, is the key of a trie of addresses."""
    if of.definition.type == "lpm_trie" and isinstance(key, _PREFIXES):
        return _prefix(of, key)
    return encode(of, key, of.definition.btf_key, of.definition.key_size, "key")


def from_key(of: Map, key: bytes) -> Any:
    """What a key's bytes mean. Of a trie of addresses it is an `ip_network`."""
    if of.definition.type == "lpm_trie" and len(key) in (8, 20):
        length = int.from_bytes(key[:4], "little")
        if length <= 8 * (len(key) - 4):
            return ipaddress.ip_network((key[4:], length), strict=False)
    return decode(of, key, of.definition.btf_key)


_PREFIXES = (
    str,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
)


def _prefix(of: Map, key: Any) -> bytes:
    try:
        found = ipaddress.ip_network(key, strict=False)
    except ValueError:
        raise ValueError(f"the key of map {of.name}: {key!r} is no prefix of addresses, such as 10.0.0.0/8") from None
    packed = found.network_address.packed
    if len(packed) != of.definition.key_size - 4:
        raise ValueError(f"the key of map {of.name}: {key} has {len(packed)} bytes, not {of.definition.key_size - 4}")
    return found.prefixlen.to_bytes(4, "little") + packed


def to_value(of: Map, value: Any) -> bytes:
    """The bytes of a value; for a per-CPU map, of a list with a value for each CPU, or of one value for all."""
    made = of.definition
    if isinstance(value, bytes | bytearray) and len(value) == of.user_value_size:
        return bytes(value)
    if not of.per_cpu:
        return encode(of, value, made.btf_value, made.value_size, "value")
    each = value if isinstance(value, list | tuple) else [value] * of.cpus
    if len(each) != of.cpus:
        raise ValueError(f"map {of.name}: {len(each)} values for {of.cpus} CPUs")
    stride = round_up(made.value_size, 8)
    return b"".join(encode(of, one, made.btf_value, made.value_size, "value").ljust(stride, b"\0") for one in each)


def from_value(of: Map, value: bytes) -> Any:
    """What a value's bytes mean; for a per-CPU map a list with one of each CPU."""
    made = of.definition
    if not of.per_cpu:
        return decode(of, value, made.btf_value)
    stride = round_up(made.value_size, 8)
    starts = range(0, len(value), stride)
    return [decode(of, value[at : at + made.value_size], made.btf_value) for at in starts]


def encode(of: Map, value: Any, type_id: int, size: int, what: str) -> bytes:
    """`value` as `size` bytes. TypeError or ValueError says what does not fit."""
    if isinstance(value, bytes | bytearray) and len(value) == size:
        return bytes(value)
    btf = of.definition.btf
    if btf is not None and type_id:
        try:
            return values.encode(btf, type_id, value, size)
        except (TypeError, ValueError) as error:
            raise type(error)(f"the {what} of map {of.name}: {error}") from None
    if isinstance(value, bytes | bytearray):
        raise ValueError(f"map {of.name}: a {what} has {size} bytes, not {len(value)}")
    if isinstance(value, int):
        return _integer(of, int(value), size, what)
    if isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address) and len(value.packed) == size:
        return value.packed
    if isinstance(value, str) and size in (4, 6, 16):
        packed = values.packed_address(value, size)
        if packed is None:
            raise ValueError(f"the {what} of map {of.name}: {value!r} is no address of {size} bytes")
        return packed
    raise TypeError(f"map {of.name}: {value!r} is no {what} of {size} bytes")


def decode(of: Map, data: bytes, type_id: int) -> Any:
    """What the bytes mean: an int for up to eight bytes without BTF, else bytes."""
    btf = of.definition.btf
    if btf is not None and type_id:
        return values.decode(btf, type_id, data)
    if len(data) in (1, 2, 4, 8):
        return int.from_bytes(data, "little")
    return data


def _integer(of: Map, value: int, size: int, what: str) -> bytes:
    try:
        return value.to_bytes(size, "little", signed=value < 0)
    except OverflowError:
        raise ValueError(f"map {of.name}: {value} does not fit in a {what} of {size} bytes") from None
