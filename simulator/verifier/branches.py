"""Conditional jumps: which way they go, and what each way then knows of the registers compared.

Source: check_cond_jmp_op, is_branch_taken, reg_set_min_max, sync_linked_regs and try_match_pkt_pointers of
kernel/bpf/verifier.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Op
from simulator.managed import managed_fields
from simulator.verifier import regs as r
from simulator.verifier.maps import MapInfo
from simulator.verifier.regs import ADD_CONST, ADD_CONST32, Reg, const_reg, scalar_reg
from simulator.verifier.scalar import FLIPPED, const
from simulator.verifier.state import SPILL, Holds, Slot, State

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

Step = Callable[[], int]
MAX_PACKET_OFFSET: Final = 0xFFFF
MAX_LINKED: Final = 6
Linked = tuple[tuple[int, bool, int], ...]


def make_step(m: Machine, idx: int, insn: Insn) -> Step:
    """The transfer function of a conditional jump; it returns the slot that this path goes on with."""
    row = insn.row
    if (row.reg and insn.imm) or (not row.reg and insn.src):
        return _counted(m, m.failing("BPF_JMP/JMP32 uses reserved fields", after=insn.dst))
    if insn.dst > 10 or insn.src > 10:
        return _counted(m, m.failing(f"R{insn.src} is invalid", after=insn.dst))
    return Branch(m, idx, insn).run


def _counted(m: Machine, step: Step) -> Step:
    def run() -> int:
        m.jumps += 1
        return step()

    return run


class Branch:
    """One conditional jump of the program."""

    def __init__(self, m: Machine, idx: int, insn: Insn) -> None:
        self.m = m
        self.idx = idx
        self.insn = insn
        self.op = insn.row.op
        self.wide = insn.row.width == 64
        self.then = idx + 1
        self.target = idx + 1 + insn.off
        self.constant = None if insn.row.reg else const_reg(insn.imm)
        self.taken = m.domain.taken_memo(self.op, insn.row.width)
        self.refined = m.domain.refine_memo(self.op, insn.row.width)
        self.refined_same = m.domain.refine_same_memo(self.op, insn.row.width)
        ways = m.ways
        self.infers_not_null = ways.jeq_infer_not_null
        self.synchronise = _sync if ways.linked_scalars_delta else _sync_equal
        self.notes_links = ways.linked_scalars_delta

    def run(self) -> int:
        """Goes one way, and leaves the other way for later where both are possible."""
        m, insn = self.m, self.insn
        m.jumps += 1
        regs = m.frame.regs
        dst = regs[insn.dst]
        src = self.constant
        if dst.type == r.NOT_INIT:
            m.fail(f"R{insn.dst} !read_ok")
        if src is None:
            src = regs[insn.src]
            if src.type == r.NOT_INIT:
                m.fail(f"R{insn.src} !read_ok")
        both_scalar = dst.type == r.SCALAR and src.type == r.SCALAR
        if not both_scalar and (dst.type == r.PTR_STACK or src.type == r.PTR_STACK):
            m.remember(src_is_stack=src.type == r.PTR_STACK, dst_is_stack=dst.type == r.PTR_STACK)
        taken = self.taken[dst.num, src.num] if both_scalar else self._taken(dst, src)
        if taken is None:
            return self._fork(dst, src)
        if dst.type == r.SCALAR:
            m.mark_precise(insn.dst)
        if self.constant is None and src.type == r.SCALAR:
            m.mark_precise(insn.src)
        if m.log.level:
            m.touch(insn)
            m.log.changed_state(m)
        return self.target if taken else self.then

    def _taken(self, dst: Reg, src: Reg) -> bool | None:
        packet = (r.PTR_PACKET, r.PTR_PACKET_META, r.PTR_PACKET_END)
        if self.wide and dst.type in packet and src.type in packet:
            return _packet_taken(self.op, dst, src)
        if not self.wide and self.m.ways.half_pointers_may_be_null:
            return None
        op = self.op
        if self._constant(src) is None:
            op = FLIPPED.get(op, op)
            dst, src = src, dst
        if self._constant(src) != 0 or not self.m.not_null(dst):
            return None
        return {Op.EQ: False, Op.NE: True}.get(op)

    def _constant(self, reg: Reg) -> int | None:
        """The number in a register, of the bits that are compared; None where it is not known, or a pointer."""
        if reg.type != r.SCALAR:
            return None
        return reg.num.const if self.wide else reg.num.const32

    def _fork(self, dst: Reg, src: Reg) -> int:
        m, insn = self.m, self.insn
        links = self._links(dst, src) if self.notes_links else ()
        if len(links) > 1:
            m.remember(linked=links)
        other = m.push_state(self.target, self.idx)
        state = m.state
        if dst.type == r.SCALAR and src.type == r.SCALAR:
            self._narrow(state, other, dst, src, links)
        if self.wide:
            self._pointers(state, other, dst, src)
        if m.log.level:
            m.touch(insn)
            m.log.changed_state(m)
        return self.then

    def _links(self, dst: Reg, src: Reg) -> Linked:
        """The registers and slots that share an identity with an operand, up to six; others lose theirs."""
        found: list[tuple[int, bool, int]] = []
        if self.constant is None and src.type == r.SCALAR and src.id:
            _collect(self.m, src.id & ~ADD_CONST, found)
        if dst.type == r.SCALAR and dst.id:
            _collect(self.m, dst.id & ~ADD_CONST, found)
        return tuple(found)

    def _narrow(self, here: State, there: State, dst: Reg, src: Reg, links: Linked) -> None:
        """What both ways learn of the numbers compared and of those linked to them."""
        insn = self.insn
        same = self.constant is None and insn.dst == insn.src
        if same:
            dst_there, dst_here = src_there, src_here = self.refined_same[dst.num]
        else:
            dst_there, src_there, dst_here, src_here = self.refined[dst.num, src.num]
        for state, dst_num, src_num in ((here, dst_here, src_here), (there, dst_there, src_there)):
            regs = state.frames[-1].regs
            old = regs[insn.dst]
            if old.num is not dst_num:
                regs[insn.dst] = _renumbered(old, dst_num)
            if self.constant is None and not same:
                old = regs[insn.src]
                if old.num is not src_num:
                    regs[insn.src] = _renumbered(old, src_num)
        if self.constant is None and here.frames[-1].regs[insn.src].id:
            self.synchronise(self.m, here, insn.src, links)
            self.synchronise(self.m, there, insn.src, links)
        if here.frames[-1].regs[insn.dst].id:
            self.synchronise(self.m, here, insn.dst, links)
            self.synchronise(self.m, there, insn.dst, links)

    def _pointers(self, here: State, there: State, dst: Reg, src: Reg) -> None:
        """What both ways learn of pointers: whether they are null, and how much of the packet there is."""
        insn, op = self.insn, self.op
        if self.infers_not_null and self.constant is None and dst.type != r.SCALAR and src.type != r.SCALAR:
            self._equal_pointers(here, there, dst, src)
        if self.constant is not None:
            if self.constant.num.value == 0 and op in (Op.EQ, Op.NE) and dst.type & r.MAYBE_NULL:
                mark_null(self.m, here, insn.dst, op is Op.NE)
                mark_null(self.m, there, insn.dst, op is Op.EQ)
            return
        _match_packet(op, insn.dst, insn.src, dst, src, here, there)

    def _equal_pointers(self, here: State, there: State, dst: Reg, src: Reg) -> None:
        if r.PTR_BTF_ID in (dst.type & r.BASE_MASK, src.type & r.BASE_MASK):
            return
        equal = {Op.EQ: there, Op.NE: here}.get(self.op)
        if equal is None:
            return
        regs = equal.frame.regs
        if self.m.not_null(dst) and src.type & r.MAYBE_NULL:
            regs[self.insn.src] = not_null(regs[self.insn.src])
        if self.m.not_null(src) and dst.type & r.MAYBE_NULL:
            regs[self.insn.dst] = not_null(regs[self.insn.dst])


def _renumbered(reg: Reg, num: object) -> Reg:
    if reg.id:
        return Reg(r.SCALAR, reg.off, num, reg.id)  # type: ignore[arg-type]
    return scalar_reg(num)  # type: ignore[arg-type]


def _collect(m: Machine, identity: int, found: list[tuple[int, bool, int]]) -> None:
    state = m.state
    for number in range(len(state.frames) - 1, -1, -1):
        frame = state.frames[number]
        live = m.live_regs[state.insn_of(number)]
        for register in range(10):
            reg = frame.regs[register]
            if reg.id and live >> register & 1 and reg.type == r.SCALAR and reg.id & ~ADD_CONST == identity:
                if len(found) < MAX_LINKED:
                    found.append((number, True, register))
                else:
                    frame.regs[register] = scalar_reg(reg.num)
        for spi, slot in enumerate(frame.stack):
            if slot.types[7] == SPILL and slot.reg.type == r.SCALAR and slot.reg.id & ~ADD_CONST == identity:
                if len(found) < MAX_LINKED:
                    found.append((number, False, spi))
                else:
                    frame.stack[spi] = Slot(slot.types, scalar_reg(slot.reg.num))


def _sync_equal(m: Machine, state: State, register: int, links: Linked) -> None:
    """Gives what was learnt of one number to those equal to it, as kernels do that know no constants between them."""
    known = state.frame.regs[register]
    identity = known.id
    end = 7 if m.ways.narrow_spills_narrowed else 0  # the byte that says whether a slot holds a spill
    for frame in state.frames:
        for number, reg in enumerate(frame.regs):
            if reg.id == identity and reg.type == r.SCALAR:
                frame.regs[number] = known
        for spi, slot in enumerate(frame.stack):
            if slot.types[end] == SPILL and slot.reg.id == identity and slot.reg.type == r.SCALAR:
                frame.stack[spi] = Slot(slot.types, known)


def _sync(m: Machine, state: State, register: int, links: Linked) -> None:
    """Gives what was learnt of one number to those linked to it."""
    known = state.frame.regs[register]
    identity = known.id & ~ADD_CONST
    for number, is_reg, which in links:
        frame = state.frames[number]
        reg = frame.regs[which] if is_reg else frame.stack[which].reg
        if reg is known or reg.type != r.SCALAR or reg.id & ~ADD_CONST != identity:
            continue
        if number == len(state.frames) - 1 and is_reg and which == register:
            continue
        if (reg.id ^ known.id) & ADD_CONST == ADD_CONST:
            continue
        new = known
        if (reg.id | known.id) & ADD_CONST and reg.off != known.off:
            width = 32 if (reg.id | known.id) & ADD_CONST32 else 64
            delta = reg.off - known.off
            if m.ways.linked_scalars_settled:
                num = m.domain.alu(Op.ADD, width, known.num, const(delta))
            else:
                num = m.domain.unsettled_sum(known.num, delta)
            new = Reg(r.SCALAR, reg.off, num, reg.id)
        if is_reg:
            frame.regs[which] = new
        else:
            frame.stack[which] = Slot(frame.stack[which].types, new)


def not_null(reg: Reg) -> Reg:
    """A pointer that was compared with null and is not."""
    base = reg.type & r.BASE_MASK
    if base == r.PTR_MAP_VALUE:
        target: MapInfo = reg.data[0]
        if target.inner is not None:
            has_timer = target.inner.field_of("bpf_timer", "bpf_wq", "bpf_task_work") is not None
            return Reg(r.PTR_MAP, reg.off, reg.num, reg.id, reg.ref, (target.inner, reg.id if has_timer else 0))
        # a socket out of a map still compares as out of that map: the kernel leaves the map in the register
        if target.type == "xskmap":
            return Reg(r.PTR_XDP_SOCK, reg.off, reg.num, reg.id, reg.ref, reg.data)
        if target.type in ("sockmap", "sockhash"):
            return Reg(r.PTR_SOCKET, reg.off, reg.num, reg.id, reg.ref, reg.data)
    return Reg(reg.type & ~r.MAYBE_NULL, reg.off, reg.num, reg.id, reg.ref, reg.data)


def may_hold_lock(reg: Reg) -> bool:
    """Whether what a pointer points to has a lock, so that the pointer keeps its identity."""
    base = reg.type & r.BASE_MASK
    if base == r.PTR_MAP_VALUE:
        return reg.data[0].field_of("bpf_spin_lock", "bpf_res_spin_lock") is not None
    if base != r.PTR_BTF_ID or not reg.type & r.MEM_ALLOC:
        return False
    return any(field.kind in ("bpf_spin_lock", "bpf_res_spin_lock") for field in managed_fields(*reg.data))


def mark_null(m: Machine, state: State, register: int, is_null: bool) -> None:
    """All copies of a pointer that may be null become null, or become usable."""
    reg = state.frame.regs[register]
    identity, ref = reg.id, reg.ref
    if is_null and ref and ref == identity:
        drop_ref(m, state, identity)

    def change(other: Reg) -> Reg:
        if not other.type & r.MAYBE_NULL or other.id != identity:
            return other
        if is_null:
            return scalar_reg(other.num)
        new = not_null(other)
        if not may_hold_lock(new):
            new = Reg(new.type, new.off, new.num, 0, new.ref, new.data)
        return new

    state.replace_pointers(change)


def drop_ref(m: Machine, state: State, identity: int) -> bool:
    """Forgets a reference; False where it is not held. The others keep their order from 6.14 on; before, the last one
    took its place.
    """
    refs = state.holds.refs
    for at, ref in enumerate(refs):
        if ref.id == identity and ref.kind == "ptr":
            rest = refs[:at] + refs[at + 1 :]
            if not m.keeps_ref_order and rest[at:]:
                rest = (*rest[:at], rest[-1], *rest[at:-1])
            old = state.holds
            state.holds = Holds(rest, old.locks, old.preempt, old.rcu, old.irq_id, old.lock_id, old.lock_ptr)
            return True
    return False


def _packet_taken(op: Op, dst: Reg, src: Reg) -> bool | None:
    if src.type == r.PTR_PACKET_END:
        pkt = dst
    elif dst.type == r.PTR_PACKET_END:
        pkt, op = src, FLIPPED.get(op, op)
    else:
        return None
    known = pkt.data if pkt.type != r.PTR_PACKET_END else 0
    if known is None or known >= 0:
        return None
    if op in (Op.LE, Op.GT) and known == r.BEYOND_PKT_END:
        return op is Op.GT
    if op in (Op.LT, Op.GE):
        return op is Op.GE
    return None


def _is_start(reg: Reg) -> bool:
    """The packet's own start, not moved."""
    return reg.type == r.PTR_PACKET and reg.off == 0 and reg.num.mask == 0 and reg.num.value == 0 and reg.id == 0


