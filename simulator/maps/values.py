"""Bytes as Python values by their BTF type, and back: int, bool, float, str, bytes, list, and Record for a struct."""

from __future__ import annotations

import ipaddress
import re
import struct as packing
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from bpflisp.spec.btf import Btf, BtfKind, BtfMember

_FLOATS = {4: "<f", 8: "<d"}


class Record(Mapping[str, Any]):
    """A struct's value: its fields as attributes or items. It is a copy: assign a whole value to change the map.

    Equal to a mapping that has the same fields.
    """

    __slots__ = ("_fields", "_name")

    def __init__(self, name: str, fields: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_fields", MappingProxyType(dict(fields)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._fields[name]
        except KeyError:
            known = ", ".join(self._fields)
            raise AttributeError(f"{self._name or 'the struct'} has no field {name!r}; it has {known}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a record is a copy: assign a whole value to the map, with another {name!r}")

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Record):
            return dict(self._fields) == dict(other._fields)
        return isinstance(other, Mapping) and dict(self._fields) == dict(other)

    def __hash__(self) -> int:
        return hash(tuple(self._fields))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={shown(value)}" for name, value in self._fields.items())
        return f"{self._name or 'struct'}({inside})"


class Address6(Record):
    """A struct in6_addr: equal also to the IPv6 address that it is."""

    __slots__ = ("_packed",)

    def __init__(self, name: str, fields: Mapping[str, Any], packed: bytes) -> None:
        super().__init__(name, fields)
        object.__setattr__(self, "_packed", packed)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str | ipaddress.IPv6Address):
            return bool(packed_address(str(other), 16) == self._packed)
        return Record.__eq__(self, other)

    def __hash__(self) -> int:
        return super().__hash__()

    def __str__(self) -> str:
        """The address."""
        return str(ipaddress.IPv6Address(self._packed))


class Words(list[int]):
    """Four words of 32 bits: equal also to an IPv6 address, which programs keep so."""

    __slots__ = ()
    __hash__ = None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str | ipaddress.IPv6Address):
            return packed_address(str(other), 16) == b"".join(word.to_bytes(4, "little") for word in self)
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other


class Octets(bytes):
    """An array of bytes. Equal to bytes; to a text that ends at its first zero; to a MAC or IP address as text."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ipaddress.IPv4Address | ipaddress.IPv6Address):
            return bytes.__eq__(self, other.packed)
        if isinstance(other, str):
            packed = packed_address(other, len(self))
            return bytes.__eq__(self, packed) if packed is not None else self.split(b"\0", 1)[0] == other.encode()
        return bytes.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return bytes.__hash__(self)

    def __str__(self) -> str:
        """The text up to the first zero."""
        return self.split(b"\0", 1)[0].decode(errors="replace")


class Address(int):
    """A number that BTF says is in network order and has 32 bits: equal also to the IPv4 address that it is."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str | ipaddress.IPv4Address):
            return str(self) == str(other)
        return int.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return int.__hash__(self)

    def __str__(self) -> str:
        """The address."""
        return str(ipaddress.IPv4Address(self.to_bytes(4, "little")))


def shown(value: Any) -> str:
    """A value as failures show it, in a form that the map or the struct takes as well: addresses and texts as such."""
    if isinstance(value, Address | Address6):
        return repr(str(value))
    if not isinstance(value, Octets):
        return repr(value)
    text = value.rstrip(b"\0")
    if text and all(32 <= each < 127 for each in text):
        return repr(text.decode())
    return repr(value.hex(":")) if len(value) == _MAC_SIZE else repr(bytes(value))


def packed_address(text: str, size: int) -> bytes | None:
    """The bytes, in network order, of an IP or MAC address of this size; None where the text is none."""
    if size == _MAC_SIZE and _MAC.fullmatch(text):
        return bytes.fromhex(text.replace(":", "").replace("-", ""))
    if size not in (4, 16):
        return None
    try:
        packed = ipaddress.ip_address(text).packed
    except ValueError:
        return None
    return packed if len(packed) == size else None


