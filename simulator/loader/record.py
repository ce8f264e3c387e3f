"""A program from a record: one JSON object that says what reached BPF_PROG_LOAD.

The form is that of the corpus: `type`, `attach_type` (a number), `prog_flags`, `license`, `insns` (hex), `relocs`
([instruction, "map" | "map_value", index]), `maps`, `prog_btf`, `func_info`, `kfuncs`, `btf_ids`, `attach_btf_name`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from bpflisp.spec import maps as map_types
from bpflisp.spec import programs
from bpflisp.spec.btf import Btf, BtfError
from bpflisp.spec.insn import SLOT_SIZE
from bpflisp.spec.isa import LD_IMM64_OPCODE, PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE
from simulator.loader.errors import LoadError
from simulator.program import FuncInfo, MapDef, Program

UNUSED_MAP = MapDef(name="", type="")
"""Stands where a record has null for a map that the program does not use, so that the indexes of the others hold."""

_RELOCATED = MappingProxyType({"map": PSEUDO_MAP_IDX, "map_value": PSEUDO_MAP_IDX_VALUE})


class _Record:
    """One record while it is read; each method makes one part of the program."""

    def __init__(self, record: Mapping[str, Any], blobs: Mapping[str, bytes]) -> None:
        self.record = record
        self.name = str(record.get("id", "record"))
        self._blobs = blobs
        self._read: dict[str, Btf] = {}

    def error(self, problem: str, help: str = "") -> LoadError:
        return LoadError(self.name, problem, help=help)

    def btf(self, name: str | None) -> Btf | None:
        """The BTF of that name, parsed once; None where none is named."""
        if not name:
            return None
        if name not in self._read:
            if name not in self._blobs:
                raise self.error(f"BTF {name!r} is not among the {len(self._blobs)} given", "pass it in `btf`")
            try:
                self._read[name] = Btf(self._blobs[name])
            except BtfError as error:
                raise self.error(f"BTF {name!r}: {error}") from None
        return self._read[name]

    def maps(self) -> Sequence[MapDef]:
        """The map definitions; an inner map is the definition at the index that the record gives."""
        rows = self.record.get("maps") or []
        plain = [self._map(row) if row else UNUSED_MAP for row in rows]
        return [
            self._with_inner(plain[at], plain, row.get("inner")) if row else UNUSED_MAP for at, row in enumerate(rows)
        ]

    def _map(self, row: Mapping[str, Any]) -> MapDef:
        kind = map_types.by_number(row["type"])
        if kind is None:
            raise self.error(f"map {row['name']!r} has type {row['type']}, which no kernel that we know has")
        return MapDef(
            row["name"],
            kind.name,
            row["key_size"],
            row["value_size"],
            row["max_entries"],
            row["map_flags"],
            row.get("map_extra", 0),
            btf=self.btf(row.get("btf")),
            btf_key=row.get("btf_key", 0),
            btf_value=row.get("btf_value", 0),
            init=bytes.fromhex(row["init"]) if row.get("init") is not None else None,
            frozen=bool(row.get("frozen")),
        )

    def _with_inner(self, definition: MapDef, plain: Sequence[MapDef], inner: int | None) -> MapDef:
        if inner is None:
            return definition
        if not 0 <= inner < len(plain):
            raise self.error(f"map {definition.name!r} has inner map {inner}, of {len(plain)}")
        return replace(definition, inner=plain[inner])

    def insns(self) -> bytes:
        """The instructions, maps named by index. What the record's own bytes have in these fields is of no account."""
        code = bytearray.fromhex(self.record["insns"])
        count = len(self.record.get("maps") or [])
        for slot, kind, index in self.record.get("relocs") or []:
            at = slot * SLOT_SIZE
            if not 0 <= at <= len(code) - 2 * SLOT_SIZE or code[at] != LD_IMM64_OPCODE:
                raise self.error(f"relocation at instruction {slot}, which is no 64-bit load")
            if kind not in _RELOCATED or not 0 <= index < count:
                raise self.error(f"relocation {kind!r} {index} at instruction {slot}: there are {count} maps")
            code[at + 1] = code[at + 1] & 0x0F | _RELOCATED[kind] << 4
            struct.pack_into("<i", code, at + 4, index)
        return bytes(code)

    def func_info(self) -> Sequence[FuncInfo]:
        """Where functions start. Records longer than eight bytes say more than we know of, and it is left out."""
        data = bytes.fromhex(self.record.get("func_info") or "")
        size = self.record.get("func_info_rec_size") or 8
        if size < 8 or len(data) % size:
            raise self.error(f"func_info of {len(data)} bytes in records of {size}")
        return [FuncInfo(*struct.unpack_from("<II", data, at)) for at in range(0, len(data), size)]

    def attach_type(self) -> str:
        """The attach type's name; of a struct_ops program, the number of its member in decimal."""
        number = self.record.get("attach_type") or 0
        if self.record["type"] == "struct_ops":
            return str(number) if number else ""
        try:
            return programs.attach_name(number)
        except KeyError:
            raise self.error(f"attach type {number} is none that we know") from None

    def program(self) -> Program:
        record, maps = self.record, self.maps()
        return Program(
            self.insns(),
            record["type"],
            maps,
            record.get("license") or "",
            name=self.name.rsplit("/", 1)[-1],
            attach_type=self.attach_type(),
            attach_target=record.get("attach_btf_name") or "",
            flags=record.get("prog_flags") or 0,
            btf=self.btf(record.get("prog_btf")),
            func_info=self.func_info(),
            kfuncs={int(slot): name for slot, name in (record.get("kfuncs") or {}).items()},
            btf_ids={int(slot): name for slot, name in (record.get("btf_ids") or {}).items()},
        )


def program_from_record(record: Mapping[str, Any], btf: Mapping[str, bytes] = MappingProxyType({})) -> Program:
    """The program of one record; `btf` maps the names that it uses to BTF bytes. Raises LoadError."""
    reader = _Record(record, btf)
    try:
        return reader.program()
    except (KeyError, TypeError, AttributeError) as error:
        raise reader.error(f"the record is not of the form that is known: {error!r}") from None
    except LoadError:
        raise
    except ValueError as error:
        raise reader.error(f"the record does not read: {error}") from None
