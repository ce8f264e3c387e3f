"""Contexts without a packet: a structure by its fields' names, registers, arguments, or a block of bytes."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from bpflisp.spec.contexts import Struct, access_table, pt_regs, pt_regs_parm, struct
from bpflisp.spec.contexts import context_struct as struct_of
from simulator.contexts.base import NO_FIELDS, Model, get, known_field, put
from simulator.machine import Machine
from simulator.memory import CONTEXT_BASE, SCRATCH_BASE, Region
from simulator.packet import Input, InputRefused

_ARGUMENTS = frozenset({"raw_tracepoint", "raw_tracepoint_writable", "tracing", "lsm", "struct_ops"})
SEQUENCE = 0xFFFF_8880_0000_2000
"""What programs hold as the address of the file that an iteration writes."""

ARCHITECTURES = ("x86_64", "arm64")
_MAX_ARGUMENTS = 12
_UNNAMED = 4096
"""Bytes of a context that is a block and is not given."""

NOTHING: Mapping[tuple[int, int], tuple[int, int]] = MappingProxyType({})


def other_model(prog_type: str, attach_type: str, section: str) -> Model:
    """The model of a program type whose context is no packet."""
    if attach_type == "trace_iter":
        return IteratorModel()
    if prog_type in _ARGUMENTS:
        return ArgumentsModel()
    if prog_type == "conformance":
        return MemoryModel()
    if prog_type == "tracepoint":
        return _tracepoint(section)
    if prog_type == "kprobe":
        return RegistersModel()
    known = struct_of(prog_type)
    return StructModel(known, prog_type, attach_type) if known else BytesModel()


def _tracepoint(section: str) -> StructModel | BytesModel:
    """Of a system call's tracepoint its record's structure; of any other, bytes."""
    event = section.rpartition("/")[2]
    for prefix in ("sys_enter", "sys_exit"):
        if event.startswith(prefix):
            return StructModel(struct(f"trace_event_raw_{prefix}"), "tracepoint", "")
    return BytesModel()


class _NoPacket:
    """What all contexts without a packet have in common."""

    known = NOTHING

    def enter_packet(self, machine: Machine, packet: bytes) -> Sequence[int]:
        """Refused: such programs run on no packet."""
        raise InputRefused(errno.EINVAL, "a program of this type runs on a context, not on a packet")

    def packet_changed(self, machine: Machine) -> None:
        """Nothing: there is no packet."""


class StructModel(_NoPacket):
    """A structure of the user API."""

    def __init__(self, layout: Struct, prog_type: str, attach_type: str) -> None:
        self._layout = layout
        self.size = layout.size
        table = access_table(prog_type, attach_type)
        writes = table.writes if table else frozenset()
        self._written = [field for field in layout.fields if any(field.offset == offset for offset, _ in writes)]

    def enter(self, machine: Machine, given: Input) -> Sequence[int]:
        """Puts the structure in place: the fields that are given, zeros elsewhere."""
        data = bytearray(self._layout.size)
        for name, value in given.context.items():
            put(data, known_field(self._layout, name), value)
        machine.no_packet()
        machine.set_context(data)
        return (CONTEXT_BASE,)

    def leave(self, machine: Machine) -> tuple[bytes | None, Mapping[str, int]]:
        """No packet; the fields that such programs may write."""
        assert machine.context is not None
        view = machine.context.view
        return None, {field.name: get(view, field) for field in self._written}


class RegistersModel(_NoPacket):
    """struct pt_regs of the machine that the object was compiled for: `arch` "x86_64" (unless given) or "arm64".

    Registers have their own names, and those that parameters and return value have: parm1, rc.
    """

    size = 0

    def enter(self, machine: Machine, given: Input) -> Sequence[int]:
        """Puts the registers in place, zeros where none is given."""
        context = dict(given.context)
        arch = context.pop("arch", "x86_64")
        if arch not in ARCHITECTURES:
            raise InputRefused(
                errno.EINVAL, f"registers of {arch!r} are not known; of {', '.join(ARCHITECTURES)} they are"
            )
        layout, aliases = pt_regs(arch), _register_names(arch)
        data = bytearray(layout.size)
        for name, value in context.items():
            put(data, known_field(layout, aliases.get(name, name)), value)
        machine.no_packet()
        machine.set_context(data)
        return (CONTEXT_BASE,)

    def leave(self, machine: Machine) -> tuple[bytes | None, Mapping[str, int]]:
        """Neither packet nor fields: no program writes registers."""
        return None, NO_FIELDS


def _register_names(arch: str) -> dict[str, str]:
    """The names that parameters and return value have -> the register that carries them."""
    named = {f"parm{name}" if name.isdigit() else name: field for name, field in pt_regs_parm(arch).items()}
    if arch != "x86_64":
        return named
    plain = {f"r{name}": name for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "ip")}
    return named | plain


class ArgumentsModel(_NoPacket):
    """An array of 64-bit arguments: `args`, a sequence of ints."""

    size = _MAX_ARGUMENTS * 8

    def enter(self, machine: Machine, given: Input) -> Sequence[int]:
        """Puts the arguments in place, zeros after them."""
        unknown = set(given.context) - {"args"}
        args: Sequence[int] = given.context.get("args", ())
        if unknown or len(args) > _MAX_ARGUMENTS:
            raise InputRefused(errno.EINVAL, f"the context is args, at most {_MAX_ARGUMENTS} of them, not {unknown}")
        data = b"".join((value & (1 << 64) - 1).to_bytes(8, "little") for value in args)
        machine.no_packet()
        machine.set_context(data.ljust(_MAX_ARGUMENTS * 8, b"\0"))
        return (CONTEXT_BASE,)

    def leave(self, machine: Machine) -> tuple[bytes | None, Mapping[str, int]]:
        """Neither packet nor fields."""
        return None, NO_FIELDS


class IteratorModel(ArgumentsModel):
    """struct bpf_iter__*: the iteration's own data first, then `args`, addresses of what is visited (0 at the end).

    `session_id` and `seq_num` are that data's; what the program writes goes to the world's `sequence`.
    """

    def enter(self, machine: Machine, given: Input) -> Sequence[int]:
        """Puts both in place."""
        context = dict(given.context)
        numbers = [int(context.pop(name, 0)) for name in ("session_id", "seq_num")]
        data = b"".join(number.to_bytes(8, "little") for number in (SEQUENCE, *numbers))
        machine.memory.put(Region("iteration", SCRATCH_BASE, bytearray(data), writable=False))
        context["args"] = [SCRATCH_BASE, *context.get("args", ())]
        return super().enter(machine, Input(None, context))


class BytesModel(_NoPacket):
    """A block of bytes: `raw`. What is not given is zero."""

    size = 0

    def enter(self, machine: Machine, given: Input) -> Sequence[int]:
        """Puts the block in place."""
        unknown = set(given.context) - {"raw"}
        raw: Any = given.context.get("raw", b"")
        if unknown or not isinstance(raw, bytes | bytearray) or len(raw) > 1 << 16:
            raise InputRefused(
                errno.EINVAL, f"the context is raw, a block of bytes, not {unknown or type(raw).__name__}"
            )
        machine.no_packet()
        machine.set_context(bytes(raw) or bytes(_UNNAMED))
        return (CONTEXT_BASE,)

    def leave(self, machine: Machine) -> tuple[bytes | None, Mapping[str, int]]:
        """No packet; the block is the program's own to write."""
        return None, NO_FIELDS


class MemoryModel(BytesModel):
    """The convention of instruction-set tests: r1 is the address of `memory`, r2 its length; both 0 without any.

    The program type "conformance" is no kernel's: it has this context.
    """

    def enter(self, machine: Machine, given: Input) -> Sequence[int]:
        """Puts the memory in place."""
        memory: bytes = given.context.get("memory", b"")
        machine.no_packet()
        machine.set_context(memory)
        return (CONTEXT_BASE, len(memory)) if memory else (0, 0)
