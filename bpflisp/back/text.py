"""Machine code before emission as text, for the reader: what each stage of the back end leaves.

    function @f
    b0:
      (61) r16 = *(u32 *)(r1 +0)
      (07) r17 = r10 + $0 +0
      (18) r1 = 0x0  ; map m
      (15) if r16 == 0x1 goto b1 else b2

Registers from r16 on are virtual; `$0` is a stack slot that has no offset yet. It is not read back.
"""

from __future__ import annotations

from bpflisp.back.machine import MBlock, MFunction, MInsn
from bpflisp.ir.ssa import Slot
from bpflisp.spec import helpers
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Kind
from bpflisp.spec.text import insn_text


def print_machine(function: MFunction) -> str:
    """The function's blocks in the order in which they stand, with a newline at the end."""
    names = {block: f"b{index}" for index, block in enumerate(function.blocks)}
    slots: dict[Slot, str] = {}
    lines = [f"function @{function.name}"]
    for block in function.blocks:
        lines.append(f"{names[block]}:")
        lines += [f"  {_insn(insn, slots)}" for insn in block.body]
        lines.append(f"  {_end(block, names)}")
    sizes = [f"  slot {name} {slot.size} align {slot.align}" for slot, name in slots.items()]
    return "\n".join([lines[0], *sizes, *lines[1:]]) + "\n"


def _insn(insn: MInsn, slots: dict[Slot, str]) -> str:
    helper = helpers.by_id(insn.imm) if insn.row.kind is Kind.CALL else None
    text = insn_text(_plain(insn), {insn.imm: helper.name} if helper else {})
    if insn.slot is not None:
        name = slots.setdefault(insn.slot, f"${len(slots)}")
        if insn.is_lea:
            return f"({insn.opcode:02x}) r{insn.dst} = r10 + {name} {insn.imm:+d}"
        text = text.replace("(r10 ", f"(r10 + {name} ")
    notes = [f"{insn.symbol.kind} {insn.symbol.name}"] if insn.symbol else []
    notes += [f"{insn.core.type_name} {insn.core.access}"] if insn.core else []
    return f"{text}  ; {', '.join(notes)}" if notes else text


def _end(block: MBlock, names: dict[MBlock, str]) -> str:
    if block.end is None:
        return f"goto {names[block.targets[0]]}"
    text = insn_text(_plain(block.end))
    if not block.targets:
        return text
    taken, other = (names[target] for target in block.targets)
    return f"{text.partition(' goto ')[0]} goto {taken} else {other}"


def _plain(insn: MInsn) -> Insn:
    return Insn(insn.opcode, insn.dst, insn.src, insn.off, insn.imm, insn.imm_high)
