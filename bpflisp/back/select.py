"""Instruction selection: from the legalised intermediate form to machine code over virtual registers.

Every value gets a virtual register; leaves are materialised where they are used, unless the instruction takes them as
an immediate or as a stack offset. An instruction of two addresses copies its left operand first; a call moves its
arguments into r1 to r5; the allocator coalesces these copies. Edges become copies too: see `edges.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bpflisp.back.bases import bases
from bpflisp.back.edges import place_edge_copies
from bpflisp.back.machine import ADD_IMM, ARGUMENTS, MOV_IMM, MOV_REG, BackError, MBlock, MFunction, MInsn, Symbol, lea
from bpflisp.back.target import Target
from bpflisp.ir import ssa
from bpflisp.ir.ssa import Function, Instr, Slot, Value
from bpflisp.spec import isa
from bpflisp.spec.alu import signed
from bpflisp.spec.isa import ALU32, ALU64, ALU_BY_OFFSET, ALU_CODES, FRAME_POINTER, JMP, JMP32, SRC_REG, Op

_OFFSETS = {op: (base, off) for (base, off), op in ALU_BY_OFFSET.items()}
_ATOMIC_IMM = {operation: imm for imm, operation in isa.ATOMICS.items()}
_COMMUTATIVE = frozenset({Op.ADD, Op.MUL, Op.AND, Op.OR, Op.XOR})
_SWAPPED = {
    Op.EQ: Op.EQ, Op.NE: Op.NE, Op.SET: Op.SET, Op.GT: Op.LT, Op.LT: Op.GT, Op.GE: Op.LE, Op.LE: Op.GE,
    Op.SGT: Op.SLT, Op.SLT: Op.SGT, Op.SGE: Op.SLE, Op.SLE: Op.SGE,
}  # fmt: skip
_SIGN_EXTENSION = {8: 8, 16: 16, 32: 32}


def select(function: Function, target: Target) -> MFunction:
    """Machine code for a legalised function, its edges still without their copies resolved into blocks' bodies."""
    return _Selector(function, target).run()


def fits(number: int, width: int = 64) -> bool:
    """Whether an instruction of that width can hold the number as its 32-bit, sign-extended immediate."""
    return width == 32 or -(1 << 31) <= signed(number, 64) < 1 << 31


