"""What 64-bit immediate loads and legacy packet loads give, the same for every engine."""

from __future__ import annotations

from collections.abc import Sequence

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import (
    PSEUDO_BTF_ID,
    PSEUDO_FUNC,
    PSEUDO_MAP_IDX,
    PSEUDO_MAP_IDX_VALUE,
)
from simulator.machine import FUNCTION_BASE, HelperFault, Machine, ProgramFault

NETWORK_OFFSET, LINK_OFFSET = -0x100000, -0x200000
"""Offsets of legacy packet loads below zero: from the network header, from the link header."""


def immediate(machine: Machine, insn: Insn, at: int) -> int:
    """What a 64-bit immediate load at slot `at` gives: the number, or what its source register says it stands for."""
    if insn.src == 0:
        return insn.imm64
    if insn.src in (PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE):
        if not 0 <= insn.imm < len(machine.maps):
            raise ProgramFault("illegal", f"the program has no map of index {insn.imm}")
        found = machine.maps[insn.imm]
        if insn.src == PSEUDO_MAP_IDX:
            return found.handle
        base = found.value_base()
        if not base:
            raise ProgramFault("illegal", f"a {found.definition.type} map has no value that a program can refer to")
        return base + (insn.imm_high & 0xFFFFFFFF)
    if insn.src == PSEUDO_FUNC:
        return FUNCTION_BASE + at + 1 + insn.imm
    if insn.src == PSEUDO_BTF_ID:
        name = machine.program.btf_ids.get(at, "") if machine.program else ""
        return kernel_symbol(machine, name, at)
    raise ProgramFault("illegal", f"a 64-bit load of kind {insn.src}: file descriptors occur nowhere")


def kernel_symbol(machine: Machine, name: str, at: int) -> int:
    """The address of a kernel variable that the test has given by name."""
    address = machine.world.symbols.get(name)
    if address is None:
        raise HelperFault(f"the kernel variable {name or at!r} is not mocked: set world.symbols[{name!r}]")
    return address


def kernel_function(machine: Machine, at: int, arguments: Sequence[int]) -> int:
    """r0 of a call of a kernel function by its name."""
    from simulator import kfuncs

    name = machine.program.kfuncs.get(at, "") if machine.program else ""
    return kfuncs.call(machine, name or f"of slot {at}", tuple(arguments))


def packet_bytes(machine: Machine, offset: int, size: int) -> bytes | None:
    """The bytes of a legacy packet load, None where the packet ends before: the program then returns 0."""
    if machine.packet is None:
        return None
    data = bytes(machine.packet.view[machine.meta :])
    if offset >= 0:
        found = data[offset : offset + size]
    else:
        hidden = machine.link_header
        start = offset - (NETWORK_OFFSET if offset >= NETWORK_OFFSET else LINK_OFFSET)
        whole = hidden + data
        start += machine.network_offset if offset >= NETWORK_OFFSET else 0
        found = whole[start : start + size] if start >= 0 else b""
    return found if len(found) == size else None
