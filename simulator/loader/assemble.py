"""A whole program of a function: the subprograms that it reaches behind it, and every relocation resolved.

Subprograms are appended in the order in which calls first meet them, each followed by what it calls in turn: this is
libbpf's order, and with it the kernel gets the same bytes from us.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TypeVar

from bpflisp.lean import dataclass, field
from bpflisp.spec.btf import LINKAGE_GLOBAL, Btf, BtfError, BtfKind
from bpflisp.spec.btf_ext import FuncRecord, LineRecord
from bpflisp.spec.elf_read import ElfRelocation
from bpflisp.spec.insn import SLOT_SIZE
from bpflisp.spec.isa import (
    CALL_CODE,
    CALL_KFUNC,
    CALL_SUBPROGRAM,
    JMP,
    LD_IMM64_OPCODE,
    PSEUDO_BTF_ID,
    PSEUDO_FUNC,
    PSEUDO_MAP_IDX,
    PSEUDO_MAP_IDX_VALUE,
)
from simulator.loader.externs import ExternKind, Externs
from simulator.loader.maps import MapTable
from simulator.loader.object_file import Function, ObjectFile, is_text
from simulator.program import FuncInfo, LineInfo

ABSENT_KFUNC_CALL = 2002000000
"""The helper number, no kernel's, from which calls of absent weak kernel functions are counted."""

MOST_SLOTS = 1_000_000
"""Slots that the kernel takes in one program."""

_R = TypeVar("_R", FuncRecord, LineRecord)
_offset = attrgetter("offset")
_CALL = JMP | CALL_CODE
_INSN = struct.Struct("<BBhi")
_EXCEPTION_CALLBACK = "exception_callback:"


@dataclass(slots=True)
class Assembly:
    """A program while its parts are put together."""

    code: bytearray = field(default_factory=bytearray)
    func_info: list[FuncInfo] = field(default_factory=list)
    line_info: list[LineInfo] = field(default_factory=list)
    kfuncs: dict[int, str] = field(default_factory=dict)
    btf_ids: dict[int, str] = field(default_factory=dict)


