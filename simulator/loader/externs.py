"""Externs of an object: values of the kernel's configuration, kernel variables, kernel functions.

Their values come from who loads the object, for loading reads nothing of the host. A strong extern that nobody gives
a value is an error that says what to pass; a weak one is 0, as on a kernel that does not have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Final

from bpflisp.lean import dataclass
from bpflisp.spec import elf
from bpflisp.spec.btf import ENUMS, INT_BOOL, INT_SIGNED, Btf, BtfError, BtfKind
from simulator.loader.object_file import ObjectFile

KconfigValue = int | bool | str
"""A value of the kernel's configuration: a number, a truth, "y", "n" or "m", or a text."""

DEFAULTS: Final[Mapping[str, KconfigValue]] = MappingProxyType(
    {"LINUX_KERNEL_VERSION": 6 << 16 | 18 << 8 | 44, "LINUX_HAS_BPF_COOKIE": 1, "LINUX_HAS_SYSCALL_WRAPPER": 1}
)
"""What libbpf itself makes up, as it is on kernel 6.18.44 for x86-64. Whoever loads may say otherwise."""

_LARGEST_KCONFIG = 4096
_TRISTATE = MappingProxyType({"n": 0, "y": 1, "m": 2, False: 0, True: 1})


class ExternKind(Enum):
    """What stands in the place of an extern."""

    KCONFIG = "kconfig"  # an offset in the .kconfig map
    ADDRESS = "address"  # a number: an untyped kernel symbol, or an absent weak one
    TYPED = "typed"  # a variable or function of the kernel's BTF, by name
    ABSENT = "absent"  # a weak function that the kernel does not have


@dataclass(frozen=True, slots=True)
class Extern:
    """One extern: its name in the kernel, and the offset or address that it stands for."""

    name: str
    kind: ExternKind
    value: int = 0


@dataclass(frozen=True, slots=True)
class Externs:
    """The externs of an object by the index of their symbol; the .kconfig section's bytes and variable offsets.

    They are in libbpf's order, configuration first: an absent function's call is numbered by it.
    """

    by_symbol: Mapping[int, Extern]
    kconfig: bytes
    offsets: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Declared:
    symbol: int
    name: str
    type: int
    section: str
    weak: bool


def essential_name(name: str) -> str:
    """A name without its flavour: "task_struct___old" is `task_struct`."""
    for at in range(len(name) - 5, -1, -1):
        if name[at] != "_" and name[at + 1 : at + 4] == "___" and name[at + 4] != "_":
            return name[: at + 1]
    return name


def resolve_externs(
    file: ObjectFile, kconfig: Mapping[str, KconfigValue], ksyms: Mapping[str, int], kernel: Btf | None
) -> Externs:
    """What each extern of the object stands for. Raises LoadError for a strong one that is not given."""
    try:
        declared = _collect(file)
        resolver = _Resolver(file, kconfig, ksyms, kernel)
        configured = {extern.name: extern for extern in declared if extern.section == ".kconfig"}
        data, offsets = resolver.lay_out(list(configured.values()))
        by_symbol = {
            configured[name].symbol: Extern(name, ExternKind.KCONFIG, offset) for name, offset in offsets.items()
        }
        for extern in sorted(declared, key=lambda extern: extern.name):
            if extern.section == ".ksyms":
                by_symbol[extern.symbol] = resolver.ksym(extern)
    except BtfError as error:
        raise file.error(f"an extern's type: {error}", ".BTF") from None
    return Externs(by_symbol, data, offsets)


def _collect(file: ObjectFile) -> Sequence[_Declared]:
    """The extern symbols with what BTF says of them."""
    symbols = [symbol for symbol in file.symbols if symbol.is_extern and symbol.name]
    if not symbols:
        return []
    btf = file.btf
    sections: dict[str, tuple[int, str]] = {}
    for datasec in btf.of_kind(BtfKind.DATASEC) if btf else ():
        assert btf is not None
        for variable in btf.variables(datasec):
            sections[btf.type(variable.type).name] = (variable.type, btf.type(datasec).name)
    found = []
    for symbol in symbols:
        type_id, section = sections.get(symbol.name, (0, ""))
        if section not in (".kconfig", ".ksyms"):
            raise file.error(
                f"extern {symbol.name!r} is declared neither __ksym nor __kconfig",
                because="nothing says where its value would come from",
                help="define it in this object, or compile with -g and declare it with one of these",
            )
        found.append(_Declared(symbol.index, symbol.name, type_id, section, symbol.bind == elf.STB_WEAK))
    return found


