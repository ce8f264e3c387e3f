"""From machine code with machine registers to instructions in a row: order of blocks, jumps, frame, relocations."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

from bpflisp.back.frame import lay_out
from bpflisp.back.layout import order_blocks
from bpflisp.back.legalise import INVERSE
from bpflisp.back.machine import (
    ADD_IMM,
    MOV_REG,
    BackError,
    Code,
    CoreRelocation,
    MBlock,
    MFunction,
    MInsn,
    Relocation,
)
from bpflisp.back.target import Target
from bpflisp.ir.ssa import Position, Slot
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import FRAME_POINTER, JA_CODE, JMP, JMP32, JUMP_CODES, LD_IMM64_OPCODE, Kind

_REACH = 1 << 15
_TOO_FAR = "a jump is too far: split the function, or compile for --mcpu v4"


def emit(function: MFunction, target: Target, position: Position | None = None) -> Code:
    """Instructions, relocations and line records of an allocated function."""
    order = order_blocks(function)
    slots = dict.fromkeys(insn.slot for insn in function.instructions() if insn.slot is not None)
    offsets, depth = lay_out(slots, position)
    rows = _Rows(target, offsets)
    for block, following in zip(order, [*order[1:], None], strict=True):
        rows.block(block, following)
    return rows.code(function.name, depth)


class _Rows:
    """The instructions so far. `jumps` has for each where it jumps to, a block or a distance; filled in at the end."""

    def __init__(self, target: Target, frame: dict[Slot, int]) -> None:
        self.target = target
        self.frame = frame
        self.insns: list[MInsn] = []
        self.jumps: list[MBlock | int | None] = []
        self.starts: dict[MBlock, int] = {}

    def block(self, block: MBlock, following: MBlock | None) -> None:
        self.starts[block] = len(self.insns)
        for insn in block.body:
            if insn.slot is not None or insn.is_lea:
                self._in_frame(insn)
            else:
                self._append(insn, None)
        if block.end is None:
            if block.targets[0] is not following:
                self._go_on(block)
        elif not block.targets:
            self._append(block.end, None)
        else:
            self._branch(block.end, block.targets[0], block.targets[1], following)

    def _go_on(self, block: MBlock) -> None:
        """A jump; to a bare exit, the exit itself."""
        target = block.targets[0]
        if target.end is not None and not target.targets and not target.body:
            self._append(replace(target.end, position=block.position), None)
        else:
            self._append(MInsn(JMP | JA_CODE, position=block.position), target)

    def _branch(self, end: MInsn, taken: MBlock, other: MBlock, following: MBlock | None) -> None:
        if taken is other:
            if taken is not following:
                self._append(MInsn(JMP | JA_CODE, position=end.position), taken)
            return
        op, width = end.row.op, end.row.width
        if taken is following and op in INVERSE and self.target.compares(INVERSE[op], width):
            end.opcode ^= JUMP_CODES[op] ^ JUMP_CODES[INVERSE[op]]
            taken, other = other, taken
        self._append(end, taken)
        if other is not following:
            self._append(MInsn(JMP | JA_CODE, position=end.position), other)

    def _append(self, insn: MInsn, jump: MBlock | None) -> None:
        self.insns.append(insn)
        self.jumps.append(jump)

    def _in_frame(self, insn: MInsn) -> None:
        """An access of a stack slot, or its address."""
        base = self.frame[insn.slot] if insn.slot is not None else 0
        if insn.is_lea:
            self._append(MInsn(MOV_REG, insn.dst, FRAME_POINTER, position=insn.position), None)
            self._append(MInsn(ADD_IMM, insn.dst, imm=insn.imm + base, position=insn.position), None)
            return
        insn.off += base
        self._append(insn, None)

    def code(self, name: str, stack: int) -> Code:
        """Fill the distances in, and turn everything into what leaves the back end."""
        self._relax()
        slots = self._slots()
        code = Code(name, [], stack=stack)
        last: Position | None = None
        for index, insn in enumerate(self.insns):
            at = slots[index]
            self._set_distance(index, slots)
            code.insns.append(Insn(insn.opcode, insn.dst, insn.src, insn.off, insn.imm, insn.imm_high))
            if insn.symbol is not None:
                code.relocations.append(Relocation(at, insn.symbol.kind, insn.symbol.name, insn.symbol.addend))
            if insn.core is not None:
                code.core.append(CoreRelocation(at, insn.core))
            if insn.position is not None and insn.position != last:
                code.lines.append((at, insn.position))
                last = insn.position
        return code

    def _slots(self) -> list[int]:
        lengths = (2 if insn.opcode == LD_IMM64_OPCODE else 1 for insn in self.insns)
        return list(accumulate(lengths, initial=0))

    def _distance(self, index: int, slots: list[int]) -> int | None:
        """How far the instruction jumps, in slots; None where it is no jump."""
        jump = self.jumps[index]
        return slots[self.starts[jump]] - slots[index] - 1 if isinstance(jump, MBlock) else jump

    def _relax(self) -> None:
        """Let branches that do not reach their target jump over, or to, a far jump. That moves others apart: repeat."""
        progress = 2 * len(self.insns) >= _REACH  # Of fewer, whatever their lengths, all reach one another.
        while progress:
            progress = False
            slots = self._slots()
            for index in reversed(range(len(self.insns))):
                insn, distance = self.insns[index], self._distance(index, slots)
                if distance is not None and not _reaches(distance) and insn.row.kind is Kind.BRANCH:
                    if not self.target.sign_extension:
                        raise BackError(_TOO_FAR, insn.position)
                    self._jump_by(index)
                    progress = True

    def _jump_by(self, index: int) -> None:
        """A branch to a far block: `if c goto +1; goto +1; goto far`."""
        insn, far = self.insns[index], self.jumps[index]
        added = [MInsn(JMP | JA_CODE, position=insn.position) for _ in range(2)]
        self.insns[index + 1 : index + 1] = added
        self.jumps[index : index + 1] = [1, 1, far]
        self.starts = {block: at + 2 if at > index else at for block, at in self.starts.items()}

    def _set_distance(self, index: int, slots: list[int]) -> None:
        insn, distance = self.insns[index], self._distance(index, slots)
        if distance is None:
            return
        if _reaches(distance):
            insn.off = distance
        elif self.target.sign_extension:
            insn.opcode, insn.imm = JMP32 | JA_CODE, distance
        else:
            raise BackError(_TOO_FAR, insn.position)


def _reaches(distance: int) -> bool:
    return -_REACH <= distance < _REACH