def _has_range(pkt: Reg, end: Reg) -> bool:
    return (pkt.type == r.PTR_PACKET and end.type == r.PTR_PACKET_END) or (
        pkt.type == r.PTR_PACKET_META and _is_start(end)
    )


def _match_packet(op: Op, dst_no: int, src_no: int, dst: Reg, src: Reg, here: State, there: State) -> None:
    """`pkt op end` tells how many bytes there are: on one way at least up to the pointer, on the other fewer."""
    if op not in (Op.GT, Op.LT, Op.GE, Op.LE):
        return
    if _has_range(dst, src):
        pkt, number = dst, dst_no
    elif _has_range(src, dst):
        pkt, number, op = src, src_no, FLIPPED[op]
    else:
        return
    # pkt > end: false here means the bytes up to pkt exist, true there that pkt is beyond the end.
    good, bad = (here, there) if op in (Op.GT, Op.GE) else (there, here)
    _find_good(good, pkt, open_end=op in (Op.GE, Op.LT))
    old = bad.frame.regs[number]
    if old.type == r.PTR_PACKET:
        mark = r.BEYOND_PKT_END if op in (Op.GT, Op.LE) else r.AT_PKT_END
        bad.frame.regs[number] = Reg(old.type, old.off, old.num, old.id, old.ref, mark)


def _find_good(state: State, pkt: Reg, open_end: bool) -> None:
    if pkt.off < 0 or (pkt.off == 0 and open_end):
        return
    if pkt.num.umax > MAX_PACKET_OFFSET or pkt.num.umax + pkt.off > MAX_PACKET_OFFSET:
        return
    known = pkt.off + open_end

    def change(reg: Reg) -> Reg:
        if reg.type == pkt.type and reg.id == pkt.id and reg.data < known:
            return Reg(reg.type, reg.off, reg.num, reg.id, reg.ref, known)
        return reg

    state.replace_pointers(change)
