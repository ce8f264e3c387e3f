"""The BTF of an object as the kernel takes it.

A compiler leaves the sizes of data sections and the offsets of their variables to the loader, and externs as what no
kernel knows. As libbpf does, they are filled in and turned into variables; ids and names stay what they are.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from bpflisp.spec import elf
from bpflisp.spec.btf import (
    HEADER,
    LARGEST_SIZE,
    LINKAGE_EXTERN,
    LINKAGE_GLOBAL,
    LINKAGE_STATIC,
    Btf,
    BtfError,
    BtfKind,
    BtfVariable,
)
from bpflisp.spec.elf_read import ElfSymbol
from simulator.loader.object_file import ObjectFile

EXTERN_SECTIONS = frozenset({".kconfig", ".ksyms"})
_DUMMY = "dummy_ksym"
_TYPE_HEADER = 12
_INT_SIZE = 4


class _Patch:
    """The bytes of a BTF while they are changed in place; new types and strings go to the ends."""

    def __init__(self, btf: Btf) -> None:
        self.btf = btf
        self.data = bytearray(btf.data)
        self.new_types = bytearray()
        self.new_strings = bytearray()
        self.strings_end: int = HEADER.unpack_from(btf.data)[7]

    def word(self, type_id: int, index: int, value: int) -> None:
        """Sets a word of a type: 0 to 2 are its header's. Raises BtfError for a number that no word holds."""
        if not 0 <= value <= LARGEST_SIZE:
            raise BtfError(f"BTF type {type_id} would have to hold {value}")
        struct.pack_into("<I", self.data, self.btf.position(type_id) + 4 * index, value)

    def linkage(self, type_id: int, linkage: int) -> None:
        """Sets the linkage of a FUNC or VAR."""
        if self.btf.type(type_id).kind is BtfKind.FUNC:
            self.word(type_id, 1, BtfKind.FUNC << 24 | linkage)
        else:
            self.word(type_id, 3, linkage)

    def variables(self, datasec: int, variables: list[BtfVariable], size: int) -> None:
        """Sets a data section's size and its variables, which are put in order."""
        self.word(datasec, 2, size)
        for at, variable in enumerate(sorted(variables, key=lambda variable: variable.offset)):
            for field, value in enumerate((variable.type, variable.offset, variable.size)):
                self.word(datasec, 3 + 3 * at + field, value)

    def append(self, *words: int) -> int:
        """A new type, and its id."""
        count = len(self.btf) + self._appended
        self._appended += 1
        self.new_types += struct.pack(f"<{len(words)}I", *words)
        return count

    _appended = 0

    def string(self, text: str) -> int:
        """A new string, and its offset."""
        offset = self.strings_end + len(self.new_strings)
        self.new_strings += text.encode() + b"\0"
        return offset

    def result(self) -> Btf:
        """The changed BTF: types and strings are laid out anew where some were added."""
        if not self.new_types and not self.new_strings:
            return Btf(bytes(self.data))
        magic, version, flags, header, type_at, type_size, string_at, string_size = HEADER.unpack_from(self.data)
        types = self.data[header + type_at : header + type_at + type_size] + self.new_types
        strings = self.data[header + string_at : header + string_at + string_size] + self.new_strings
        head = HEADER.pack(magic, version, flags, HEADER.size, 0, len(types), len(types), len(strings))
        return Btf(bytes(head + types + strings))


def kernel_ready(file: ObjectFile, extern_offsets: Mapping[str, int]) -> Btf | None:
    """The object's BTF with sizes, offsets and externs filled in; None where it has none.

    `extern_offsets` says where in the .kconfig map each kconfig extern lies. Raises LoadError.
    """
    if file.btf is None:
        return None
    try:
        patch = _Patch(file.btf)
        symbols = {symbol.name: symbol for symbol in file.symbols if symbol.bind != elf.STB_LOCAL}
        for datasec in file.btf.of_kind(BtfKind.DATASEC):
            name = file.btf.type(datasec).name
            if name == ".ksyms":
                _turn_ksyms_into_variables(patch, datasec)
            elif name == ".kconfig":
                _place_kconfig(patch, datasec, extern_offsets)
            else:
                _fill_in(file, patch, datasec, symbols)
        _hide_functions(patch, symbols)
        return patch.result()
    except BtfError as error:
        raise file.error(str(error), ".BTF") from None