class Assembler:
    """Puts the programs of one object together. Raises LoadError where a relocation cannot be."""

    def __init__(self, file: ObjectFile, btf: Btf | None, maps: MapTable, externs: Externs) -> None:
        self.file, self.btf, self.maps, self.externs = file, btf, maps, externs
        self._strings: dict[int, str] = {}
        self._funcs: dict[str, list[FuncRecord]] = {}
        self._lines: dict[str, list[LineRecord]] = {}
        self._callbacks = self._exception_callbacks()
        self._budget = 4 * MOST_SLOTS

    def program(self, main: Function) -> Assembly:
        """The program that starts with a function."""
        made = Assembly()
        placed: dict[Function, int] = {}
        # Each entry is a function that is being walked, with the calls of it that are still to be met.
        walks = [self._append(made, placed, main)]
        while walks:
            target = next(walks[-1], None)
            if target is None:
                walks.pop()
            elif target not in placed:
                walks.append(self._append(made, placed, target))
            if not walks and main.name in self._callbacks:
                callback = self._callbacks.pop(main.name)
                if callback not in placed:
                    walks.append(self._append(made, placed, callback))
        self._link_calls(made, placed)
        self._check_info(made, placed)
        return made

    def _append(self, made: Assembly, placed: dict[Function, int], function: Function) -> Iterator[Function]:
        """Adds a function's code and records behind what is there; what it calls comes out, call by call."""
        start = len(made.code) // SLOT_SIZE
        self._budget -= function.slots
        if start + function.slots > MOST_SLOTS or self._budget < 0:
            raise self.file.error(f"{function.name!r} makes the program longer than {MOST_SLOTS} instructions")
        placed[function] = start
        made.code += function.code
        self._add_info(made, function, start)
        self._resolve_data(made, function, start)
        return self._calls(function)

    # -- calls --------------------------------------------------------------------------------------------------------

    def _calls(self, function: Function) -> Iterator[Function]:
        for slot in function.references:
            target = self._target(function, slot)
            if target is not None:
                yield target

    def _target(self, function: Function, slot: int) -> Function | None:
        """The function that an instruction calls or takes the address of; None for any other instruction."""
        opcode, registers, _, imm = _INSN.unpack_from(function.code, slot * SLOT_SIZE)
        relocation = function.relocations.get(slot)
        is_call = opcode == _CALL and registers == CALL_SUBPROGRAM << 4
        if not is_call and not self._is_address(function, slot, registers >> 4, relocation):
            return None
        if relocation is None:
            section, offset = function.section.index, function.offset + SLOT_SIZE * (slot + imm + 1)
        else:
            symbol = self.file.symbols[relocation.symbol]
            if symbol.is_extern:
                return None
            section = symbol.section
            offset = symbol.value + (SLOT_SIZE * (imm + 1) if is_call else imm)
        found = self.file.function_at(section, offset)
        if found is None:
            raise self._error(
                function, slot, "a call of what is no function of this object",
                help="declare it __ksym if the kernel has it, or link the objects first (bpftool gen object)",
            )  # fmt: skip
        return found

    def _is_address(self, function: Function, slot: int, source: int, relocation: ElfRelocation | None) -> bool:
        """Whether an instruction loads the address of a function of this object: a relocation against code says so."""
        if function.code[slot * SLOT_SIZE] != LD_IMM64_OPCODE:
            return False
        if relocation is None:
            if source == PSEUDO_FUNC:
                raise self._error(function, slot, "the address of a function without a relocation")
            return False
        return self.file.symbols[relocation.symbol].section in self.file.functions

    def _link_calls(self, made: Assembly, placed: Mapping[Function, int]) -> None:
        """Sets the distance of every call, now that every function has its place."""
        for function, start in placed.items():
            for slot in function.references:
                target = self._target(function, slot)
                if target is not None:
                    at = (start + slot) * SLOT_SIZE
                    if made.code[at] == LD_IMM64_OPCODE:
                        made.code[at + 1] = made.code[at + 1] & 0x0F | PSEUDO_FUNC << 4
                    struct.pack_into("<i", made.code, at + 4, placed[target] - (start + slot) - 1)

    def _exception_callbacks(self) -> dict[str, Function]:
        """Program -> the function that handles its exceptions, from declaration tags."""
        found: dict[str, Function] = {}
        if self.btf is None:
            return found
        text = [each for each in self.file.functions if is_text(self.file.image.sections[each].name)]
        by_name = {function.name: function for each in text for function in self.file.functions[each]}
        for tag in self.btf.of_kind(BtfKind.DECL_TAG):
            declared = self.btf.type(tag)
            if declared.name.startswith(_EXCEPTION_CALLBACK):
                owner = self.btf.type(declared.target)
                function = by_name.get(declared.name.removeprefix(_EXCEPTION_CALLBACK))
                if function and owner.kind is BtfKind.FUNC and owner.vlen == LINKAGE_GLOBAL:
                    found[owner.name] = function
        return found

    # -- data ---------------------------------------------------------------------------------------------------------

    def _resolve_data(self, made: Assembly, function: Function, start: int) -> None:
        """The relocations that are no calls of functions of this object."""
        for slot, relocation in function.relocations.items():
            at = (start + slot) * SLOT_SIZE
            opcode, registers, _, imm = _INSN.unpack_from(made.code, at)
            symbol = self.file.symbols[relocation.symbol]
            if opcode not in (_CALL, LD_IMM64_OPCODE):
                raise self._error(function, slot, f"a relocation against {symbol.name!r} at opcode 0x{opcode:02x}")
            if symbol.is_extern:
                self._resolve_extern(made, function, slot, relocation, start)
            elif opcode == _CALL:
                if registers != CALL_SUBPROGRAM << 4:
                    raise self._error(function, slot, f"a call of {symbol.name!r} that is none of a function")
            elif symbol.section not in self.file.functions:
                self._resolve_map(made, function, slot, start, relocation, imm)

    def _resolve_map(
        self, made: Assembly, function: Function, slot: int, start: int, relocation: ElfRelocation, imm: int
    ) -> None:
        symbol = self.file.symbols[relocation.symbol]
        data = self.maps.data.get(symbol.section)
        if data is not None:
            offset = imm + symbol.value
            self._load(made, function, slot, start, PSEUDO_MAP_IDX_VALUE, data, offset)
            return
        declared = self.maps.declared.get((symbol.section, symbol.value))
        if declared is None:
            where = self.file.image.sections[symbol.section].name if self._has_section(symbol.section) else "no section"
            raise self._error(
                function, slot, f"a relocation against {symbol.name!r} in {where!r}, which is no map and no data",
                help="maps go into .maps, data into .data, .rodata or .bss, functions into .text",
            )  # fmt: skip
        self._load(made, function, slot, start, PSEUDO_MAP_IDX, declared, 0)

    def _has_section(self, index: int) -> bool:
        return index < len(self.file.image.sections)

    def _load(
        self, made: Assembly, function: Function, slot: int, start: int, source: int, low: int, high: int
    ) -> None:
        """Writes a 64-bit load: its source register's meaning and both halves of its immediate."""
        at = (start + slot) * SLOT_SIZE
        if slot + 1 >= function.slots or made.code[at + SLOT_SIZE] != 0:
            raise self._error(function, slot, "a 64-bit load without its second half")
        made.code[at + 1] = made.code[at + 1] & 0x0F | source << 4
        struct.pack_into("<I", made.code, at + 4, low & 0xFFFFFFFF)
        struct.pack_into("<I", made.code, at + 12, high & 0xFFFFFFFF)

    def _resolve_extern(
        self, made: Assembly, function: Function, slot: int, relocation: ElfRelocation, start: int
    ) -> None:
        extern = self.externs.by_symbol.get(relocation.symbol)
        name = self.file.symbols[relocation.symbol].name
        if extern is None:
            raise self._error(function, slot, f"a relocation against {name!r}, which is not declared")
        at = (start + slot) * SLOT_SIZE
        if made.code[at] == _CALL:
            if extern.kind is ExternKind.TYPED:
                made.kfuncs[start + slot] = extern.name
                _INSN.pack_into(made.code, at, _CALL, CALL_KFUNC << 4, 0, 0)
            else:
                index = list(self.externs.by_symbol).index(relocation.symbol)
                _INSN.pack_into(made.code, at, _CALL, 0, 0, ABSENT_KFUNC_CALL + index)
        elif extern.kind is ExternKind.KCONFIG:
            self._load(made, function, slot, start, PSEUDO_MAP_IDX_VALUE, self.maps.kconfig, extern.value)
        elif extern.kind is ExternKind.TYPED:
            made.btf_ids[start + slot] = extern.name
            self._load(made, function, slot, start, PSEUDO_BTF_ID, 0, 0)
        else:
            self._load(made, function, slot, start, 0, extern.value, extern.value >> 32)

    # -- records ------------------------------------------------------------------------------------------------------

    def _add_info(self, made: Assembly, function: Function, start: int) -> None:
        """The function's records, moved to where it is; where the program has none, its subprograms' are left out."""
        funcs = self._within(self._funcs, self.file.ext.funcs, function)
        lines = self._within(self._lines, self.file.ext.lines, function)
        moved = start - function.offset // SLOT_SIZE
        if start == 0 or made.func_info:
            made.func_info += [FuncInfo(record.offset // SLOT_SIZE + moved, record.type) for record in funcs]
        if start == 0 or made.line_info:
            made.line_info += [
                LineInfo(
                    record.offset // SLOT_SIZE + moved, self._string(record.file), self._string(record.text),
                    record.line, record.column,
                )
                for record in lines
            ]  # fmt: skip

    def _within(
        self, known: dict[str, list[_R]], records: Mapping[str, Sequence[_R]], function: Function
    ) -> Sequence[_R]:
        """The records of a function's own instructions; `known` keeps those of its section in order."""
        section = function.section.name
        if section not in known:
            known[section] = sorted(records.get(section, ()), key=_offset)
        of_section = known[section]
        first = bisect_left(of_section, function.offset, key=_offset)
        return of_section[first : bisect_left(of_section, function.offset + len(function.code), key=_offset)]

    def _string(self, offset: int) -> str:
        if offset not in self._strings:
            try:
                self._strings[offset] = self.file.btf.string(offset, 4096) if self.file.btf else ""
            except BtfError as error:
                raise self.file.error(str(error), ".BTF.ext") from None
        return self._strings[offset]

    def _check_info(self, made: Assembly, placed: Mapping[Function, int]) -> None:
        """The kernel wants a record at the start of every function, or none at all."""
        for what, starts in (
            ("function", {record.insn for record in made.func_info}),
            ("line", {record.insn for record in made.line_info}),
        ):
            missing = [function.name for function, start in placed.items() if start not in starts]
            if starts and missing:
                raise self.file.error(f"{missing[0]!r} has no {what} information, and its callers have", ".BTF.ext")

    def _error(self, function: Function, slot: int, problem: str, help: str = "") -> Exception:
        where = function.offset + SLOT_SIZE * slot
        problem = f"{function.name!r}, instruction {slot}: {problem}"
        return self.file.error(problem, function.section.name, where, help=help)
