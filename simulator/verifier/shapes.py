"""Why an instruction is refused for what it is, whatever state it is met in: its opcode, its fields, where it leads.

Invariant: as of `reasons`: a sentence adds to the kernel's message and never contradicts it; "" where there is nothing
to add.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from bpflisp.spec import isa
from bpflisp.spec.isa import Kind
from bpflisp.spec.programs import F_SLEEPABLE
from bpflisp.spec.text import insn_text

if TYPE_CHECKING:
    from bpflisp.spec.insn import Insn
    from simulator.program import Program
    from simulator.verifier.refusal import Refused

LAST_REGISTER: Final = 10


def because(refused: Refused, program: Program) -> str:
    """What the instruction shows of its refusal."""
    find = _FINDERS.get(refused.code)
    return find(refused, program) if find is not None else ""


def _insn(refused: Refused, program: Program) -> Insn | None:
    at, code = refused.insn, program.code
    return code[at] if at is not None and 0 <= at < len(code) else None


def _shown(refused: Refused, insn: Insn) -> str:
    return f"insn {refused.insn} ({insn_text(insn, {}, '')})"


def _opcode(refused: Refused, program: Program) -> str:
    insn, count = _insn(refused, program), len(program.code)
    if insn is None:
        return f"the program has {count} instructions, of 8 bytes each, and this is none of them"
    if insn.opcode == isa.LD_IMM64_OPCODE:
        return (
            f"insn {refused.insn} loads 64 bits from two slots: the second must have opcode, registers and offset 0, "
            f"and the source register of the first, {insn.src}, must say what the number stands for"
        )
    return f"insn {refused.insn} has the opcode {insn.opcode:#04x}"


def _jump(refused: Refused, program: Program) -> str:
    insn, count = _insn(refused, program), len(program.code)
    if insn is None:
        return f"a call leads out of the program, whose instructions are insn 0 to {count - 1}"
    distance = (
        insn.imm if insn.row.kind is Kind.CALL or (insn.opcode & 7 == isa.JMP32 and not insn.row.reg) else insn.off
    )
    distance = insn.off if insn.row.kind is Kind.BRANCH else distance
    at = refused.insn or 0
    target = at + 1 + distance
    if 0 <= target < count and program.code[target] is None:
        return f"{_shown(refused, insn)} leads to insn {target}, the second slot of a 64-bit load"
    if 0 <= target < count:
        return f"{_shown(refused, insn)} leads to insn {target}, in another function"
    return f"{_shown(refused, insn)} leads to insn {target}, and the program is insn 0 to {count - 1}"


def _end(refused: Refused, program: Program) -> str:
    insn = _insn(refused, program)
    if insn is None:
        return f"the program is insn 0 to {len(program.code) - 1}"
    return f"a function ends with {_shown(refused, insn)}, after which a path would go on outside"


def _operand(refused: Refused, program: Program) -> str:
    insn, found = _insn(refused, program), re.match(r"R(\d+) is invalid", refused.message)
    if insn is None:
        return ""
    if found is not None:
        return f"insn {refused.insn} names r{found[1]}, and there are r0 to r{LAST_REGISTER}"
    if "shift" in refused.message:
        return f"{_shown(refused, insn)} shifts by {insn.imm}, and the register has {insn.row.width} bits"
    return _shown(refused, insn)


def _reserved(refused: Refused, program: Program) -> str:
    insn = _insn(refused, program)
    if insn is None:
        return ""
    fields = ", ".join(f"{name} {getattr(insn, name)}" for name in insn.reserved())
    if fields:
        return f"{_shown(refused, insn)} has {fields}, which it does not read: they have to be 0"
    return f"{_shown(refused, insn)} has opcode {insn.opcode:#04x}, offset {insn.off}, immediate {insn.imm}"


def _value(refused: Refused, program: Program) -> str:
    """A load of an address inside of a map's value."""
    insn = _insn(refused, program)
    if insn is None or insn.opcode != isa.LD_IMM64_OPCODE or not 0 <= insn.imm < len(program.maps):
        return ""
    target = program.maps[insn.imm]
    return (
        f"map `{target.name}` has values of {target.value_size} bytes, and {target.max_entries} of them; the address "
        f"is at offset {insn.imm_high & 0xFFFFFFFF} of the first"
    )


def _sleepable(refused: Refused, program: Program) -> str:
    if not program.flags & F_SLEEPABLE:
        return ""
    kind = " ".join(filter(None, (program.type, program.attach_type)))
    return f"the program is {kind}, and is loaded as one that may sleep (BPF_F_SLEEPABLE)"


def _kernel(refused: Refused, program: Program) -> str:
    named = program.kfuncs.get(refused.insn or 0) or program.btf_ids.get(refused.insn or 0)
    if named and refused.insn is not None:
        return f"insn {refused.insn} names `{named}`"
    insn = _insn(refused, program)
    if insn is not None and insn.off:
        return f"insn {refused.insn} is a call by offset {insn.off}, which is an index into a list of modules"
    return _instruction(refused, program)


def _function(refused: Refused, program: Program) -> str:
    insn = _insn(refused, program)
    if insn is None or insn.opcode != isa.LD_IMM64_OPCODE or insn.src != isa.PSEUDO_FUNC or refused.insn is None:
        return ""
    start = refused.insn + insn.imm + 1
    return f"insn {refused.insn} takes the address of the function at insn {start}, which nothing calls"


def _instruction(refused: Refused, program: Program) -> str:
    insn = _insn(refused, program)
    return f"it is {_shown(refused, insn)} that does so" if insn is not None else ""


_FINDERS: Final[Mapping[str, Callable[[Refused, Program], str]]] = MappingProxyType(
    {
        "bad-opcode": _opcode,
        "bad-jump": _jump,
        "no-exit": _end,
        "bad-operand": _operand,
        "reserved-fields": _reserved,
        "memory-bounds": _value,
        "sleepable": _sleepable,
        "kernel-function": _kernel,
        "function-arguments": _function,
        "pointer-spill": _instruction,
        "frame-pointer": _instruction,
        "misaligned": _instruction,
    }
)
"""Class -> what looks at the instruction for it."""
