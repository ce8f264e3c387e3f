"""Why a program was refused before its first path: there is no state to look at, so the program itself is.

Invariant: as of `reasons`: a sentence adds to the kernel's message and never contradicts it; "" where there is nothing
to add.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from bpflisp.spec import isa
from simulator.verifier import shapes

if TYPE_CHECKING:
    from simulator.program import MapDef, Program
    from simulator.verifier.refusal import Refused

_FIELD: Final = re.compile(r"progs cannot use bpf_\S+ yet")


def because(refused: Refused, program: Program) -> str:
    """What the program shows of its refusal."""
    find = _FINDERS.get(refused.code, shapes.because)
    return find(refused, program)


def _kind(program: Program) -> str:
    return " ".join(filter(None, (program.type, program.attach_type)))


def _map_loaded(refused: Refused, program: Program) -> MapDef | None:
    """The map whose load is refused."""
    code, at = program.code, refused.insn
    insn = code[at] if at is not None and 0 <= at < len(code) else None
    by_index = insn is not None and insn.src in (isa.PSEUDO_MAP_IDX, isa.PSEUDO_MAP_IDX_VALUE)
    if insn is None or insn.opcode != isa.LD_IMM64_OPCODE or not by_index or not 0 <= insn.imm < len(program.maps):
        return None
    return program.maps[insn.imm]


def _map(refused: Refused, program: Program) -> str:
    found = _map_loaded(refused, program)
    if found is None:
        return ""
    what = "has such a field in its values" if _FIELD.search(refused.message) else f"is of type {found.type}"
    return f"map `{found.name}` {what}, and the program is {_kind(program)}"


def _target(refused: Refused, program: Program) -> str:
    named = f"its target is {program.attach_target}" if program.attach_target else "names no target"
    return f"the program is {_kind(program)}, and {named}"


def _unreachable(refused: Refused, program: Program) -> str:
    if not refused.insn:
        return ""
    return f"what is before insn {refused.insn} ends or jumps, and no jump that can be reached leads to it"


def _functions(refused: Refused, program: Program) -> str:
    if "number of funcs" not in refused.message or not refused.functions:
        return ""
    listed = len(program.func_info)
    return f"the code has {len(refused.functions)} functions, and the debugging information lists {listed}"


def _maps(refused: Refused, program: Program) -> str:
    found = _map_loaded(refused, program)
    return f"map `{found.name}` is one too many" if found is not None else ""


_FINDERS: Final[Mapping[str, Callable[[Refused, Program], str]]] = MappingProxyType(
    {
        "map-not-allowed": _map,
        "attach-target": _target,
        "unreachable-code": _unreachable,
        "bad-btf": _functions,
        "too-many": _maps,
    }
)
"""Class -> what looks at the program for it."""