class _Selector:
    def __init__(self, function: Function, target: Target) -> None:
        self.function = function
        self.target = target
        self.machine = MFunction(function.name)
        self.registers: dict[Value, int] = {}
        self.blocks = {block: MBlock() for block in function.blocks}
        self.uses = ssa.count_uses(function.instructions())
        self.carried = _carried(function)
        self.bases = bases(function)
        self.local: set[Value] = set()
        self.body: list[MInsn] = []
        self.position: ssa.Position | None = None

    def run(self) -> MFunction:
        self.machine.blocks = list(self.blocks.values())
        entry = self.blocks[self.function.entry]
        self.body = entry.body
        for number, param in enumerate(self.function.params, 1):
            if self.uses.get(param):
                self.emit(MOV_REG, self.register(param), number)
        copies = {}
        for block, machine in self.blocks.items():
            self.body = machine.body
            self.local = {*block.params, *block.body}
            for instr in block.body:
                self.position = instr.position
                self._select(instr)
            self.position = block.terminator.position
            machine.position = self.position
            self._terminate(block.terminator, machine)
            for number, edge in enumerate(block.terminator.edges()):
                if edge.block.params:
                    copies[machine, number] = [
                        (self.register(param), value)
                        for param, value in zip(edge.block.params, edge.args, strict=True)
                        if self.uses.get(param)
                    ]
        place_edge_copies(self.machine, copies, self._move)
        return self.machine

    # Values

    def register(self, value: Value) -> int:
        """The virtual register of a value that is no leaf."""
        register = self.registers.get(value)
        if register is None:
            register = self.registers[value] = self.machine.register()
        return register

    def value(self, value: Value) -> int:
        """A register that holds the value; a leaf is put into a new one."""
        if not isinstance(value, ssa.Leaf):
            return self.register(value)
        register = self.machine.register()
        self.body += self._move(register, value)
        return register

    def _move(self, register: int, value: Value) -> list[MInsn]:
        """Instructions that put a value into a register."""
        at = self.position
        if not isinstance(value, ssa.Leaf):
            return [MInsn(MOV_REG, register, self.register(value), position=at)]
        match value:
            case ssa.Const(number):
                return [load_constant(register, number, self.target, at)]
            case ssa.MapRef(name):
                return [_load_symbol(register, isa.PSEUDO_MAP_FD, Symbol("map", name), at)]
            case ssa.DataRef(name, addend):
                return [_load_symbol(register, isa.PSEUDO_MAP_VALUE, Symbol("data", name, addend), at)]
            case ssa.FuncRef(name):
                return [_load_symbol(register, isa.PSEUDO_FUNC, Symbol("func", name), at)]
            case ssa.TypeRef(number):
                insn = MInsn(isa.LD_IMM64_OPCODE, register, isa.PSEUDO_BTF_ID, imm=signed(number, 32), position=at)
                return [insn]
            case Slot():
                return [lea(register, value, at)]
        raise BackError(f"no machine form for {type(value).__name__}", at)

    def emit(self, opcode: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> MInsn:
        insn = MInsn(opcode, dst, src, off, imm, position=self.position)
        self.body.append(insn)
        return insn

    def copy(self, dst: int, value: Value) -> None:
        """Put a value into this register."""
        self.body += self._move(dst, value)

    # Instructions

    def _select(self, instr: Instr) -> None:
        form = _FORMS.get(type(instr))
        if form is None:
            raise BackError(f"no machine form for {type(instr).__name__}", instr.position)
        form(self, instr)

    def _binary(self, instr: ssa.Binary) -> None:
        left, right = instr.args
        cls = ALU64 if instr.width == 64 else ALU32
        if instr.op in _COMMUTATIVE and self._better_swapped(instr):
            left, right = right, left
        result = self.register(instr)
        if instr.op is Op.SUB and left == ssa.const(0):
            self.copy(result, right)
            self.emit(cls | isa.NEG_CODE, result)
            return
        base, off = _OFFSETS.get(instr.op, (instr.op, 0))
        if isinstance(right, ssa.Const) and fits(right.number, instr.width):
            imm = signed(right.number, 32)
            self.copy(result, left)
            if instr.op is Op.SUB and imm != -(1 << 31):
                self.emit(cls | ALU_CODES[Op.ADD], result, imm=-imm)
            else:
                self.emit(cls | ALU_CODES[base], result, off=off, imm=imm)
            return
        other = self.value(right)
        self.copy(result, left)
        self.emit(cls | SRC_REG | ALU_CODES[base], result, other, off=off)

    def _better_swapped(self, instr: ssa.Binary) -> bool:
        """Whether the result had better take the right operand's register: the address (see `bases`), else the loop
        variable that it is the next value of, else the operand that is not needed any more.
        """
        left, right = instr.args
        if instr in self.bases:
            return self.bases[instr] is right
        if isinstance(left, ssa.Leaf) or isinstance(right, ssa.Leaf):
            return isinstance(left, ssa.Leaf)
        carried = self.carried.get(instr)
        if carried is not None and carried in (left, right):
            return carried is right
        return self._ends_here(right) and not self._ends_here(left)

    def _ends_here(self, value: Value) -> bool:
        """Whether the instruction at hand is the only one to use the value, and in its own block."""
        return self.uses.get(value, 0) == 1 and value in self.local

    def _extend(self, instr: ssa.Extend) -> None:
        source = self.value(instr.args[0])
        result = self.register(instr)
        if instr.signed:
            self.emit(MOV_REG, result, source, off=_SIGN_EXTENSION[instr.bits])
        elif instr.bits == 32:
            self.emit(ALU32 | SRC_REG | ALU_CODES[Op.MOV], result, source)
        else:
            self.emit(MOV_REG, result, source)
            self.emit(ALU64 | ALU_CODES[Op.AND], result, imm=(1 << instr.bits) - 1)

    def _byte_order(self, instr: ssa.ByteOrder) -> None:
        result = self.register(instr)
        self.copy(result, instr.args[0])
        opcode = ALU64 | isa.END_CODE if instr.op is Op.SWAP else ALU32 | SRC_REG | isa.END_CODE
        self.emit(opcode, result, imm=instr.bits)

    def _load(self, instr: ssa.Load | ssa.ContextLoad) -> None:
        mode = isa.MODE_MEMSX if instr.signed else isa.MODE_MEM
        opcode = isa.LDX | mode | isa.SIZE_BITS[instr.size]
        base, slot, off = self._address(instr.args[0], instr.off)
        insn = self.emit(opcode, self.register(instr), base, off)
        insn.slot, insn.core = slot, instr.core

    def _address(self, address: Value, off: int) -> tuple[int, Slot | None, int]:
        """The base register, the slot if the base is the frame, and the offset that the instruction can hold."""
        if isinstance(address, Slot):
            return FRAME_POINTER, address, off
        if not -(1 << 15) <= off < 1 << 15:
            base = self.machine.register()
            self.copy(base, address)
            self.emit(ADD_IMM, base, imm=off)
            return base, None, 0
        return self.value(address), None, off

    def _store(self, instr: ssa.Store | ssa.ContextStore) -> None:
        address, value = instr.args
        base, slot, off = self._address(address, instr.off)
        stored = signed(value.number, instr.size * 8) if isinstance(value, ssa.Const) else None
        # The kernel refuses an immediate store to the context below 6.x: a register always works.
        if stored is not None and fits(stored) and not isinstance(instr, ssa.ContextStore):
            insn = self.emit(isa.ST | isa.MODE_MEM | isa.SIZE_BITS[instr.size], base, off=off, imm=stored)
        else:
            source = self.value(value)
            insn = self.emit(isa.STX | isa.MODE_MEM | isa.SIZE_BITS[instr.size], base, source, off)
        insn.slot, insn.core = slot, instr.core

    def _zero(self, instr: ssa.Zero) -> None:
        slot = instr.args[0]
        if not isinstance(slot, Slot):
            raise BackError("only a stack slot is zeroed as a whole", instr.position)
        for off, size in chunks(instr.off, instr.size, alignment(slot)):
            insn = self.emit(isa.ST | isa.MODE_MEM | isa.SIZE_BITS[size], FRAME_POINTER, off=off)
            insn.slot = slot

    def _atomic(self, instr: ssa.Atomic) -> None:
        base, slot, off = self._address(instr.args[0], instr.off)
        opcode = isa.STX | isa.MODE_ATOMIC | isa.SIZE_BITS[instr.size]
        fetch = ssa.has_result(instr)
        imm = _ATOMIC_IMM[instr.op, fetch]
        if instr.op is Op.CMPXCHG:
            new = self.value(instr.args[2])
            self.copy(0, instr.args[1])
            insn = self.emit(opcode, base, new, off, imm)
            insn.reads = (0,)
            self.emit(MOV_REG, self.register(instr), 0)
        elif fetch:
            self.copy(self.register(instr), instr.args[1])
            insn = self.emit(opcode, base, self.register(instr), off, imm)
        else:
            source = self.value(instr.args[1])
            insn = self.emit(opcode, base, source, off, imm)
        insn.slot = slot

    def _call(self, instr: ssa.Call) -> None:
        if len(instr.args) > len(ARGUMENTS):
            raise BackError(f"a call takes up to five arguments, and here are {len(instr.args)}", instr.position)
        for register, value in sorted(zip(ARGUMENTS, instr.args, strict=False), key=lambda pair: _late(pair[1])):
            self.copy(register, value)
        insn = self.emit(JMP | isa.CALL_CODE, imm=instr.number)
        insn.reads = ARGUMENTS[: len(instr.args)]
        if instr.kind is ssa.CallKind.SUBPROGRAM:
            insn.src, insn.imm, insn.symbol = isa.CALL_SUBPROGRAM, -1, Symbol("call", instr.symbol)
        elif instr.kind is ssa.CallKind.KFUNC:
            insn.src, insn.imm, insn.symbol = isa.CALL_KFUNC, -1, Symbol("kfunc", instr.symbol)
        if self.uses.get(instr):
            self.emit(MOV_REG, self.register(instr), 0)

    def _asm(self, instr: ssa.Asm) -> None:
        for register, value in zip(instr.inputs, instr.args, strict=True):
            self.copy(register, value)
        raw = instr.insn
        insn = self.emit(raw.opcode, raw.dst, raw.src, raw.off, raw.imm)
        insn.imm_high, insn.raw, insn.reads = raw.imm_high, True, instr.inputs
        insn.writes = tuple(dict.fromkeys((*instr.clobbers, *(() if instr.result is None else (instr.result,)))))
        if instr.result is not None and self.uses.get(instr):
            self.emit(MOV_REG, self.register(instr), instr.result)

    # Terminators

    def _terminate(self, end: ssa.Terminator, block: MBlock) -> None:
        block.targets = [self.blocks[edge.block] for edge in end.edges()]
        match end:
            case ssa.Branch():
                block.end = self._branch(end)
            case ssa.Return():
                if end.args or self.function.program:
                    self.copy(0, end.args[0] if end.args else ssa.const(0))
                block.end = MInsn(JMP | isa.EXIT_CODE, position=self.position)
                if not end.args and not self.function.program:
                    block.end.raw = True
            case ssa.Unreachable():
                raise BackError("a block that cannot be reached is left in the function", end.position)

    def _branch(self, end: ssa.Branch) -> MInsn:
        cls = JMP if end.width == 64 else JMP32
        left, right = end.args
        op = end.op
        if isinstance(left, ssa.Leaf) and self.target.compares(_SWAPPED[op], end.width):
            left, right, op = right, left, _SWAPPED[op]
        if isinstance(right, ssa.Const) and fits(right.number, end.width):
            imm = signed(right.number, 32)
            return MInsn(cls | isa.JUMP_CODES[op], self.value(left), imm=imm, position=self.position)
        first, second = self.value(left), self.value(right)
        return MInsn(cls | SRC_REG | isa.JUMP_CODES[op], first, second, position=self.position)


_FORMS: dict[type[Instr], Callable[[_Selector, Any], None]] = {
    ssa.Binary: _Selector._binary,
    ssa.Extend: _Selector._extend,
    ssa.ByteOrder: _Selector._byte_order,
    ssa.Load: _Selector._load,
    ssa.ContextLoad: _Selector._load,
    ssa.Store: _Selector._store,
    ssa.ContextStore: _Selector._store,
    ssa.Zero: _Selector._zero,
    ssa.Atomic: _Selector._atomic,
    ssa.Call: _Selector._call,
    ssa.Asm: _Selector._asm,
}


def _late(argument: Value) -> int:
    """Where in the row of a call's arguments: those in registers first, so that the registers become free; then what
    is most often different at different calls, so that equal ends of blocks are long.
    """
    kinds = ((ssa.Const, 1), (Slot, 2), (ssa.Leaf, 3))
    return next((order for kind, order in kinds if isinstance(argument, kind)), 0)


def _carried(function: Function) -> dict[Value, ssa.Param]:
    """For each value that an edge hands over, the parameter that it becomes."""
    return {
        arg: param
        for block in function.blocks
        for edge in block.terminator.edges()
        for arg, param in zip(edge.args, edge.block.params, strict=True)
        if isinstance(arg, Instr)
    }


def load_constant(register: int, number: int, target: Target, at: ssa.Position | None) -> MInsn:
    """The shortest instruction that puts a number into a register."""
    number = signed(number, 64)
    if fits(number):
        return MInsn(MOV_IMM, register, imm=number, position=at)
    if 0 <= number < 1 << 32 and target.alu32:
        return MInsn(ALU32 | ALU_CODES[Op.MOV], register, imm=signed(number, 32), position=at)
    high = signed(number >> 32, 32)
    return MInsn(isa.LD_IMM64_OPCODE, register, imm=signed(number, 32), imm_high=high, position=at)


def _load_symbol(register: int, pseudo: int, symbol: Symbol, at: ssa.Position | None) -> MInsn:
    return MInsn(isa.LD_IMM64_OPCODE, register, pseudo, symbol=symbol, position=at)


def alignment(slot: Slot) -> int:
    """What a slot's address is a multiple of: the frame gives eight bytes and more the alignment of eight."""
    return 8 if slot.size >= 8 else max(slot.align, 1)


def chunks(off: int, size: int, align: int) -> list[tuple[int, int]]:
    """Cut bytes from `off` on into aligned accesses of 8, 4, 2 and 1 bytes: (offset, size) of each."""
    pieces = []
    end = off + size
    while off < end:
        step = next(s for s in (8, 4, 2, 1) if s <= align and off % s == 0 and off + s <= end)
        pieces.append((off, step))
        off += step
    return pieces
