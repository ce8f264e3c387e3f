"""An instruction as text, exactly as the kernel's verifier prints it in its log.

Held against the answers of kernel 6.18.44 for every row of the instruction table (fixtures/text/kernel-6.18.jsonl).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import (
    ALU32,
    CALL_HELPER,
    CALL_KFUNC,
    CALL_SUBPROGRAM,
    JMP,
    JMP32,
    LD,
    LDX,
    MODE_ATOMIC,
    SIZE_BITS,
    ST,
    STX,
    Kind,
    Op,
)

_ALU: Final = MappingProxyType(
    {
        Op.ADD: "+=", Op.SUB: "-=", Op.MUL: "*=", Op.DIV: "/=", Op.SDIV: "s/=", Op.OR: "|=", Op.AND: "&=",
        Op.LSH: "<<=", Op.RSH: ">>=", Op.MOD: "%=", Op.SMOD: "s%=", Op.XOR: "^=", Op.MOV: "=", Op.ARSH: "s>>=",
        Op.MOVSX8: "= (s8)", Op.MOVSX16: "= (s16)", Op.MOVSX32: "= (s32)",
    }
)  # fmt: skip

_COMPARISON: Final = MappingProxyType(
    {
        Op.EQ: "==", Op.NE: "!=", Op.GT: ">", Op.GE: ">=", Op.LT: "<", Op.LE: "<=", Op.SET: "&",
        Op.SGT: "s>", Op.SGE: "s>=", Op.SLT: "s<", Op.SLE: "s<=",
    }
)  # fmt: skip

_SIGN_EXTENDING = frozenset({Op.MOVSX8, Op.MOVSX16, Op.MOVSX32})

# The offsets of a 64-bit register move that make it another instruction.
_ADDR_SPACE_CAST, _PERCPU_ADDRESS = 1, -1

_CLASS_NAMES: Final = MappingProxyType({LD: "ld_", LDX: "ldx_", ST: "st_", STX: ""})


def insn_text(
    insn: Insn, helpers: Mapping[int, str] = MappingProxyType({}), kfunc: str = "", imm64: int | None = None
) -> str:
    """The log's text of an instruction, opcode included: "(b7) r0 = 0".

    `helpers` has the names of the helpers that the kernel knows, by id: "bpf_map_lookup_elem". `kfunc` is the name of
    the kernel function that a call of one names. `imm64` is what the kernel prints for a 64-bit load in place of the
    immediate as the program has it: it has put an address there for a map or a kernel variable.
    """
    if insn.row.kind is Kind.UNKNOWN:
        return _unknown(insn)
    return f"({insn.opcode:02x}) {_body(insn, helpers, kfunc, imm64)}"


def _body(insn: Insn, helpers: Mapping[int, str], kfunc: str, imm64: int | None) -> str:
    match insn.row.kind:
        case Kind.ALU:
            return _arithmetic(insn)
        case Kind.NEG:
            name = _register_letter(insn)
            return f"{name}{insn.dst} = -{name}{insn.dst}"
        case Kind.END:
            return f"r{insn.dst} = {insn.row.op.value}{insn.imm} r{insn.dst}"
        case Kind.LOAD | Kind.LOAD_SIGNED | Kind.STORE | Kind.STORE_IMM | Kind.LOAD_PACKET:
            return _load_or_store(insn)
        case Kind.ATOMIC | Kind.LOAD_ACQUIRE | Kind.STORE_RELEASE:
            return _atomic(insn)
        case Kind.LOAD_IMM64:
            return f"r{insn.dst} = 0x{insn.imm64 if imm64 is None else imm64:x}"
        case Kind.CALL | Kind.CALL_REG:
            return _call(insn, helpers, kfunc)
        case Kind.EXIT:
            return "exit"
        case _:
            return _jump(insn)


def _register_letter(insn: Insn) -> str:
    return "w" if insn.row.width == 32 else "r"


def _arithmetic(insn: Insn) -> str:
    if insn.row.op is Op.MOV and insn.row.reg and insn.row.width == 64:
        if insn.off == _ADDR_SPACE_CAST:
            high, low = insn.imm >> 16 & 0xFFFF, insn.imm & 0xFFFF
            return f"r{insn.dst} = addr_space_cast(r{insn.src}, {high}, {low})"
        if insn.off == _PERCPU_ADDRESS:
            return f"r{insn.dst} = &(void __percpu *)(r{insn.src})"
    name = _register_letter(insn)
    operand = f"{name}{insn.src}" if insn.row.reg else str(insn.imm)
    # The log writes a sign extension without a space: r0 = (s8)r1.
    space = "" if insn.row.op in _SIGN_EXTENDING else " "
    return f"{name}{insn.dst} {_ALU[insn.row.op]}{space}{operand}"


def _memory(insn: Insn, base: int, sign: str = "u") -> str:
    return f"({sign}{insn.row.size * 8} *)(r{base} {insn.off:+d})"


def _load_or_store(insn: Insn) -> str:
    match insn.row.kind:
        case Kind.LOAD:
            return f"r{insn.dst} = *{_memory(insn, insn.src)}"
        case Kind.LOAD_SIGNED:
            return f"r{insn.dst} = *{_memory(insn, insn.src, 's')}"
        case Kind.STORE:
            return f"*{_memory(insn, insn.dst)} = r{insn.src}"
        case Kind.STORE_IMM:
            return f"*{_memory(insn, insn.dst)} = {insn.imm}"
        case _:
            where = f"r{insn.src} + {insn.imm}" if insn.row.reg else str(insn.imm)
            return f"r0 = *(u{insn.row.size * 8} *)skb[{where}]"


def _atomic(insn: Insn) -> str:
    row = insn.row
    wide = "64" if row.size == 8 else ""
    if row.kind is Kind.LOAD_ACQUIRE:
        return f"r{insn.dst} = load_acquire({_memory(insn, insn.src)})"
    address = _memory(insn, insn.dst)
    if row.kind is Kind.STORE_RELEASE:
        return f"store_release({address}, r{insn.src})"
    if row.op is Op.CMPXCHG:
        return f"r0 = atomic{wide}_cmpxchg({address}, r0, r{insn.src})"
    if row.op is Op.XCHG:
        return f"r{insn.src} = atomic{wide}_xchg({address}, r{insn.src})"
    if row.fetch:
        return f"r{insn.src} = atomic{wide}_fetch_{row.op.value}({address}, r{insn.src})"
    return f"lock *{address} {_ALU[row.op]} r{insn.src}"


def _call(insn: Insn, helpers: Mapping[int, str], kfunc: str) -> str:
    if insn.src == CALL_SUBPROGRAM:
        return f"call pc{insn.imm:+d}"
    if insn.src == CALL_HELPER:
        return f"call {helpers.get(insn.imm, 'unknown')}#{insn.imm}"
    return f"call {kfunc or ('kernel-function' if insn.src == CALL_KFUNC else 'unknown')}#{insn.imm}"


def _jump(insn: Insn) -> str:
    row = insn.row
    if row.kind is Kind.MAY_GOTO:
        return f"may_goto pc{insn.off:+d}"
    if row.kind is Kind.JUMP:
        return f"goto pc{insn.off:+d}" if row.width == 16 else f"gotol pc{insn.imm:+d}"
    name = _register_letter(insn)
    operand = f"{name}{insn.src}" if row.reg else f"0x{insn.imm & 0xFFFFFFFF:x}"
    return f"if {name}{insn.dst} {_COMPARISON[row.op]} {operand} goto pc{insn.off:+d}"


_NARROW_ATOMICS: Final = {0x00: Op.ADD, 0x40: Op.OR, 0x50: Op.AND, 0xA0: Op.XOR}


def _narrow_atomic(insn: Insn) -> str:
    """A read-modify-write of one or two bytes, which the log knows how to print though no kernel takes it."""
    bits = {size: 8 * length for length, size in SIZE_BITS.items()}[insn.opcode & 0x18]
    address = f"(u{bits} *)(r{insn.dst} {insn.off:+d})"
    if insn.imm == 0xF1:
        return f"r0 = atomic_cmpxchg({address}, r0, r{insn.src})"
    if insn.imm == 0xE1:
        return f"r{insn.src} = atomic_xchg({address}, r{insn.src})"
    op = _NARROW_ATOMICS.get(insn.imm & ~1)
    if op is None:
        return ""
    if insn.imm & 1:
        return f"r{insn.src} = atomic_fetch_{op.value}({address}, r{insn.src})"
    return f"lock *{address} {_ALU[op]} r{insn.src}"


def _unknown(insn: Insn) -> str:
    """What is no instruction. The kernel refuses these before it prints; the words are its own for such a case."""
    cls = insn.opcode & 7
    if cls in (JMP, JMP32):
        return f"({insn.opcode:02x}) {'jmp32' if cls == JMP32 else 'jmp'}"
    if insn.opcode & 0xE7 == STX | MODE_ATOMIC:
        narrow = _narrow_atomic(insn)
        return f"({insn.opcode:02x}) {narrow}" if narrow else f"BUG_{insn.opcode:02x}"
    if cls in _CLASS_NAMES:
        return f"BUG_{_CLASS_NAMES[cls]}{insn.opcode:02x}"
    return f"({insn.opcode:02x}) {'alu' if cls == ALU32 else 'alu64'}"
