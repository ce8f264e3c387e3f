"""The BTF that comes with a program: which function each subprogram is, its lines, and what map values contain.

Invariant: func_info and line_info are checked in the kernel's order; what is found wrong is refused in its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from bpflisp.spec.btf import ENUMS, LINKAGE_GLOBAL, Btf, BtfError, BtfKind
from simulator.program import FuncInfo, MapDef, Program
from simulator.verifier.cfg import Function
from simulator.verifier.refusal import Refused
from simulator.verifier.slots import Slots

EXCEPTION_CALLBACK_TAG: Final = "exception_callback:"

MANAGED_KINDS: Final = frozenset(
    {
        "bpf_spin_lock",
        "bpf_res_spin_lock",
        "bpf_timer",
        "bpf_wq",
        "bpf_list_head",
        "bpf_list_node",
        "bpf_rb_root",
        "bpf_rb_node",
        "bpf_refcount",
        "bpf_task_work",
    }
)
"""Names of structures in map values that programs reach by helpers and kernel functions alone."""

_DEEPEST = 4


def check_functions_early(program: Program) -> None:
    """func_info alone: offsets rise from 0 and every id is a function. Raises Refused."""
    before = -1
    for number, info in enumerate(program.func_info):
        if number == 0 and info.insn:
            raise Refused(f"nonzero insn_off {info.insn} for the first func info record")
        if info.insn <= before:
            words = f"same or smaller insn offset ({info.insn}) than previous func info record ({before})"
            raise Refused(words)
        if program.btf is None or not _is_function(program.btf, info.type_id):
            raise Refused(f"invalid type id {info.type_id} in func info")
        before = info.insn


def _is_function(btf: Btf, type_id: int) -> bool:
    try:
        return btf.type(type_id).kind is BtfKind.FUNC
    except BtfError:
        return False


def check_abnormal_returns(functions: Sequence[Function]) -> None:
    """Without BTF, only the entry function may end by a tail call or a packet load."""
    for function in functions[1:]:
        if function.has_packet_load:
            raise Refused("LD_ABS is not allowed in subprogs without BTF", insn=function.start)
        if function.has_tail_call:
            raise Refused("tail_call is not allowed in subprogs without BTF", insn=function.start)


def check_functions(program: Program, functions: Sequence[Function]) -> None:
    """func_info against the functions found: one for each, at its start, returning a number where that is needed."""
    if len(program.func_info) != len(functions):
        raise Refused("number of funcs in func_info doesn't match number of subprogs")
    for number, (info, function) in enumerate(zip(program.func_info, functions, strict=True)):
        if info.insn != function.start:
            raise Refused("func_info BTF section doesn't match subprog layout in BPF program")
        if number == 0 or program.btf is None or returns_number(program.btf, info):
            continue
        if function.has_packet_load:
            raise Refused("LD_ABS is only allowed in functions that return 'int'.", insn=function.start)
        if function.has_tail_call:
            raise Refused("tail_call is only allowed in functions that return 'int'.", insn=function.start)


def returns_number(btf: Btf, info: FuncInfo) -> bool:
    """Whether a function returns an integer of 1 to 8 bytes, or an enum."""
    result = btf.resolve(btf.result(btf.func_proto(info.type_id)))
    kind = btf.type(result).kind
    return kind in ENUMS or (kind is BtfKind.INT and btf.type(result).size in (1, 2, 4, 8))


def is_global(btf: Btf, info: FuncInfo) -> bool:
    """Whether the function is verified on its own, by its signature."""
    return btf.linkage(info.type_id) == LINKAGE_GLOBAL


def check_lines(program: Program, functions: Sequence[Function], slots: Slots) -> None:
    """line_info: rising offsets inside the program, and a line for the start of each function. Raises Refused."""
    if not program.line_info:
        return
    before, waiting = 0, 0
    for number, line in enumerate(program.line_info):
        if (number and line.insn <= before) or line.insn >= len(slots):
            words = f"(prev_offset:{before} prog->len:{len(slots)})"
            raise Refused(f"Invalid line_info[{number}].insn_off:{line.insn} {words}")
        if not slots.opcode[line.insn]:
            raise Refused(f"Invalid insn code at line_info[{number}].insn_off")
        if waiting < len(functions):
            start = functions[waiting].start
            if line.insn == start:
                waiting += 1
            elif start < line.insn:
                raise Refused(f"missing bpf_line_info for func#{waiting}")
        before = line.insn
    if waiting != len(functions):
        words = f"missing bpf_line_info for {len(functions) - waiting} funcs starting from func#{waiting}"
        raise Refused(words)


def exception_callback(program: Program) -> int:
    """The slot of the function that the entry function's tag names as its exception callback, 0 for none."""
    btf = program.btf
    if btf is None or not program.func_info:
        return 0
    tags = [name for name, component in btf.tags(program.func_info[0].type_id) if component == -1]
    names = [tag.removeprefix(EXCEPTION_CALLBACK_TAG) for tag in tags if tag.startswith(EXCEPTION_CALLBACK_TAG)]
    if not names:
        return 0
    if len(names) > 1:
        raise Refused("multiple exception callback tags for main subprog")
    return _callback_start(program, btf, names[0])


def _callback_start(program: Program, btf: Btf, name: str) -> int:
    type_id = btf.find(name, BtfKind.FUNC)
    if type_id is None:
        raise Refused(f"exception callback '{name}' could not be found in BTF")
    if btf.linkage(type_id) != LINKAGE_GLOBAL:
        raise Refused(f"exception callback '{name}' must have global linkage")
    start = next((info.insn for info in program.func_info if info.type_id == type_id), None)
    if start is None:
        raise Refused("exception callback type id not found in func_info")
    return start


def managed_kinds(target: MapDef) -> frozenset[str]:
    """The kinds of managed structures in a map's value, nested ones too; empty without BTF."""
    if target.btf is None or not target.btf_value:
        return frozenset()
    return _managed_in(target.btf, target.btf_value)


@lru_cache(1024)
def _managed_in(btf: Btf, type_id: int, depth: int = 0) -> frozenset[str]:
    found: set[str] = set()
    resolved = btf.resolve(type_id)
    head = btf.type(resolved)
    if head.kind is BtfKind.DATASEC:
        for variable in btf.variables(resolved):
            found |= _managed_in(btf, btf.type(variable.type).target, depth)
    elif head.kind is BtfKind.ARRAY:
        found |= _managed_in(btf, btf.array(resolved).element, depth)
    elif head.kind is BtfKind.STRUCT and head.name in MANAGED_KINDS:
        found.add(head.name)
    elif head.kind is BtfKind.STRUCT and depth <= _DEEPEST:
        for member in btf.members(resolved):
            found |= _managed_in(btf, member.type, depth + 1)
    return frozenset(found)