_MAC_SIZE = 6
_MAC = re.compile(r"[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){5}")


def _is_address(btf: Btf, type_id: int) -> bool:
    """Whether one of the names of a type is __be32."""
    found = btf.type(type_id)
    while found.kind is not BtfKind.INT:
        if found.name == "__be32":
            return True
        if found.kind not in (BtfKind.TYPEDEF, BtfKind.CONST, BtfKind.VOLATILE):
            return False
        found = btf.type(found.target)
    return False


def decode(btf: Btf, type_id: int, data: bytes) -> Any:
    """What bytes of a type mean: bytes again for an array of them, and for a type that BTF cannot tell."""
    named, type_id = type_id, btf.resolve(type_id)
    found = btf.type(type_id)
    match found.kind:
        case BtfKind.INT:
            number = int.from_bytes(data, "little", signed=btf.integer(type_id).signed)
            return Address(number) if len(data) == 4 and named != type_id and _is_address(btf, named) else number
        case BtfKind.ENUM | BtfKind.ENUM64:
            return int.from_bytes(data, "little", signed=found.flag)
        case BtfKind.PTR:
            return int.from_bytes(data, "little")
        case BtfKind.FLOAT if len(data) in _FLOATS:
            return packing.unpack(_FLOATS[len(data)], data)[0]
        case BtfKind.STRUCT | BtfKind.UNION:
            members = {member.name: _member(btf, member, data) for member in named_members(btf, type_id)}
            if found.name == "in6_addr" and len(data) == 16:
                return Address6(found.name, members, data)
            return Record(found.name, members)
        case BtfKind.ARRAY:
            return _decode_array(btf, type_id, data)
        case _:
            return data


def named_members(btf: Btf, type_id: int, offset: int = 0) -> Iterator[BtfMember]:
    """The members with names; of unnamed structs and unions inside theirs."""
    for member in btf.members(type_id):
        moved = BtfMember(member.name, member.type, member.bit_offset + offset, member.bits)
        if member.name:
            yield moved
        elif btf.type(btf.resolve(member.type)).kind in (BtfKind.STRUCT, BtfKind.UNION):
            yield from named_members(btf, btf.resolve(member.type), moved.bit_offset)


def _member(btf: Btf, member: BtfMember, data: bytes) -> Any:
    if member.bits:
        number = int.from_bytes(data, "little") >> member.bit_offset & ((1 << member.bits) - 1)
        return number - (1 << member.bits) if _is_signed(btf, member) and number >> member.bits - 1 else number
    start = member.bit_offset // 8
    return decode(btf, member.type, data[start : start + btf.size_of(member.type)])


def _is_signed(btf: Btf, member: BtfMember) -> bool:
    type_id = btf.resolve(member.type)
    found = btf.type(type_id)
    if found.kind is BtfKind.INT:
        return btf.integer(type_id).signed
    return found.kind in (BtfKind.ENUM, BtfKind.ENUM64) and found.flag


def _decode_array(btf: Btf, type_id: int, data: bytes) -> Any:
    array = btf.array(type_id)
    element = btf.resolve(array.element)
    size = btf.size_of(element)
    if size == 1 and btf.type(element).kind is BtfKind.INT:
        return Octets(data)
    found = [decode(btf, array.element, data[at : at + size]) for at in range(0, size * array.count, size)]
    return Words(found) if (size, array.count) == (4, 4) and btf.type(element).kind is BtfKind.INT else found


