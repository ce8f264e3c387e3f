"""The .BTF.ext section: where functions start, which line each instruction comes from, and CO-RE records.

Each record belongs to a section of the object and names an instruction by its byte offset there. Records may be
longer than what we know of them: the rest is skipped, as the format asks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from bpflisp.lean import dataclass, field
from bpflisp.spec.btf import MAGIC, VERSION, Btf, BtfError

_T = TypeVar("_T")

_HEADER: Final = struct.Struct("<HBBIIIII")
_CORE_FIELDS: Final = struct.Struct("<II")
_SECTION: Final = struct.Struct("<II")
_FUNC: Final = struct.Struct("<II")
_LINE: Final = struct.Struct("<IIII")
_CORE: Final = struct.Struct("<IIII")
_LINE_SHIFT: Final = 10
"""A line record keeps its line above, its column in the low ten bits."""


@dataclass(frozen=True, slots=True)
class FuncRecord:
    """A function starts at a byte offset of its section; `type` is the id of its FUNC."""

    offset: int
    type: int


@dataclass(frozen=True, slots=True)
class LineRecord:
    """From a byte offset of its section on, the code is that of a source line. Strings as offsets in the BTF."""

    offset: int
    file: int
    text: int
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class CoreRecord:
    """The instruction at a byte offset of its section depends on `type`: `access` as an offset of its string."""

    offset: int
    type: int
    access: int
    kind: int


@dataclass(frozen=True, slots=True)
class BtfExt:
    """The records of each section of an object, by the section's name."""

    funcs: Mapping[str, Sequence[FuncRecord]] = field(default_factory=dict)
    lines: Mapping[str, Sequence[LineRecord]] = field(default_factory=dict)
    core: Mapping[str, Sequence[CoreRecord]] = field(default_factory=dict)


def read_btf_ext(data: bytes, btf: Btf) -> BtfExt:
    """The records of a .BTF.ext section; `btf` has its strings. Raises BtfError where it is malformed."""
    if len(data) < _HEADER.size:
        raise BtfError(f".BTF.ext of {len(data)} bytes: shorter than its header of {_HEADER.size}")
    magic, version, _flags, header, func_at, func_size, line_at, line_size = _HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise BtfError(f".BTF.ext has magic 0x{magic:04x} and version {version}, not 0x{MAGIC:04x} and {VERSION}")
    if header < _HEADER.size:
        raise BtfError(f".BTF.ext header says it has {header} bytes: fewer than {_HEADER.size}")
    core_at = core_size = 0
    if header >= _HEADER.size + _CORE_FIELDS.size and len(data) >= header:
        core_at, core_size = _CORE_FIELDS.unpack_from(data, _HEADER.size)
    lines = {
        name: [_line(*values) for values in records]
        for name, records in _records(data, header + line_at, line_size, _LINE, btf, "line_info")
    }
    return BtfExt(
        {
            name: [FuncRecord(*values) for values in records]
            for name, records in _records(data, header + func_at, func_size, _FUNC, btf, "func_info")
        },
        lines,
        {
            name: [CoreRecord(*values) for values in records]
            for name, records in _records(data, header + core_at, core_size, _CORE, btf, "core_relo")
        },
    )


def _line(offset: int, file: int, text: int, place: int) -> LineRecord:
    return LineRecord(offset, file, text, place >> _LINE_SHIFT, place & ((1 << _LINE_SHIFT) - 1))


def _records(
    data: bytes, at: int, size: int, layout: struct.Struct, btf: Btf, what: str
) -> Iterator[tuple[str, list[tuple[int, ...]]]]:
    """The records of one of the three parts, section by section."""
    if not size:
        return
    end = at + size
    if size < 4 or end > len(data):
        raise BtfError(f".BTF.ext {what} [{at}, +{size}) ends after the section's {len(data)} bytes")
    (stride,) = struct.unpack_from("<I", data, at)
    if stride < layout.size or stride % 4:
        raise BtfError(f".BTF.ext {what} has records of {stride} bytes: at least {layout.size}, in fours")
    at += 4
    seen: dict[str, list[tuple[int, ...]]] = {}
    while at < end:
        if at + _SECTION.size > end:
            raise BtfError(f".BTF.ext {what} is cut off at byte {at}")
        name, count = _SECTION.unpack_from(data, at)
        at += _SECTION.size
        if not count or at + count * stride > end:
            raise BtfError(f".BTF.ext {what} says that {count} records of {stride} bytes are at byte {at}")
        records = seen.setdefault(btf.string(name), [])
        records += [layout.unpack_from(data, at + index * stride) for index in range(count)]
        at += count * stride
    yield from seen.items()


def encode_btf_ext(ext: BtfExt, string: Callable[[str], int]) -> bytes:
    """The bytes of a .BTF.ext section; `string` gives the offset of a section's name in the BTF's strings."""
    funcs = _encode_part(_FUNC.size, ext.funcs, lambda r: _FUNC.pack(r.offset, r.type), string)
    lines = _encode_part(
        _LINE.size,
        ext.lines,
        lambda r: _LINE.pack(r.offset, r.file, r.text, r.line << _LINE_SHIFT | min(r.column, (1 << _LINE_SHIFT) - 1)),
        string,
    )
    core = _encode_part(_CORE.size, ext.core, lambda r: _CORE.pack(r.offset, r.type, r.access, r.kind), string)
    size = _HEADER.size + _CORE_FIELDS.size
    header = _HEADER.pack(MAGIC, VERSION, 0, size, 0, len(funcs), len(funcs), len(lines))
    return header + _CORE_FIELDS.pack(len(funcs) + len(lines), len(core)) + funcs + lines + core


def _encode_part(
    stride: int, sections: Mapping[str, Sequence[_T]], encode: Callable[[_T], bytes], string: Callable[[str], int]
) -> bytes:
    used = {name: records for name, records in sections.items() if records}
    if not used:
        return b""
    parts = [struct.pack("<I", stride)]
    for name, records in used.items():
        parts.append(_SECTION.pack(string(name), len(records)))
        parts += [encode(record) for record in records]
    return b"".join(parts)
