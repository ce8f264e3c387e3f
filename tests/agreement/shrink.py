"""Makes a program smaller as long as something stays true of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Kind
from tests.agreement.code import Code, Node

Holds = Callable[[Code], bool]


def shrink(code: Code, holds: Holds, budget: int = 2000) -> Code:
    """The least code found of which `holds` is still true; `budget` bounds how often it is asked.

    First runs of halving length are taken out, then single instructions made simpler, until nothing helps.
    """
    asked = 0

    def ask(candidate: Code) -> bool:
        nonlocal asked
        asked += 1
        return holds(candidate)

    changed = True
    while changed and asked < budget:
        changed = False
        for candidates in (_smaller, _simpler):
            position = 0
            while asked < budget:
                found = next((x for x in candidates(code, position) if asked < budget and ask(x[1])), None)
                if found is None:
                    break
                position, code = found
                changed = True
    return code


def _smaller(code: Code, start: int) -> Iterator[tuple[int, Code]]:
    """Codes with a run of nodes less, long runs first; with where to go on looking."""
    length = max(1, len(code.nodes) // 2)
    while length:
        for at in range(0, len(code.nodes) - length + 1, max(1, length // 2)):
            yield 0, code.without(range(at, at + length))
        length //= 2


def _simpler(code: Code, start: int) -> Iterator[tuple[int, Code]]:
    """Codes in which one node from `start` on is simpler."""
    for at in range(start, len(code.nodes)):
        for node in _simpler_nodes(code.nodes[at]):
            yield at, code.with_node(at, node)


def _simpler_nodes(node: Node) -> Iterator[Node]:
    insn = node.insn
    kind = insn.row.kind
    plain = Insn(0xB7, insn.dst)
    if kind in (Kind.ALU, Kind.LOAD, Kind.LOAD_SIGNED, Kind.LOAD_IMM64, Kind.NEG, Kind.END) and insn != plain:
        yield Node(plain)
    if kind is Kind.CALL and node.to is None:
        yield Node(Insn(0xB7, 0))
    for smaller in (0, 1, insn.imm // 2, insn.imm - 1):
        if kind is not Kind.CALL and insn.src != 5 and abs(smaller) < abs(insn.imm):
            yield Node(replace(insn, imm=smaller), node.to)
    if kind in (Kind.LOAD, Kind.STORE, Kind.STORE_IMM):
        for off in (0, -8, insn.off // 2):
            if abs(off) < abs(insn.off):
                yield Node(replace(insn, off=off), node.to)
