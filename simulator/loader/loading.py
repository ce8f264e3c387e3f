"""From a file to an Object: the order of the steps, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bpflisp.spec import elf, programs
from bpflisp.spec.btf import Btf, BtfError, BtfKind
from bpflisp.spec.elf_read import ElfError, ElfImage
from bpflisp.spec.insn import SLOT_SIZE
from simulator.loader.assemble import Assembler
from simulator.loader.errors import LoadError
from simulator.loader.externs import Externs, KconfigValue, resolve_externs
from simulator.loader.fixup import kernel_ready
from simulator.loader.maps import MapTable, data_map, is_legacy, load_maps, struct_ops_members
from simulator.loader.object_file import TEXT, Function, ObjectFile, is_text
from simulator.loader.settings import Settings, apply_settings, without_size
from simulator.observers import tell_loaded
from simulator.program import MapDef, Object, Program

_NONE: Mapping[str, int] = MappingProxyType({})

# What the kernel puts before the name of a target, by attach type.
_TARGET_PREFIX = MappingProxyType(
    {"trace_raw_tp": "btf_trace_", "lsm_mac": "bpf_lsm_", "lsm_cgroup": "bpf_lsm_", "trace_iter": "bpf_iter_"}
)


def load(
    source: str | Path | bytes,
    *,
    kconfig: Mapping[str, KconfigValue] = _NONE,
    ksyms: Mapping[str, int] = _NONE,
    kernel_btf: str | Path | bytes | Btf | None = None,
    variables: Mapping[str, Any] = _NONE,
    max_entries: Mapping[str, int] = _NONE,
    type: str = "",
    name: str = "",
) -> Object:
    """The programs and maps of an object file, or of a `.lisp` source, which is compiled on the way.

    `source` is a path, or the bytes of an ELF object made by any compiler. `kconfig` and `ksyms` give externs their
    values. `kernel_btf` is what CO-RE records are resolved against, a path or bytes; without it the object's own BTF
    is, and `Object.notes` says so. `variables` are set as user space does before it loads an object: name of a variable
    in `.rodata`, `.data` or `.bss` -> its value, given as a map's values are; `max_entries` sizes maps by name. `type`
    is the program type of sections whose name tells none. `name` stands for the file's name where bytes are given; data
    maps are called after it. Raises LoadError, OSError where a file cannot be read, and the compiler's CompileError.
    """
    data, path = _read(source, name)
    file = ObjectFile(data, path, Path(path).name.split(".")[0])
    kernel = _kernel(path, kernel_btf)
    try:
        return tell_loaded(_load_parts(file, kconfig, ksyms, kernel, Settings(variables, max_entries), type))
    except BtfError as error:
        # The parts say more where they can; this is what lazy reading finds late.
        raise file.error(str(error), ".BTF") from None


def _load_parts(
    file: ObjectFile,
    kconfig: Mapping[str, KconfigValue],
    ksyms: Mapping[str, int],
    kernel: Btf | None,
    settings: Settings,
    type: str,
) -> Object:
    externs = resolve_externs(file, kconfig, ksyms, kernel)
    btf = kernel_ready(file, externs.offsets)
    kconfig_map = data_map(file, btf, ".kconfig", externs.kconfig, True) if externs.kconfig else None
    notes = _apply_core(file, kernel)
    maps = load_maps(file, btf, kconfig_map)
    apply_settings(file, btf, maps, settings)
    notes += (*without_size(maps), *_not_for_libbpf(file))
    loaded = _Programs(file, btf, maps, externs, kernel, type).load()
    return Object(file.path, loaded, {definition.name: definition for definition in maps.maps}, btf, notes)


def _not_for_libbpf(file: ObjectFile) -> Iterator[str]:
    """What aya and cilium/ebpf load and libbpf 1.0 and later refuse."""
    sections = [file.image.sections[index].name for index in file.functions]
    apart = [name for name in sections if is_text(name) and name != TEXT]
    if apart:
        yield f"{', '.join(apart)}: libbpf calls no function outside of {TEXT}, and refuses the object; aya takes it"
    if any(is_legacy(section) for section in file.image.sections):
        yield "the section 'maps': libbpf refuses maps that are not declared in .maps; aya and cilium/ebpf take them"


def _read(source: str | Path | bytes, name: str) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        return source, name or "object"
    path = Path(source)
    if path.suffix == ".lisp":
        from bpflisp import compile_file

        return compile_file(path), str(path)
    return path.read_bytes(), str(path)


def _kernel(path: str, source: str | Path | bytes | Btf | None) -> Btf | None:
    """The BTF of a kernel: raw, as /sys/kernel/btf has it, or in the .BTF section of an ELF file."""
    if source is None or isinstance(source, Btf):
        return source
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        if data.startswith(elf.MAGIC):
            section = ElfImage(data, foreign=True).section(".BTF")
            if section is None:
                raise LoadError(path, "the kernel's BTF: the ELF file has no section .BTF")
            data = section.data
        return Btf(data)
    except (BtfError, ElfError) as error:
        raise LoadError(path, f"the kernel's BTF: {error}", help="give a file like /sys/kernel/btf/vmlinux") from None


def _apply_core(file: ObjectFile, kernel: Btf | None) -> tuple[str, ...]:
    """Patches every instruction that depends on the kernel's types; says what it was resolved against."""
    if file.btf is None or not any(file.ext.core.values()):
        return ()
    from simulator.loader.core import CoreResolver, patch
    from simulator.loader.core_match import CoreError

    resolver = CoreResolver(file.btf, kernel)
    count = 0
    for section_name, records in file.ext.core.items():
        section = file.image.section(section_name)
        for record in records if section else ():
            assert section is not None
            function = file.function_at(section.index, record.offset)
            if function is None or record.offset % SLOT_SIZE:
                continue
            try:
                access = file.btf.string(record.access, 1024)
                resolution = resolver.resolve(record.kind, record.type, access)
                patch(function.code, (record.offset - function.offset) // SLOT_SIZE, resolution)
            except (CoreError, BtfError) as error:
                raise file.error(f"CO-RE record of {function.name!r}: {error}", section_name, record.offset) from None
            count += 1
    if kernel is not None:
        return ()
    return (f"{count} CO-RE records are resolved against the object's own types: no kernel BTF was given",)


class _Programs:
    """The programs of one object."""

    def __init__(
        self, file: ObjectFile, btf: Btf | None, maps: MapTable, externs: Externs, kernel: Btf | None, type: str
    ) -> None:
        self.file, self.btf, self.maps, self.kernel, self.default_type = file, btf, maps, kernel, type
        self.assembler = Assembler(file, btf, maps, externs)
        self.members = struct_ops_members(maps.maps)
        self.definitions: tuple[MapDef, ...] = tuple(maps.maps)

    def load(self) -> dict[str, Program]:
        loaded: dict[str, Program] = {}
        for section_index, functions in self.file.functions.items():
            section = self.file.image.sections[section_index]
            if is_text(section.name):
                continue
            for function in functions:
                if function.name in loaded:
                    raise self.file.error(f"two programs are named {function.name!r}", section.name, function.offset)
                if not function.is_global and self._is_called_only(function):
                    continue
                loaded[function.name] = self._program(function)
        return loaded

    def _is_called_only(self, function: Function) -> bool:
        """A static function beside programs is a subprogram of theirs, where libbpf would refuse it."""
        return any(other.is_global for other in self.file.functions[function.section.index] if other is not function)

    def _section(self, function: Function) -> programs.Section:
        name = function.section.name
        found = programs.section(name)
        if found is not None:
            return found
        if self.default_type and programs.by_name(self.default_type) is not None:
            return programs.Section(name, self.default_type, "", libbpf=False)
        raise self.file.error(
            f"section {name!r} names no program type", name, function.offset, f"{function.name!r} is in it",
            'name it as libbpf does ("xdp", "tc", "kprobe/..."), or load(..., type="xdp")',
        )  # fmt: skip

    def _program(self, function: Function) -> Program:
        section = self._section(function)
        made = self.assembler.program(function)
        attach_type, target = self._attachment(function, section)
        return Program(
            bytes(made.code),
            section.prog_type,
            self.definitions,
            self.file.license,
            name=function.name,
            section=function.section.name.removeprefix("?"),
            attach_type=attach_type,
            attach_target=target,
            flags=section.flags,
            btf=self.btf,
            func_info=made.func_info,
            line_info=made.line_info,
            kfuncs=made.kfuncs,
            btf_ids=made.btf_ids,
        )

    def _attachment(self, function: Function, section: programs.Section) -> tuple[str, str]:
        """Attach type and target. Of a struct_ops program: the number of its member in decimal, and the struct."""
        if section.prog_type == "struct_ops":
            return self._struct_ops_attachment(function)
        if not section.attach_btf or not section.target:
            return section.attach_type, ""
        target = section.target.split(":")[-1] if section.prog_type == "tracing" else section.target
        return section.attach_type, _TARGET_PREFIX.get(section.attach_type, "") + target

    def _struct_ops_attachment(self, function: Function) -> tuple[str, str]:
        if function.name not in self.members:
            return "", ""
        struct_name, member_name, index = self.members[function.name]
        struct_id = self.kernel.find(struct_name, BtfKind.STRUCT) if self.kernel else None
        if self.kernel and struct_id is not None:
            names = [member.name for member in self.kernel.members(struct_id)]
            if member_name not in names:
                raise self.file.error(f"the kernel's {struct_name!r} has no member {member_name!r}")
            index = names.index(member_name)
        return (str(index) if index else ""), struct_name
