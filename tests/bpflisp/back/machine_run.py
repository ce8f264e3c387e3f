"""A tiny interpreter of instructions over `spec.insn` and `spec.alu` alone, for compiled functions without an object.

It knows nothing of engines and verifier; registers that a call destroys are filled with rubbish.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bpflisp.back import Code
from bpflisp.ir.interp import Helper, Memory, TrapError
from bpflisp.spec import isa
from bpflisp.spec.alu import M64, byte_order, compare, compute, signed
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Kind, Op

STACK_TOP = 0x6000_0200
RUBBISH = 0xDEAD_BEEF_0BAD_F00D
Symbols = Mapping[tuple[str, str], int]


class Machine:
    """Runs one function; `symbols` maps (kind, name) to an address."""

    def __init__(self, code: Code, memory: Memory, helper: Helper, symbols: Symbols) -> None:
        self.memory = memory
        self.helper = helper
        self.symbols = symbols
        self.relocations = {relocation.at: relocation for relocation in code.relocations}
        self.at: dict[int, Insn] = {}
        slot = 0
        for insn in code.insns:
            assert not insn.reserved(), insn
            self.at[slot] = insn
            slot += insn.slots
        self.registers = [RUBBISH + n for n in range(11)]

    def run(self, args: Sequence[int], steps: int = 200_000) -> int:
        self.memory.add(STACK_TOP - 512, bytes(512))
        self.registers[1 : 1 + len(args)] = list(args)
        self.registers[10] = STACK_TOP
        pc = 0
        for _ in range(steps):
            insn = self.at[pc]
            if insn.row.kind is Kind.EXIT:
                return self.registers[0]
            pc = self.step(insn, pc)
        raise TrapError("the machine code does not come to an end")

    def step(self, insn: Insn, pc: int) -> int:
        regs, row = self.registers, insn.row
        following = pc + insn.slots
        right = regs[insn.src] if row.reg else insn.imm & M64
        match row.kind:
            case Kind.ALU:
                result = compute(row.op, row.width, regs[insn.dst], right)
                regs[insn.dst] = result
            case Kind.NEG:
                regs[insn.dst] = compute(Op.NEG, row.width, regs[insn.dst], 0)
            case Kind.END:
                regs[insn.dst] = byte_order(row.op, insn.imm, regs[insn.dst])
            case Kind.LOAD | Kind.LOAD_SIGNED:
                number = self.memory.read(regs[insn.src] + insn.off & M64, row.size)
                regs[insn.dst] = signed(number, row.size * 8) & M64 if row.kind is Kind.LOAD_SIGNED else number
            case Kind.STORE | Kind.STORE_IMM:
                self.memory.write(regs[insn.dst] + insn.off & M64, row.size, right)
            case Kind.LOAD_IMM64:
                known = self.relocations.get(pc)
                symbol = None if known is None else self.symbols[known.kind, known.symbol] + known.addend
                regs[insn.dst] = insn.imm64 if symbol is None else symbol
            case Kind.ATOMIC:
                self._atomic(insn)
            case Kind.JUMP:
                return following + (insn.off if row.width == 16 else insn.imm)
            case Kind.BRANCH:
                return following + (insn.off if compare(row.op, row.width, regs[insn.dst], right) else 0)
            case Kind.CALL:
                assert insn.src == isa.CALL_HELPER
                regs[0] = self.helper(insn.imm, regs[1:6], self.memory) & M64
                regs[1:6] = [RUBBISH + n for n in range(5)]
            case _:
                raise TrapError(f"no meaning for {insn}")
        return following

    def _atomic(self, insn: Insn) -> None:
        regs, row = self.registers, insn.row
        address = regs[insn.dst] + insn.off & M64
        old = self.memory.read(address, row.size)
        if row.op is Op.CMPXCHG:
            if old == regs[0] & ((1 << row.width) - 1):
                self.memory.write(address, row.size, regs[insn.src])
            regs[0] = old
            return
        self.memory.write(address, row.size, compute(row.op, row.width, old, regs[insn.src]))
        if row.fetch:
            regs[insn.src] = old
