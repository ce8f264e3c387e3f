"""What each instruction does to a state: one step a slot, made once and run at every visit.

A step returns the slot that the path goes on with, or EXIT. Source: do_check_insn of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import (
    ALU32,
    ALU64,
    CALL_HELPER,
    CALL_KFUNC,
    CALL_SUBPROGRAM,
    JMP,
    JMP32,
    LD,
    LDX,
    ST,
    STX,
    Kind,
    Op,
)  # fmt: skip
from simulator.verifier import access, arithmetic, branches, calls, helper_calls, ownstack, prune, stack
from simulator.verifier import regs as r
from simulator.verifier.calls import EXIT
from simulator.verifier.regs import ZERO, Reg, const_reg, type_name
from simulator.verifier.resolve import CALLBACKS_SINCE, Loaded
from simulator.verifier.stack import UNKNOWN_REG

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine, Run


def make_step(m: Machine, idx: int, insn: Insn) -> Run:
    """The step of one instruction."""
    cls = insn.opcode & 7
    if cls in (ALU32, ALU64):
        return arithmetic.make_step(m, idx, insn)
    kind = insn.row.kind
    if cls == LDX:
        return _load(m, idx, insn, False, False)
    if cls == STX and insn.opcode & 0xE0 == 0xC0:
        return _atomic(m, idx, insn)
    if cls in (ST, STX):
        return _store(m, idx, insn)
    if cls in (JMP, JMP32):
        return _jump(m, idx, insn, kind)
    if cls == LD and kind is Kind.LOAD_IMM64:
        return _load_imm64(m, idx, insn)
    if cls == LD and kind is Kind.LOAD_PACKET:
        return _load_packet(m, idx, insn)
    return m.failing(f"unknown opcode {insn.opcode:02x}")


def _load(m: Machine, idx: int, insn: Insn, strict: bool, acquire: bool) -> Run:
    dst, src, off, size, then = insn.dst, insn.src, insn.off, insn.row.size, idx + 1
    signed = insn.row.kind is Kind.LOAD_SIGNED
    check, kinds = access.check_access, m.pointer_kinds
    if dst < 10 and m.ways.reads_grow_stack and stack.is_own_place(src, off, size):
        return ownstack.make_load(m, idx, insn, not acquire)

    def step() -> int:
        kind = m.readable(src).type
        if dst >= 10:
            m.writable(dst)
        check(m, src, off, size, False, dst, strict, signed)
        if kinds[idx] != kind:
            m.note_pointer_kind(kind, not acquire)
        return then

    return step


def _store(m: Machine, idx: int, insn: Insn) -> Run:
    dst, src, off, size, then = insn.dst, insn.src, insn.off, insn.row.size, idx + 1
    register = insn.row.kind is Kind.STORE
    if insn.reserved():
        return m.failing(f"BPF_{'STX' if register else 'ST'} uses reserved fields")
    check, kinds, value = access.check_access, m.pointer_kinds, src if register else -1
    begin, commit = m.liveness.begin, m.liveness.commit
    if stack.is_own_place(dst, off, size):
        return ownstack.make_store(m, idx, insn)
    spares_context = not register and not m.ways.constants_stored_in_context

    def step() -> int:
        if register:
            m.readable(src)
        kind = m.readable(dst).type
        if spares_context and kind == r.PTR_CTX:
            m.fail(f"BPF_ST stores into R{dst} ctx is not allowed")
        begin(idx)
        check(m, dst, off, size, True, value)
        commit()
        if kinds[idx] != kind:
            m.note_pointer_kind(kind, False)
        return then

    return step


def _atomic_target_problem(m: Machine, register: int) -> str:
    """The kind of pointer that atomics may not use; "" where they may."""
    kind = m.frame.regs[register].type
    base = kind & r.BASE_MASK
    refused = (r.PTR_CTX, r.PTR_PACKET, r.PTR_PACKET_META, r.PTR_FLOW_KEYS)
    if base in refused or r.is_socket(kind):
        return type_name(kind)
    return ""


def _atomic(m: Machine, idx: int, insn: Insn) -> Run:
    kind = insn.row.kind
    if kind in (Kind.LOAD_ACQUIRE, Kind.STORE_RELEASE) and not m.ways.ordered_accesses:
        return m.failing(f"BPF_ATOMIC uses invalid atomic opcode {insn.imm & 0xFFFFFFFF:02x}")
    if kind is Kind.LOAD_ACQUIRE:
        return _load_acquire(m, idx, insn)
    if kind is Kind.STORE_RELEASE:
        return _store_release(m, idx, insn)
    if kind is not Kind.ATOMIC:
        return m.failing(_bad_atomic(insn))
    return _read_modify_write(m, idx, insn)


def _bad_atomic(insn: Insn) -> str:
    from bpflisp.spec.isa import ATOMICS

    if insn.imm in ATOMICS:
        return "invalid atomic operand size"
    return f"BPF_ATOMIC uses invalid atomic opcode {insn.imm & 0xFFFFFFFF:02x}"


def _load_acquire(m: Machine, idx: int, insn: Insn) -> Run:
    plain = _load(m, idx, insn, True, True)

    def step() -> int:
        m.readable(insn.src)
        problem = _atomic_target_problem(m, insn.src)
        if problem:
            m.fail(f"BPF_ATOMIC loads from R{insn.src} {problem} is not allowed")
        return plain()

    return step


def _store_release(m: Machine, idx: int, insn: Insn) -> Run:
    dst, src = insn.dst, insn.src

    def step() -> int:
        m.readable(src)
        kind = m.readable(dst).type
        m.liveness.begin(idx)
        access.check_access(m, dst, insn.off, insn.row.size, True, src, strict=True)
        m.liveness.commit()
        m.note_pointer_kind(kind, False)
        problem = _atomic_target_problem(m, dst)
        if problem:
            m.fail(f"BPF_ATOMIC stores into R{dst} {problem} is not allowed")
        return idx + 1

    return step


def _read_modify_write(m: Machine, idx: int, insn: Insn) -> Run:
    dst, src, off, row, then = insn.dst, insn.src, insn.off, insn.row, idx + 1
    exchange = row.op is Op.CMPXCHG
    loaded = (0 if exchange else src) if row.fetch else -1

    def step() -> int:
        m.readable(src)
        kind = m.readable(dst).type
        if exchange:
            m.readable(0)
        problem = _atomic_target_problem(m, dst)
        if problem:
            m.fail(f"BPF_ATOMIC stores into R{dst} {problem} is not allowed")
        if loaded >= 0:
            m.writable(loaded)
        m.liveness.begin(idx)
        if loaded >= 0:
            m.frame.regs[loaded] = UNKNOWN_REG  # also where it is the address, which is no pointer any more then
        access.check_access(m, dst, off, row.size, False, -1, strict=True)
        if loaded >= 0:
            access.check_access(m, dst, off, row.size, False, loaded, strict=True)
        m.note_pointer_kind(kind, False)
        access.check_access(m, dst, off, row.size, True, -2, strict=True)
        m.liveness.commit()
        return then

    return step


def _jump(m: Machine, idx: int, insn: Insn, kind: Kind) -> Run:
    if kind is Kind.BRANCH:
        return branches.make_step(m, idx, insn)
    if kind is Kind.JUMP:
        target = idx + 1 + (insn.imm if insn.opcode & 7 == JMP32 else insn.off)
        problem = _jump_problem(insn)

        def jump() -> int:
            m.jumps += 1
            if problem:
                m.fail(problem)
            return target

        return jump
    if kind is Kind.CALL:
        return _call(m, idx, insn)
    if kind is Kind.EXIT:
        return _exit(m, idx, insn)
    if kind is Kind.MAY_GOTO:
        return _may_goto(m, idx, insn)
    opcode = insn.opcode & 0xF0
    return m.failing(
        f"unknown opcode {insn.opcode:02x}" if opcode > 0xE0 else f"invalid BPF_JMP/JMP32 opcode {opcode:x}"
    )


def _jump_problem(insn: Insn) -> str:
    wide = insn.opcode & 7 == JMP
    wrong = insn.src or insn.dst or (insn.imm if wide else insn.off)
    return "BPF_JA uses reserved fields" if wrong else ""


def _call(m: Machine, idx: int, insn: Insn) -> Run:
    last = CALL_KFUNC if m.layout.profile.since(CALLBACKS_SINCE) else CALL_SUBPROGRAM
    wrong = insn.dst or (insn.src != CALL_KFUNC and insn.off) or insn.src > last

    def step() -> int:
        m.jumps += 1
        if wrong:
            m.fail("BPF_CALL uses reserved fields")
        m.scratched_regs |= 1
        if insn.src == CALL_SUBPROGRAM:
            return calls.call_subprogram(m, idx, insn)
        if insn.src == CALL_KFUNC:
            return m.typed.kfunc_call(m, idx, insn)
        assert insn.src == CALL_HELPER
        return helper_calls.call(m, idx, insn)

    return step


def _exit(m: Machine, idx: int, insn: Insn) -> Run:
    wrong = insn.src or insn.dst or insn.imm  # nobody looks at the offset

    def step() -> int:
        m.jumps += 1
        if wrong:
            m.fail("BPF_EXIT uses reserved fields")
        return calls.exit_step(m, idx)

    return step


def _may_goto(m: Machine, idx: int, insn: Insn) -> Run:
    over_nothing = m.ways.may_goto_over_nothing

    def step() -> int:
        m.jumps += 1
        if not over_nothing and (insn.off == 0 or insn.imm):
            m.fail(f"invalid may_goto off {insn.off} imm {insn.imm}")
        if insn.dst or insn.imm or insn.src:
            m.fail(f"invalid may_goto imm {insn.imm}")
        state = m.state
        parent = state.parent
        previous = prune.find_previous(m, parent, idx) if parent is not None else None
        queued = m.push_state(idx + 1, idx)
        queued.may_goto_depth += 1
        if previous is not None:
            prune.widen(m, previous, queued)
        return idx + 1 + insn.off

    return step


def _load_imm64(m: Machine, idx: int, insn: Insn) -> Run:
    dst, then = insn.dst, idx + 2
    loaded = m.layout.loaded.get(idx)
    value = const_reg(insn.imm64) if insn.src == 0 else None

    def step() -> int:
        if insn.off:
            m.fail("BPF_LD_IMM64 uses reserved fields")
        if dst > 10:
            m.fail(f"R{dst} is invalid")
        m.writable(dst)
        m.frame.regs[dst] = value if value is not None else _meaning(m, idx, insn, loaded)
        return then

    return step


def _meaning(m: Machine, idx: int, insn: Insn, loaded: Loaded | None) -> Reg:
    """The value that a 64-bit load of a map, an address or a function gives."""
    if loaded is None:
        m.unsupported(f"64-bit load of kind {insn.src}")
    if loaded.kind == "map":
        return Reg(r.PTR_MAP, 0, ZERO, data=(m.maps[loaded.map], 0))
    if loaded.kind == "map_value":
        target = m.maps[loaded.map]
        if target.type == "arena":
            return UNKNOWN_REG
        return Reg(r.PTR_MAP_VALUE, loaded.offset, ZERO, data=(target, 0))
    if loaded.kind == "function":
        return m.globals.function_pointer(m, m.subprog_at(loaded.function).number)
    return m.typed.variable(m, loaded)


def _load_packet(m: Machine, idx: int, insn: Insn) -> Run:
    wrong = insn.dst or insn.off or insn.row.size == 8 or (not insn.row.reg and insn.src)

    def step() -> int:
        if m.program_type not in ("socket_filter", "sched_cls", "sched_act"):
            m.fail("BPF_LD_[ABS|IND] instructions not allowed for this program type")
        if any(frame.in_callback for frame in m.state.frames[1:]):
            m.fail("cannot use BPF_LD_[ABS|IND] within callback")
        if wrong:
            m.fail("BPF_LD_[ABS|IND] uses reserved fields")
        context = m.readable(6)
        calls.check_leaks(m, False, True, "BPF_LD_[ABS|IND]")
        if context.type != r.PTR_CTX:
            m.fail("at the time of BPF_LD_ABS|IND R6 != pointer to skb")
        if insn.row.reg:
            m.readable(insn.src)
        access.check_offset_free(m, 6, context)
        calls.clobber(m.frame)
        m.frame.regs[0] = UNKNOWN_REG
        if len(m.state.frames) > 1 and m.ways.packet_loads_return:
            m.push_state(idx + 1, idx)
            m.frame.regs[0] = const_reg(0)
            return calls.leave_early(m, idx)
        return idx + 1

    return step


__all__ = ["EXIT", "make_step"]
