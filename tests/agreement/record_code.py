"""A record's instructions as code that can be changed, and changed code as a record again.

Invariant: what the record says of a slot (its map, its kernel function or variable, that a function of the BTF begins
there) follows the instruction, wherever changes move it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import (
    CALL_KFUNC,
    LD_IMM64_OPCODE,
    PSEUDO_BTF_ID,
    PSEUDO_MAP_IDX,
    PSEUDO_MAP_IDX_VALUE,
)
from simulator.program import Program
from tests.agreement.code import Code, Node

_RELOCATION = {PSEUDO_MAP_IDX: "map", PSEUDO_MAP_IDX_VALUE: "map_value"}


def code_of(record: Mapping[str, Any], program: Program) -> Code:
    """The code of a record whose program this is; its last labels are where the functions of its BTF begin.

    Raises ValueError where the code does not read back (a 64-bit load that has no second half).
    """
    code = Code.of(program.insns)
    if len(code.encode()) != len(program.insns):
        raise ValueError("the code does not read back")
    named = {**program.kfuncs, **program.btf_ids}
    slots = [0, *accumulate(node.insn.slots for node in code.nodes)]
    nodes = tuple(Node(node.insn, node.to, named.get(slot, "")) for slot, node in zip(slots, code.nodes, strict=False))
    index = {slot: at for at, slot in enumerate(slots)}
    starts = tuple(index.get(info.insn, len(nodes)) for info in program.func_info)
    return Code(nodes, (*code.labels, *starts))


def with_code(record: Mapping[str, Any], before: Code, after: Code) -> dict[str, Any]:
    """The record with changed code; `before` is what `code_of` gave of it."""
    slots = [0, *accumulate(node.insn.slots for node in after.nodes)]
    placed = list(zip(slots, after.nodes, strict=False))
    changed = {
        **record,
        "insns": after.encode().hex(),
        "relocs": [[slot, _RELOCATION[node.insn.src], node.insn.imm] for slot, node in placed if _of_map(record, node)],
        "kfuncs": {str(slot): node.kfunc for slot, node in placed if node.kfunc and _calls_kernel(node.insn)},
        "btf_ids": {str(slot): node.kfunc for slot, node in placed if node.kfunc and _of_kernel(node.insn)},
    }
    if record.get("func_info"):
        changed["func_info"] = _functions(record, before, after, slots)
    return changed


def _of_map(record: Mapping[str, Any], node: Node) -> bool:
    insn = node.insn
    return insn.opcode == LD_IMM64_OPCODE and insn.src in _RELOCATION and 0 <= insn.imm < len(record.get("maps") or [])


def _calls_kernel(insn: Insn) -> bool:
    return insn.opcode == 0x85 and insn.src == CALL_KFUNC


def _of_kernel(insn: Insn) -> bool:
    return insn.opcode == LD_IMM64_OPCODE and insn.src == PSEUDO_BTF_ID


def _functions(record: Mapping[str, Any], before: Code, after: Code, slots: list[int]) -> str:
    """The function records with the slots where the functions begin now."""
    data, size = bytearray.fromhex(record["func_info"]), record.get("func_info_rec_size") or 8
    first = len(before.labels) - len(data) // size
    for number in range(len(data) // size):
        struct.pack_into("<I", data, number * size, slots[after.labels[first + number]])
    return data.hex()