def _fill_in(file: ObjectFile, patch: _Patch, datasec: int, symbols: Mapping[str, ElfSymbol]) -> None:
    """Size and offsets of one data section. A static variable has its offset already; others have their symbol's."""
    btf = patch.btf
    found = btf.type(datasec)
    section = file.image.section(found.name)
    size = found.size or (section.size if section else 0)
    variables = []
    for variable in btf.variables(datasec):
        declared = btf.type(variable.type)
        symbol = symbols.get(declared.name)
        offset = variable.offset
        if declared.kind is BtfKind.VAR and symbol and btf.linkage(variable.type) == LINKAGE_GLOBAL:
            if not found.size:
                offset = symbol.value & 0xFFFFFFFF
            if symbol.hidden:
                patch.linkage(variable.type, LINKAGE_STATIC)
        variables.append(BtfVariable(variable.type, offset, variable.size))
    patch.variables(datasec, variables, min(size, 0xFFFFFFFF))


def _place_kconfig(patch: _Patch, datasec: int, offsets: Mapping[str, int]) -> None:
    btf = patch.btf
    variables = []
    for variable in btf.variables(datasec):
        name = btf.type(variable.type).name
        variables.append(BtfVariable(variable.type, offsets.get(name, variable.offset), variable.size))
        patch.linkage(variable.type, LINKAGE_GLOBAL)
    patch.variables(datasec, variables, max((variable.offset + variable.size for variable in variables), default=0))


def _turn_ksyms_into_variables(patch: _Patch, datasec: int) -> None:
    """The kernel takes no extern: each becomes an int variable, a function a global one beside a variable for it."""
    btf = patch.btf
    integer = _an_int(patch)
    dummy = dummy_name = 0
    variables = []
    for at, variable in enumerate(btf.variables(datasec)):
        entry = variable.type
        if btf.type(entry).kind is BtfKind.FUNC:
            if not dummy:
                dummy_name = patch.string(_DUMMY)
                dummy = patch.append(dummy_name, BtfKind.VAR << 24, integer, LINKAGE_GLOBAL)
            patch.linkage(entry, LINKAGE_GLOBAL)
            _name_params(patch, btf.func_proto(entry), dummy_name)
            entry = dummy
        else:
            patch.linkage(entry, LINKAGE_GLOBAL)
            patch.word(entry, 2, integer)
        variables.append(BtfVariable(entry, _INT_SIZE * at, _INT_SIZE))
    patch.variables(datasec, variables, _INT_SIZE * len(variables))


def _name_params(patch: _Patch, proto: int, name: int) -> None:
    """A global function's parameters need names."""
    for at, param in enumerate(patch.btf.params(proto)):
        if param.type and not param.name:
            patch.word(proto, 3 + 2 * at, name)


def _an_int(patch: _Patch) -> int:
    """The id of a plain four-byte integer, added where there is none."""
    btf = patch.btf
    for type_id in btf.of_kind(BtfKind.INT):
        integer = btf.integer(type_id)
        if btf.type(type_id).size == _INT_SIZE and integer.bits == 8 * _INT_SIZE and integer.encoding in (0, 1):
            return type_id
    return patch.append(patch.string("int"), BtfKind.INT << 24, _INT_SIZE, 1 << 24 | 8 * _INT_SIZE)


def _hide_functions(patch: _Patch, symbols: Mapping[str, ElfSymbol]) -> None:
    """A global function of hidden visibility counts as static: the verifier then sees it with its callers."""
    btf = patch.btf
    for type_id in btf.of_kind(BtfKind.FUNC):
        symbol = symbols.get(btf.type(type_id).name)
        if symbol and symbol.hidden and btf.linkage(type_id) != LINKAGE_EXTERN:
            patch.linkage(type_id, LINKAGE_STATIC)
