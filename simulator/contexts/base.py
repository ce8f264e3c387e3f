"""What a model of a context does, and how fields go into its bytes and out of them."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from simulator.machine import Machine
from simulator.packet import Input, InputRefused

if TYPE_CHECKING:
    from bpflisp.spec.contexts import Field, Struct

NO_FIELDS: Mapping[str, int] = {}


class Model(Protocol):
    """The context of one kind of program.

    `size` is the context's in bytes, 0 where it differs from run to run. `known` says what loads from the context give
    in every run without metadata: (address, size) -> (least, greatest).
    """

    @property
    def size(self) -> int:
        """Bytes of the context."""
        ...

    @property
    def known(self) -> Mapping[tuple[int, int], tuple[int, int]]:
        """Loads of which something is known."""
        ...

    def enter_packet(self, machine: Machine, packet: bytes) -> Sequence[int]:
        """The same as `enter` with nothing but a packet, for a run that is to be quick."""
        ...

    def enter(self, machine: Machine, given: Input) -> Sequence[int]:
        """Puts context and packet in place; what the run finds in r1 and on. InputRefused as the kernel refuses."""
        ...

    def leave(self, machine: Machine) -> tuple[bytes | None, Mapping[str, int]]:
        """The packet after the run, and the fields of the context that programs may write."""
        ...

    def packet_changed(self, machine: Machine) -> None:
        """Brings the context's pointers up to date after a helper changed the packet."""
        ...


def put(data: bytearray, field: Field, value: Any) -> None:
    """Writes a field: an int, bytes, or a sequence of ints for an array. InputRefused where it does not fit."""
    if isinstance(value, int):
        value = _one(field, int(value), field.element_size if field.element_size < field.size else field.size)
    elif not isinstance(value, bytes | bytearray):
        value = b"".join(_one(field, int(element), field.element_size) for element in value)
    if len(value) > field.size:
        raise InputRefused(errno.EINVAL, f"context field {field.name} has {field.size} bytes, not {len(value)}")
    data[field.offset : field.offset + len(value)] = value


def _one(field: Field, value: int, size: int) -> bytes:
    try:
        return value.to_bytes(size, "little", signed=value < 0)
    except OverflowError:
        raise InputRefused(errno.EINVAL, f"context field {field.name} has {size} bytes: {value} does not fit") from None


def known_field(struct: Struct, name: str) -> Field:
    """The field of this name, also "cb[2]" for an element. InputRefused with what there is where there is none."""
    field = struct.field(name)
    if field is None and name.endswith("]"):
        base, _, index = name[:-1].partition("[")
        array = struct.field(base)
        if array is not None and index.isdigit() and int(index) * array.element_size < array.size:
            from bpflisp.spec.contexts import Field

            size = array.element_size
            return Field(name, array.offset + int(index) * size, size, f"__u{size * 8}")
    if field is None:
        names = ", ".join(field.name for field in struct.fields)
        raise InputRefused(errno.EINVAL, f"{struct.name} has no field {name!r}; it has {names}")
    return field


def get(view: memoryview, field: Field) -> int:
    """A field's number; of an array, all its bytes as one little-endian number."""
    return int.from_bytes(view[field.offset : field.offset + field.size], "little")
