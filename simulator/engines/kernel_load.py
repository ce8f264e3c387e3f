"""A Program into the running kernel: BTF and maps created, names resolved, instructions given file descriptors.

Invariant: a map of the program is created when an instruction names it, and not before; what the kernel answers, a log
or an errno, reaches the caller unchanged. Used by the engine `kernel` and by the tests' oracle.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from bpflisp.spec import maps as map_types
from bpflisp.spec import programs
from bpflisp.spec.btf import Btf, BtfKind, read_btf
from bpflisp.spec.insn import SLOT_SIZE, Insn
from bpflisp.spec.isa import (
    CALL_KFUNC,
    LD_IMM64_OPCODE,
    PSEUDO_BTF_ID,
    PSEUDO_MAP_FD,
    PSEUDO_MAP_IDX,
    PSEUDO_MAP_IDX_VALUE,
    PSEUDO_MAP_VALUE,
    Kind,
)
from simulator.engines import bpf_syscall
from simulator.engines.bpf_syscall import ENOTSUPP, BpfError, Handle, MapRequest, ProgramRequest

if TYPE_CHECKING:
    from simulator.program import MapDef, Program

KERNEL_BTF: Final = Path("/sys/kernel/btf/vmlinux")

# What a program attaches to: attach type -> (kind of type, what the kernel puts before the name).
_ATTACH_TARGETS: Final = MappingProxyType(
    {
        "trace_raw_tp": (BtfKind.TYPEDEF, "btf_trace_"),
        "trace_iter": (BtfKind.FUNC, "bpf_iter_"),
        "lsm_mac": (BtfKind.FUNC, "bpf_lsm_"),
        "lsm_cgroup": (BtfKind.FUNC, "bpf_lsm_"),
    }
)

# How an instruction names a map: by index in a Program -> by descriptor in the kernel.
_BY_DESCRIPTOR: Final = MappingProxyType({PSEUDO_MAP_IDX: PSEUDO_MAP_FD, PSEUDO_MAP_IDX_VALUE: PSEUDO_MAP_VALUE})

_MAP_IN_MAP: Final = ("array_of_maps", "hash_of_maps")
_ARENA_PAGE: Final = mmap.PAGESIZE


class NotInKernelError(LookupError):
    """The program names something that the running kernel has not: a kfunc, a variable, an attach target, a type."""


@cache
def kernel_btf() -> Btf:
    """The running kernel's BTF, read once a process. Raises NotInKernelError where there is none."""
    if not KERNEL_BTF.exists():
        raise NotInKernelError(f"{KERNEL_BTF} is not there: the kernel was built without BTF")
    return read_btf(KERNEL_BTF)


