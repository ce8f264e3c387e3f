"""Programs as lists of instructions, for tests of engines: short names, no text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bpflisp.spec.insn import Insn, encode
from bpflisp.spec.isa import (
    ALU_CODES,
    JUMP_CODES,
    LD_IMM64_OPCODE,
    PSEUDO_FUNC,
    PSEUDO_MAP_IDX,
    PSEUDO_MAP_IDX_VALUE,
    SIZE_BITS,
    Op,
)
from simulator.program import MapDef, Program


def imm(op: Op, dst: int, value: int, width: int = 64, off: int = 0) -> Insn:
    """dst = dst op value."""
    return Insn((7 if width == 64 else 4) | ALU_CODES[op], dst, 0, off, value)


def reg(op: Op, dst: int, src: int, width: int = 64, off: int = 0) -> Insn:
    """dst = dst op src."""
    return Insn((7 if width == 64 else 4) | 8 | ALU_CODES[op], dst, src, off)


def mov(dst: int, value: int) -> Insn:
    """dst = value, sign-extended from 32 bits."""
    return imm(Op.MOV, dst, value)


def copy(dst: int, src: int) -> Insn:
    """dst = src."""
    return reg(Op.MOV, dst, src)


def big(dst: int, value: int) -> Insn:
    """dst = 64 bits."""
    high = value >> 32 & 0xFFFFFFFF
    low = value & 0xFFFFFFFF
    return Insn(LD_IMM64_OPCODE, dst, 0, 0, low - (low >> 31 << 32), high - (high >> 31 << 32))


def map_of(dst: int, index: int) -> Insn:
    """dst = a map."""
    return Insn(LD_IMM64_OPCODE, dst, PSEUDO_MAP_IDX, 0, index)


def value_of(dst: int, index: int, offset: int = 0) -> Insn:
    """dst = an address in a map's value."""
    return Insn(LD_IMM64_OPCODE, dst, PSEUDO_MAP_IDX_VALUE, 0, index, offset)


def function(dst: int, distance: int) -> Insn:
    """dst = a function, so many slots after the next instruction's first."""
    return Insn(LD_IMM64_OPCODE, dst, PSEUDO_FUNC, 0, distance)


def load(size: int, dst: int, src: int, off: int = 0, signed: bool = False) -> Insn:
    """dst = *(src + off)."""
    return Insn(0x01 | (0x80 if signed else 0x60) | SIZE_BITS[size], dst, src, off)


def store(size: int, dst: int, off: int, src: int) -> Insn:
    """*(dst + off) = src."""
    return Insn(0x63 | SIZE_BITS[size], dst, src, off)


def store_imm(size: int, dst: int, off: int, value: int) -> Insn:
    """*(dst + off) = value."""
    return Insn(0x62 | SIZE_BITS[size], dst, 0, off, value)


def atomic(size: int, code: int, dst: int, off: int, src: int) -> Insn:
    """An atomic instruction by its immediate."""
    return Insn(0xC3 | SIZE_BITS[size], dst, src, off, code)


def jump(distance: int) -> Insn:
    """Always."""
    return Insn(0x05, off=distance)


def branch(op: Op, dst: int, value: int, distance: int, width: int = 64) -> Insn:
    """If dst op value."""
    return Insn((5 if width == 64 else 6) | JUMP_CODES[op], dst, 0, distance, value)


def branch_reg(op: Op, dst: int, src: int, distance: int, width: int = 64) -> Insn:
    """If dst op src."""
    return Insn((5 if width == 64 else 6) | 8 | JUMP_CODES[op], dst, src, distance)


def call(helper: int) -> Insn:
    """A helper."""
    return Insn(0x85, imm=helper)


def call_function(distance: int) -> Insn:
    """A function of the program."""
    return Insn(0x85, src=1, imm=distance)


EXIT = Insn(0x95)


def program(code: Iterable[Insn], kind: str = "conformance", maps: Sequence[MapDef] = (), **more: str) -> Program:
    """A program of these instructions."""
    return Program(encode(code), kind, tuple(maps), **more)  # type: ignore[arg-type]
