"""Small changes to a program, of the kind that authors make by mistake: most leave it refused, some do not."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import CALL_SUBPROGRAM, JUMP_CODES, LD_IMM64_OPCODE, SIZE_BITS, Kind
from tests.agreement.code import Code, Node

Change = Callable[[random.Random, Code, int], Code]

_MEMORY = (Kind.LOAD, Kind.LOAD_SIGNED, Kind.STORE, Kind.STORE_IMM, Kind.ATOMIC)


def mutated(rng: random.Random, code: Code) -> Code:
    """The code after one to three changes at random places."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        change = rng.choices(list(_CHANGES), list(_CHANGES.values()))[0]
        wanted = _WHERE.get(change)
        places = [at for at, node in enumerate(code.nodes) if wanted is None or wanted(node.insn)]
        if places:
            code = change(rng, code, rng.choice(places))
    return code


def _drop(rng: random.Random, code: Code, at: int) -> Code:
    return code.without({at})


def _drop_test(rng: random.Random, code: Code, at: int) -> Code:
    """A bounds check, null check or loop test less."""
    return code.without({at})


def _drop_call(rng: random.Random, code: Code, at: int) -> Code:
    """A release, an unlock, an acquisition less; the end of an iterator, of a section."""
    return code.without({at})


def _drop_store(rng: random.Random, code: Code, at: int) -> Code:
    """Memory that is not initialised, a value that is not kept."""
    return code.without({at})


def _other_immediate(rng: random.Random, code: Code, at: int) -> Code:
    insn = code.nodes[at].insn
    imm = rng.choice((insn.imm + 1, insn.imm - 1, insn.imm * 2, insn.imm // 2, -insn.imm, 0, rng.choice(_NUMBERS)))
    return code.with_insn(at, replace(insn, imm=max(-1 << 31, min((1 << 31) - 1, imm))))


def _other_offset(rng: random.Random, code: Code, at: int) -> Code:
    insn = code.nodes[at].insn
    off = insn.off + rng.choice((1, -1, 4, -4, 8, -8, 64, -512))
    return code.with_insn(at, replace(insn, off=max(-0x8000, min(0x7FFF, off))))


def _other_size(rng: random.Random, code: Code, at: int) -> Code:
    insn = code.nodes[at].insn
    return code.with_insn(at, replace(insn, opcode=insn.opcode & ~0x18 | rng.choice(list(SIZE_BITS.values()))))


def _other_register(rng: random.Random, code: Code, at: int) -> Code:
    insn, register = code.nodes[at].insn, rng.randrange(11)
    return code.with_insn(at, replace(insn, dst=register) if rng.random() < 0.5 else replace(insn, src=register))


def _other_comparison(rng: random.Random, code: Code, at: int) -> Code:
    insn = code.nodes[at].insn
    return code.with_insn(at, replace(insn, opcode=insn.opcode & 0x0F | rng.choice(list(JUMP_CODES.values()))))


def _other_width(rng: random.Random, code: Code, at: int) -> Code:
    """32 bits for 64, or 64 for 32, of arithmetic and of comparisons."""
    insn = code.nodes[at].insn
    flip = {4: 7, 7: 4, 5: 6, 6: 5}
    return code.with_insn(at, replace(insn, opcode=insn.opcode & 0xF8 | flip[insn.opcode & 7]))


def _other_helper(rng: random.Random, code: Code, at: int) -> Code:
    insn = code.nodes[at].insn
    return code.with_insn(at, replace(insn, imm=rng.choice((1, 2, 3, 5, 7, 8, 12, 14, 23, 25, 28, 44, 51, 87, 999))))


def _other_target(rng: random.Random, code: Code, at: int) -> Code:
    labels = (*code.labels, rng.randrange(len(code.nodes)))
    return Code(code.nodes, labels).with_node(at, Node(code.nodes[at].insn, len(labels) - 1))


def _swap(rng: random.Random, code: Code, at: int) -> Code:
    if at + 1 >= len(code.nodes):
        return code
    first, second = code.nodes[at], code.nodes[at + 1]
    return code.with_node(at, second).with_node(at + 1, first)


def _insert(rng: random.Random, code: Code, at: int) -> Code:
    register = rng.randrange(10)
    added = rng.choice(
        (Insn(0xB7, register), Insn(0xBF, register, 10), Insn(0x85, imm=7), Insn(0x95), Insn(0x07, register, imm=8))
    )
    return code.inserted(at, Node(added))


_NUMBERS = (0, 1, -1, 4, 7, 8, 16, 63, 64, 255, 512, 0x7FFF, 0xFFFF, 0x7FFFFFFF, -0x80000000)

_CHANGES: dict[Change, int] = {
    _drop: 3, _drop_test: 4, _drop_call: 2, _drop_store: 2, _other_immediate: 4, _other_offset: 3, _other_size: 2,
    _other_register: 3, _other_comparison: 2, _other_width: 1, _other_helper: 1, _other_target: 1, _swap: 1, _insert: 1,
}  # fmt: skip


def _has_immediate(insn: Insn) -> bool:
    return (
        insn.opcode != LD_IMM64_OPCODE and insn.row.kind not in (Kind.CALL, Kind.ATOMIC, Kind.END) and not insn.row.reg
    )


_WHERE: dict[Change, Callable[[Insn], bool]] = {
    _drop_test: lambda insn: insn.row.kind is Kind.BRANCH,
    _drop_call: lambda insn: insn.row.kind is Kind.CALL and insn.src != CALL_SUBPROGRAM,
    _drop_store: lambda insn: insn.row.kind in (Kind.STORE, Kind.STORE_IMM),
    _other_immediate: _has_immediate,
    _other_offset: lambda insn: insn.row.kind in _MEMORY,
    _other_size: lambda insn: insn.row.kind in _MEMORY,
    _other_register: lambda insn: insn.row.kind not in (Kind.CALL, Kind.EXIT, Kind.JUMP, Kind.LOAD_IMM64),
    _other_comparison: lambda insn: insn.row.kind is Kind.BRANCH,
    _other_width: lambda insn: insn.row.kind in (Kind.ALU, Kind.BRANCH),
    _other_helper: lambda insn: insn.row.kind is Kind.CALL and insn.src == 0,
    _other_target: lambda insn: insn.row.kind in (Kind.BRANCH, Kind.JUMP),
}