@dataclass
class Resources:
    """What a program holds in the kernel; closing it lets go of all of it.

    `maps` has a handle for each map of the program that was created, by its index in `Program.maps`.
    """

    maps: dict[int, Handle] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)
    btf: dict[bytes, Handle] = field(default_factory=dict)
    unsupported: set[bytes] = field(default_factory=set)
    """BTF that this kernel does not take."""

    def __enter__(self) -> Resources:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes every descriptor and mapping."""
        self.maps.clear()
        self.btf.clear()
        self.stack.close()

    def keep(self, handle: Handle) -> Handle:
        """Closes `handle` when everything else is closed."""
        return self.stack.enter_context(handle)

    def btf_fd(self, data: bytes) -> int:
        """The descriptor of this BTF, loaded once; 0 where it has what this kernel does not support.

        BTF is then left out, as libbpf does: GCC's has encodings that the kernel refuses.
        """
        if data in self.unsupported:
            return 0
        if data not in self.btf:
            try:
                self.btf[data] = self.keep(bpf_syscall.btf_load(data))
            except BpfError as error:
                if error.errno != ENOTSUPP:
                    raise
                self.unsupported.add(data)
                return 0
        return self.btf[data].fd


def _map_type(name: str) -> int:
    found = map_types.by_name(name)
    if found is None:
        raise NotInKernelError(f"map type {name!r} is none that is known")
    return found.number


def _program_type(name: str) -> int:
    found = programs.by_name(name)
    if found is None:
        raise NotInKernelError(f"program type {name!r} is none that is known")
    return found.number


def _attach_type(name: str) -> int:
    """The number of an attach type; digits are a number already: the member of a struct_ops type."""
    if name.isdigit():
        return int(name)
    try:
        return programs.attach_number(name)
    except KeyError:
        raise NotInKernelError(f"attach type {name!r} is none that is known") from None


def _entries(kind: str) -> int:
    """How many entries a map of this type gets that names none: a perf event array, one a CPU, as libbpf does."""
    return bpf_syscall.possible_cpus() if kind == "perf_event_array" else 0


def create_map(definition: MapDef, kit: Resources) -> Handle:
    """Creates a map, with its first contents, frozen where it is. Raises BpfError."""
    inner_fd = 0
    if definition.type in _MAP_IN_MAP and definition.inner is not None:
        inner_fd = create_map(definition.inner, kit).fd
    btf_fd = 0
    if definition.btf is not None and (definition.btf_key or definition.btf_value):
        btf_fd = kit.btf_fd(definition.btf.data)
    request = MapRequest(
        type=_map_type(definition.type),
        key_size=definition.key_size,
        value_size=definition.value_size,
        max_entries=definition.max_entries or _entries(definition.type),
        flags=definition.flags,
        name=definition.name,
        inner_fd=inner_fd,
        btf_fd=btf_fd,
        btf_key=definition.btf_key if btf_fd else 0,
        btf_value=definition.btf_value if btf_fd else 0,
        extra=definition.extra,
    )
    handle = kit.keep(_create(request))
    if definition.type == "arena":
        _map_arena(handle, definition, kit)
    elif definition.init is not None:
        bpf_syscall.map_update(handle.fd, bytes(4), definition.init.ljust(definition.value_size, b"\0"))
    if definition.frozen:
        bpf_syscall.map_freeze(handle.fd)
    return handle


def _map_arena(handle: Handle, definition: MapDef, kit: Resources) -> None:
    """Maps an arena: the verifier wants to know where user space sees it, and its variables are written there."""
    size = definition.max_entries * _ARENA_PAGE
    if definition.extra:
        if definition.init:
            kit.stack.callback(bpf_syscall.map_mmap_at(handle.fd, definition.extra, size, definition.init))
        return
    window = bpf_syscall.map_mmap(handle.fd, size, writable=True)
    kit.stack.callback(window.close)
    if definition.init:
        window[: len(definition.init)] = definition.init


def _create(request: MapRequest) -> Handle:
    """Creates the map; where the kernel does not take its types, without them, as libbpf does."""
    try:
        return bpf_syscall.map_create(request)
    except BpfError:
        if not request.btf_fd:
            raise
    return bpf_syscall.map_create(replace(request, btf_fd=0, btf_key=0, btf_value=0))


def maps_named(program: Program) -> list[int]:
    """The indices of the maps that instructions of the program name, in ascending order; not of places kept empty."""
    loads = (insn for insn in program.code if insn and insn.opcode == LD_IMM64_OPCODE)
    named = {insn.imm for insn in loads if insn.src in _BY_DESCRIPTOR}
    return sorted(index for index in named if 0 <= index < len(program.maps) and program.maps[index].type)


def kernel_insns(program: Program, descriptors: Mapping[int, int], *, lenient: bool = False) -> bytes:
    """The instructions as BPF_PROG_LOAD takes them: descriptors for map indices, this kernel's ids for names.

    A name that the kernel has not raises NotInKernelError; `lenient` leaves the immediate as it is instead, and the
    verifier to judge that. Only the fields that change are written: the rest may be no instruction at all.
    """
    code = bytearray(program.insns)
    for slot, insn in enumerate(program.code):
        if insn is None:
            continue
        if insn.opcode == LD_IMM64_OPCODE and insn.src in _BY_DESCRIPTOR and insn.imm in descriptors:
            code[slot * SLOT_SIZE + 1] = insn.dst | _BY_DESCRIPTOR[insn.src] << 4
            struct.pack_into("<i", code, slot * SLOT_SIZE + 4, descriptors[insn.imm])
            continue
        number = _named_id(insn, slot, program, lenient=lenient)
        if number is not None:
            struct.pack_into("<i", code, slot * SLOT_SIZE + 4, number)
    return bytes(code)


def _named_id(insn: Insn, slot: int, program: Program, *, lenient: bool) -> int | None:
    """This kernel's id of the kfunc or variable that the instruction names; None where it names none."""
    if insn.row.kind is Kind.CALL and insn.src == CALL_KFUNC:
        kind, name, what = BtfKind.FUNC, program.kfuncs.get(slot), "kfunc"
    elif insn.opcode == LD_IMM64_OPCODE and insn.src == PSEUDO_BTF_ID:
        kind, name, what = BtfKind.VAR, program.btf_ids.get(slot), "variable"
    else:
        return None
    if not name or (lenient and kernel_btf().find(name, kind) is None):
        return None
    return _id_of(kind, name, what)


