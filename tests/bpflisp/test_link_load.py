"""Linking and loading undo each other: in what is loaded, every call lands on the function that was meant."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from bpflisp.link import Line, LinkFunction, LinkGlobal, LinkMap, LinkObject, Relocation, RelocKind, link
from bpflisp.spec.btf_build import INT, U32, Array, Signature
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Kind
from simulator.loader import load
from simulator.program import Program

MARK, PAD, CALL, ADDRESS, EXIT = 0xB7, 0xBF, 0x85, 0x18, 0x95
MAPS = [LinkMap(f"map{at}", "array", U32, U32, max_entries=at + 1) for at in range(3)]
GLOBALS = [LinkGlobal(f"var{at}", section, Array(U32, 2), bytes([at] * 8), 4)
           for at, section in enumerate([".rodata", ".data", ".rodata"])]  # fmt: skip

# What a function does, step by step: pads, calls of or addresses of subprograms, maps and variables.
STEP = st.one_of(
    st.just(("pad", 0)),
    st.tuples(st.sampled_from(["call", "func"]), st.integers(0, 4)),
    st.tuples(st.sampled_from(["map", "data"]), st.integers(0, 2)),
)
BODIES = st.lists(st.lists(STEP, max_size=6), min_size=6, max_size=6)
KINDS = {"call": RelocKind.CALL, "func": RelocKind.FUNC, "map": RelocKind.MAP, "data": RelocKind.DATA}


def _function(at: int, steps: Sequence[tuple[str, int]], is_global: bool) -> LinkFunction:
    """Function 5 is the program, the others are its subprograms; each starts by saying which it is."""
    insns, relocations, slot = [Insn(MARK, 0, 0, 0, at)], [], 1
    for what, target in steps:
        insn = (
            Insn(PAD, 1, 2) if what == "pad" else Insn(CALL if what == "call" else ADDRESS, 0 if what == "call" else 1)
        )
        if what != "pad":
            name = {"map": "map", "data": "var"}.get(what, "f") + str(target)
            relocations.append(Relocation(slot, KINDS[what], name, 4 if what == "data" else 0))
        insns.append(insn)
        slot += insn.slots
    insns.append(Insn(EXIT))
    section = "xdp" if at == 5 else ".text"
    line = [Line(0, "f.lisp", at + 1, 1, f"(f{at})")]
    return LinkFunction(f"f{at}", section, insns, Signature(INT), relocations, line, is_global=is_global or at == 5)


def _landing(program: Program, slot: int) -> int:
    insn = program.code[slot]
    assert insn is not None
    assert insn.opcode == MARK
    return insn.imm


def _check_function(program: Program, start: int, steps: Sequence[tuple[str, int]]) -> set[int]:
    """Compares a function with what it was made of; the slots of the functions that it names."""
    slot, named = start + 1, set()
    for what, target in steps:
        insn = program.code[slot]
        assert insn is not None
        if what in ("call", "func"):
            assert insn.src == (1 if what == "call" else 4)
            assert _landing(program, slot + insn.imm + 1) == target
            named.add(slot + insn.imm + 1)
        elif what == "map":
            assert (insn.src, program.maps[insn.imm].name) == (5, f"map{target}")
        elif what == "data":
            init = program.maps[insn.imm].init
            assert init is not None
            assert (insn.src, init[insn.imm_high]) == (6, target)
        slot += insn.slots
    last = program.code[slot]
    assert last is not None
    assert last.row.kind is Kind.EXIT
    return named


@settings(max_examples=150, deadline=None)
@given(BODIES, st.lists(st.booleans(), min_size=6, max_size=6))
def test_every_reference_lands_where_it_was_meant(bodies: list[list[tuple[str, int]]], is_global: list[bool]) -> None:
    functions = [_function(at, steps, is_global[at]) for at, steps in enumerate(bodies)]
    program = load(link(LinkObject(functions, MAPS, GLOBALS)), name="x.o")["f5"]
    waiting, seen = [0], {0}
    while waiting:
        start = waiting.pop()
        for named in _check_function(program, start, bodies[_landing(program, start)]) - seen:
            seen.add(named)
            waiting.append(named)
    # Each function is there once, and has its records.
    assert len({_landing(program, start) for start in seen}) == len(seen)
    assert {record.insn for record in program.func_info} == seen
    assert {record.insn: record.line for record in program.line_info} == {
        start: _landing(program, start) + 1 for start in seen
    }
    assert sum(len(bodies[_landing(program, start)]) for start in seen) <= len(program.code)
