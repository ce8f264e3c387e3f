"""The host's side of a struct, at compile time: `make-NAME-record`, `NAME-record-FIELD`, `encode-NAME`, `decode-NAME`.

A macro may so compute the bytes of a map's key or of a global's first value. Bytes are vectors of numbers, little
endian; a member that is an array is a vector of numbers, one that is a struct its bytes.
"""

from __future__ import annotations

from collections.abc import Callable

from bpflisp.front.types import ArrayOf, Number, Struct
from bpflisp.front.unit import Unit
from bpflisp.lean import dataclass
from bpflisp.syntax.data import keywords_of, sequence
from bpflisp.syntax.forms import elements, intern, text


@dataclass(slots=True, eq=False)
class Record:
    """A struct's members by upper-case name: numbers, or vectors of them."""

    struct: Struct
    values: dict[str, object]


def define_records(unit: Unit, struct: Struct) -> None:
    """Make the functions of a struct known to the evaluator."""
    functions: dict[str, Callable[..., object]] = {
        f"MAKE-{struct.name}-RECORD": lambda *given: _make(struct, given),
        f"ENCODE-{struct.name}": lambda record: list(encode(_checked(record, struct))),
        f"DECODE-{struct.name}": lambda data, offset=0: decode(struct, bytes(sequence(data)[offset:])),
        **{f"{struct.name}-RECORD-{member}": _reader(struct, member) for member in struct.fields},
    }
    for name, function in functions.items():
        unit.interpreter.functions.setdefault(intern(name), function)
    for member in struct.fields:
        unit.interpreter.writers[intern(f"{struct.name}-RECORD-{member}")] = _writer(struct, member)


def _reader(struct: Struct, member: str) -> Callable[[object], object]:
    return lambda record: _checked(record, struct).values[member]


def _writer(struct: Struct, member: str) -> Callable[[object, object], object]:
    def write(new: object, record: object) -> object:
        _checked(record, struct).values[member] = new
        return new

    return write


def _checked(record: object, struct: Struct) -> Record:
    if not isinstance(record, Record) or record.struct is not struct:
        raise TypeError(f"this is no record of the struct {struct.name.lower()}")
    return record


def _make(struct: Struct, given: tuple[object, ...]) -> Record:
    options = keywords_of(given)
    unknown = [name for name in options if name not in struct.fields]
    if unknown:
        raise TypeError(f"the struct {struct.name.lower()} has no member {unknown[0].lower()}")
    record = decode(struct, bytes(struct.size))
    record.values |= options
    return record


def encode(record: Record) -> bytes:
    """The bytes of a record."""
    data = bytearray(record.struct.size)
    for name, field in record.struct.fields.items():
        piece = _bytes(field.type, record.values[name])
        data[field.offset : field.offset + len(piece)] = piece
    return bytes(data)


def _bytes(kind: Number | ArrayOf | Struct, value: object) -> bytes:
    if isinstance(kind, Number):
        if not isinstance(value, int) or not kind.holds(value):
            raise TypeError(f"{text(value, 40)} does not fit into a {kind.name}")
        return (value & ((1 << kind.bits) - 1)).to_bytes(kind.size, "little")
    items = [ord(char) for char in value] if isinstance(value, str) else _items(value)
    element = kind.element if isinstance(kind, ArrayOf) else Number(8)
    if isinstance(element, Struct):
        element = Number(8)
    data = b"".join(_bytes(element, item) for item in items)
    if len(data) > kind.size:
        raise TypeError(f"{len(data)} bytes do not fit into {kind.size}")
    return data.ljust(kind.size, b"\0")


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else elements(value)


def decode(struct: Struct, data: bytes) -> Record:
    """The record that lies in bytes."""
    if len(data) < struct.size:
        raise ValueError(f"{len(data)} bytes are no {struct.name.lower()}, which has {struct.size}")
    values = {name: _value(field.type, data[field.offset :]) for name, field in struct.fields.items()}
    return Record(struct, values)


def _value(kind: Number | ArrayOf | Struct, data: bytes) -> object:
    if isinstance(kind, Number):
        return int.from_bytes(data[: kind.size], "little", signed=kind.signed)
    if isinstance(kind, ArrayOf) and not isinstance(kind.element, Struct):
        size = kind.element.size
        return [_value(kind.element, data[at * size :]) for at in range(kind.count)]
    return list(data[: kind.size])