def _id_of(kind: BtfKind, name: str, what: str) -> int:
    number = kernel_btf().find(name, kind)
    if number is None:
        raise NotInKernelError(f"the running kernel has no {what} {name!r}")
    return number


def attach_btf_id(program: Program) -> int:
    """The kernel's id of what a tracing, LSM or struct_ops program attaches to; 0 for a program that names nothing."""
    name = program.attach_target
    if not name:
        return 0
    if program.type == "struct_ops":
        return _id_of(BtfKind.STRUCT, name, "type")
    kind, prefix = _ATTACH_TARGETS.get(program.attach_type, (BtfKind.FUNC, ""))
    return _id_of(kind, prefix + name.removeprefix(prefix), "attach target")


def _with_strings(data: bytes, texts: Sequence[str]) -> tuple[bytes, dict[str, int]]:
    """BTF in which every text has an offset in the string section, and those offsets.

    Line information names its file and text by such offsets; a text that the section lacks is put at its end.
    """
    header_size, _, _, str_off, str_len = struct.unpack_from("<IIIII", data, 4)
    start = header_size + str_off
    strings, offsets = data[start : start + str_len], {}
    for text in dict.fromkeys(texts):
        wanted = text.encode() + b"\0"
        at = 0 if not text else strings.find(b"\0" + wanted) + 1
        if text and not at:
            at = len(strings)
            strings += wanted
        offsets[text] = at
    grown = bytearray(data[:start] + strings)
    struct.pack_into("<I", grown, 20, len(strings))
    return bytes(grown), offsets


def _with_debug_info(request: ProgramRequest, program: Program, kit: Resources) -> ProgramRequest:
    """The request with the program's BTF, and the functions and lines that it describes."""
    if program.btf is None:
        return request
    lines = program.line_info
    data, offsets = _with_strings(program.btf.data, [text for line in lines for text in (line.file, line.text)])
    func_info = b"".join(struct.pack("<II", info.insn, info.type_id) for info in program.func_info)
    line_info = b"".join(
        struct.pack("<IIII", line.insn, offsets[line.file], offsets[line.text], line.line << 10 | line.column & 1023)
        for line in lines
    )
    descriptor = kit.btf_fd(data)
    return replace(request, btf_fd=descriptor, func_info=func_info, line_info=line_info) if descriptor else request


def program_request(program: Program, kit: Resources, *, lenient: bool = False) -> ProgramRequest:
    """Everything that BPF_PROG_LOAD needs; creates the maps that the program names and that `kit` has not yet.

    `lenient` is for the oracle: see `kernel_insns`.
    """
    for index in maps_named(program):
        if index not in kit.maps:
            kit.maps[index] = create_map(program.maps[index], kit)
    descriptors = {index: handle.fd for index, handle in kit.maps.items()}
    request = ProgramRequest(
        type=_program_type(program.type),
        insns=kernel_insns(program, descriptors, lenient=lenient),
        license=program.license,
        name=program.name,
        flags=program.flags,
        attach_type=_attach_type(program.attach_type),
        attach_btf_id=attach_btf_id(program),
    )
    return _with_debug_info(request, program, kit)