def encode(btf: Btf, type_id: int, value: Any, size: int) -> bytes:
    """A value as the bytes of a type. TypeError or ValueError says what does not fit."""
    type_id = btf.resolve(type_id)
    kind = btf.type(type_id).kind
    if isinstance(value, bytes | bytearray):
        if len(value) > size or (len(value) < size and kind is not BtfKind.ARRAY):
            raise ValueError(f"{size} bytes are wanted, not {len(value)}")
        return bytes(value).ljust(size, b"\0")
    if isinstance(value, float) and kind is BtfKind.FLOAT:
        return packing.pack(_FLOATS[size], value)
    if isinstance(value, int):
        return _encode_number(btf, type_id, int(value), size)
    if isinstance(value, Mapping) and kind in (BtfKind.STRUCT, BtfKind.UNION):
        return _encode_struct(btf, type_id, value, size)
    if isinstance(value, str):
        return _encode_text(btf, type_id, value, size)
    if isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address) and len(value.packed) == size:
        return value.packed
    if isinstance(value, Sequence) and kind is BtfKind.ARRAY:
        return _encode_array(btf, type_id, value, size)
    raise TypeError(f"{value!r} is no value of type {btf.type(type_id).name or kind.name.lower()}")


def _encode_number(btf: Btf, type_id: int, value: int, size: int) -> bytes:
    found = btf.type(type_id)
    if found.kind in (BtfKind.STRUCT, BtfKind.UNION):
        members = btf.members(type_id)
        if len(members) != 1:
            raise TypeError(f"{found.name or 'a struct'} has {len(members)} fields: give a mapping, not {value}")
        return encode(btf, members[0].type, value, btf.size_of(members[0].type)).ljust(size, b"\0")
    try:
        return value.to_bytes(size, "little", signed=value < 0)
    except OverflowError:
        raise ValueError(f"{value} does not fit in {size} bytes") from None


def _encode_struct(btf: Btf, type_id: int, value: Mapping[str, Any], size: int) -> bytes:
    data = bytearray(size)
    members = {member.name: member for member in named_members(btf, type_id)}
    for name, field in value.items():
        if name not in members:
            raise ValueError(f"{btf.type(type_id).name} has no field {name!r}; it has {', '.join(members)}")
        try:
            _put_member(btf, members[name], field, data)
        except (TypeError, ValueError) as error:
            raise type(error)(f"field {name}: {error}") from None
    return bytes(data)


def _put_member(btf: Btf, member: BtfMember, value: Any, data: bytearray) -> None:
    if not member.bits:
        start, length = member.bit_offset // 8, btf.size_of(member.type)
        data[start : start + length] = encode(btf, member.type, value, length)
        return
    number = int.from_bytes(encode(btf, member.type, value, btf.size_of(member.type)), "little")
    mask = (1 << member.bits) - 1
    if not -(mask + 1) // 2 <= (value if isinstance(value, int) else number) <= mask:
        raise ValueError(f"{value!r} does not fit in {member.bits} bits")
    whole = int.from_bytes(data, "little") & ~(mask << member.bit_offset) | (number & mask) << member.bit_offset
    data[:] = whole.to_bytes(len(data), "little")


def _encode_text(btf: Btf, type_id: int, value: str, size: int) -> bytes:
    """An address, in network order, for what has an address's size; text for an array of bytes; an enum's name."""
    packed, kind = packed_address(value, size), btf.type(type_id).kind
    if packed is not None:
        return packed
    if kind in (BtfKind.ENUM, BtfKind.ENUM64):
        names = dict(btf.enumerators(type_id))
        if value not in names:
            raise ValueError(f"{btf.type(type_id).name or 'the enum'} has no {value!r}; it has {', '.join(names)}")
        return _encode_number(btf, type_id, names[value], size)
    data = value.encode()
    if kind is not BtfKind.ARRAY or btf.size_of(btf.array(type_id).element) != 1 or len(data) > size:
        raise ValueError(f"{value!r} does not fit in {size} bytes")
    return data.ljust(size, b"\0")


def _encode_array(btf: Btf, type_id: int, value: Sequence[Any], size: int) -> bytes:
    array = btf.array(type_id)
    if len(value) != array.count:
        raise ValueError(f"{array.count} elements are wanted, not {len(value)}")
    length = btf.size_of(array.element)
    return b"".join(encode(btf, array.element, element, length) for element in value)