class _Resolver:
    def __init__(
        self, file: ObjectFile, kconfig: Mapping[str, KconfigValue], ksyms: Mapping[str, int], kernel: Btf | None
    ) -> None:
        assert file.btf is not None or not any(symbol.is_extern and symbol.name for symbol in file.symbols)
        self.file, self.ksyms, self.kernel = file, ksyms, kernel
        self.kconfig = {**DEFAULTS, **kconfig}

    @property
    def btf(self) -> Btf:
        assert self.file.btf is not None
        return self.file.btf

    # -- kernel symbols -----------------------------------------------------------------------------------------------

    def ksym(self, extern: _Declared) -> Extern:
        """A variable without a type is an address; one with a type, and a function, is found by name in the kernel."""
        name = essential_name(extern.name)
        declared = self.btf.type(extern.type)
        if declared.kind is BtfKind.FUNC:
            return self._function(extern, name)
        if self.btf.resolve(declared.target) == 0:
            return self._address(extern)
        known = self.kernel.find(name, BtfKind.VAR) is not None if self.kernel else None
        if known or extern.name in self.ksyms or (known is None and not extern.weak):
            return Extern(name, ExternKind.TYPED)
        if extern.weak:
            return Extern(name, ExternKind.ADDRESS, 0)
        raise self.file.error(f"the kernel's BTF has no variable {name!r}", because="the extern is not weak")

    def _address(self, extern: _Declared) -> Extern:
        if extern.name not in self.ksyms and not extern.weak:
            raise self.file.error(
                f"kernel symbol {extern.name!r} has no address",
                because="the extern is not weak, and loading reads nothing of this host",
                help=f"load(..., ksyms={{{extern.name!r}: 0xffffffff81000000}})",
            )
        return Extern(extern.name, ExternKind.ADDRESS, self.ksyms.get(extern.name, 0) & 0xFFFFFFFFFFFFFFFF)

    def _function(self, extern: _Declared, name: str) -> Extern:
        if self.kernel is not None:
            present = self.kernel.find(name, BtfKind.FUNC) is not None
        else:
            from bpflisp.spec import kfuncs

            present = kfuncs.by_name(name) is not None or not extern.weak
        if present or extern.name in self.ksyms:
            return Extern(name, ExternKind.TYPED)
        if extern.weak:
            return Extern(name, ExternKind.ABSENT)
        raise self.file.error(f"the kernel's BTF has no function {name!r}", because="the extern is not weak")

    # -- configuration ------------------------------------------------------------------------------------------------

    def lay_out(self, externs: Sequence[_Declared]) -> tuple[bytes, Mapping[str, int]]:
        """The bytes of .kconfig and where each extern lies: by alignment, then size, then name, as libbpf has it."""
        placed = [(self._alignment(self._type(extern)), self.btf.size_of(extern.type), extern) for extern in externs]
        placed.sort(key=lambda entry: (-entry[0], entry[1], entry[2].name))
        data, offsets = bytearray(), {}
        for alignment, size, extern in placed:
            if not 0 < size <= _LARGEST_KCONFIG:
                raise self.file.error(f"kconfig extern {extern.name!r} has {size} bytes: 1 to {_LARGEST_KCONFIG}")
            data += bytes(-len(data) % alignment)
            offsets[extern.name] = len(data)
            data += self._configured(extern, size)
        return bytes(data), offsets

    def _type(self, extern: _Declared) -> int:
        return self.btf.resolve(self.btf.type(extern.type).target)

    def _alignment(self, type_id: int) -> int:
        found = self.btf.type(self.btf.resolve(type_id))
        if found.kind is BtfKind.ARRAY:
            return self._alignment(self.btf.array(found.id).element) if self.btf.size_of(found.id) else 1
        return min(max(found.size, 1), 8)

    def _configured(self, extern: _Declared, size: int) -> bytes:
        """The bytes of one value, checked against the extern's type."""
        if extern.name not in self.kconfig:
            if extern.weak:
                return bytes(size)
            raise self.file.error(
                f"kconfig extern {extern.name!r} has no value",
                because="the extern is not weak, and loading reads nothing of this host",
                help=f"load(..., kconfig={{{extern.name!r}: ...}}), with a number, 'y', 'n', 'm' or a text",
            )
        value = self.kconfig[extern.name]
        found = self.btf.type(self._type(extern))
        if found.kind is BtfKind.ARRAY and isinstance(value, str):
            return value.encode()[: max(size - 1, 0)].ljust(size, b"\0")
        if found.kind in ENUMS and found.name == "libbpf_tristate" and value in _TRISTATE:
            return _TRISTATE[value].to_bytes(size, "little")
        if found.kind is BtfKind.INT:
            number = self._number(extern, value, size)
            if number is not None:
                return number.to_bytes(size, "little", signed=number < 0)
        raise self.file.error(f"kconfig extern {extern.name!r} cannot be {value!r}: it is a {found.kind.name}")

    def _number(self, extern: _Declared, value: KconfigValue, size: int) -> int | None:
        """The number to store; None where the value does not fit the integer type."""
        encoding = self.btf.integer(self._type(extern)).encoding
        if isinstance(value, str):
            if encoding & INT_BOOL and value in ("y", "n"):
                return int(value == "y")
            return ord(value) if size == 1 and value in ("y", "n", "m") else None
        signed = bool(encoding & INT_SIGNED)
        low, high = (-(1 << 8 * size - 1), 1 << 8 * size - 1) if signed else (0, 1 << 8 * size)
        if encoding & INT_BOOL:
            high = 2
        return int(value) if low <= value < high else None
