"""What is known of places after allocation: a reload of what a register holds is a copy, or nothing; loops forget."""

from bpflisp.back.machine import ADD_IMM, MOV_REG, MBlock, MFunction, MInsn
from bpflisp.back.regalloc import LOAD64, STORE64
from bpflisp.back.repeated import drop_repeated
from bpflisp.ir.ssa import Slot
from bpflisp.spec import isa
from bpflisp.spec.isa import FRAME_POINTER, Op

EXIT = isa.JMP | isa.EXIT_CODE
CALL = isa.JMP | isa.CALL_CODE


def copy(dst: int, src: int) -> MInsn:
    return MInsn(MOV_REG, dst, src)


def spill(slot: Slot, register: int) -> MInsn:
    return MInsn(STORE64, FRAME_POINTER, register, slot=slot)


def reload(register: int, slot: Slot) -> MInsn:
    return MInsn(LOAD64, register, FRAME_POINTER, slot=slot)


def left(*insns: MInsn) -> list[tuple[int, int, int]]:
    block = MBlock(list(insns), MInsn(EXIT))
    drop_repeated(MFunction("f", [block]))
    return [(insn.opcode, insn.dst, insn.src) for insn in block.body]


def test_a_copy_back_goes() -> None:
    assert left(copy(6, 1), copy(1, 6)) == [(MOV_REG, 6, 1)]
    assert left(copy(6, 3), copy(3, 6)) == [(MOV_REG, 6, 3)]


def test_not_after_the_register_has_another_value() -> None:
    call = MInsn(CALL, imm=7)
    assert len(left(copy(6, 1), call, copy(1, 6))) == 3
    assert len(left(copy(6, 3), MInsn(ADD_IMM, 3, imm=1), copy(3, 6))) == 3


def test_a_reload_of_what_a_register_holds() -> None:
    slot = Slot(8, 8, "spill")
    assert left(spill(slot, 1), reload(1, slot)) == [(STORE64, FRAME_POINTER, 1)]
    assert left(spill(slot, 1), reload(2, slot)) == [(STORE64, FRAME_POINTER, 1), (MOV_REG, 2, 1)]
    call = MInsn(CALL, imm=7)
    assert left(spill(slot, 1), call, reload(2, slot))[2] == (LOAD64, 2, FRAME_POINTER)


def test_a_value_is_not_stored_where_it_is() -> None:
    slot = Slot(8, 8, "spill")
    assert len(left(spill(slot, 6), copy(7, 6), spill(slot, 7))) == 2


def test_what_a_turn_before_wrote_is_not_what_this_one_writes() -> None:
    """r6 keeps r0 of the turn before; r0 is written anew, by the same instruction."""
    call, keep, back = MInsn(CALL, imm=7), copy(6, 0), copy(0, 6)
    test = MInsn(isa.JMP | isa.JUMP_CODES[Op.EQ], 0, imm=5)
    entry, head, body, done = MBlock([copy(6, 1)]), MBlock([call], test), MBlock([back, keep]), MBlock([], MInsn(EXIT))
    entry.targets, head.targets, body.targets = [head], [body, done], [head]
    drop_repeated(MFunction("f", [entry, head, body, done]))
    # r0 = r6 brings back the turn before; r6 = r0 after it does nothing.
    assert body.body == [back]
    assert head.body == [call]
