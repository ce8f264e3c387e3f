"""Arithmetic: on numbers by the scalar domain, on pointers by the rules of pointer arithmetic.

Source: check_alu_op, adjust_reg_min_max_vals and adjust_ptr_min_max_vals of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bpflisp.spec.alu import signed
from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import ALU32, Kind, Op, Row
from simulator.verifier import regs as r
from simulator.verifier import tnum
from simulator.verifier.regs import ADD_CONST, ADD_CONST32, ADD_CONST64, Reg, const_reg, scalar_reg, type_name
from simulator.verifier.scalar import Scalar, checked, const, sync
from simulator.verifier.stack import MAX_VAR_OFFSET, UNKNOWN_REG, give_id, width_of

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

Step = Callable[[], int]

S64_MIN: Final = -(1 << 63)
S64_MAX: Final = (1 << 63) - 1
M64: Final = (1 << 64) - 1
_UNBOUNDED32: Final = (-(1 << 31), (1 << 31) - 1, 0, (1 << 32) - 1)
_SEXT_BITS: Final = {Op.MOVSX8: 8, Op.MOVSX16: 16, Op.MOVSX32: 32}
_SHIFTS: Final = frozenset({Op.LSH, Op.RSH, Op.ARSH})
_DIVISIONS: Final = frozenset({Op.DIV, Op.MOD, Op.SDIV, Op.SMOD})

_OPERATORS: Final = {
    Op.ADD: "+=", Op.SUB: "-=", Op.MUL: "*=", Op.DIV: "/=", Op.SDIV: "/=", Op.OR: "|=", Op.AND: "&=", Op.LSH: "<<=",
    Op.RSH: ">>=", Op.MOD: "%=", Op.SMOD: "%=", Op.XOR: "^=", Op.ARSH: "s>>=",
}  # fmt: skip

_MOVABLE: Final = frozenset(
    {
        r.PTR_CTX, r.PTR_MAP_VALUE, r.PTR_MAP_KEY, r.PTR_STACK, r.PTR_PACKET_META, r.PTR_PACKET, r.PTR_TP_BUFFER,
        r.PTR_BTF_ID, r.PTR_MEM, r.PTR_BUF, r.PTR_FUNC, r.PTR_DYNPTR,
    }
)  # fmt: skip


_BAD_CAST: Final = "addr_space_cast insn can only convert between address space 1 and 0"


def is_address_cast(insn: Insn) -> bool:
    """A move between the address spaces of an arena: BPF_ADDR_SPACE_CAST in the offset of a 64-bit register move."""
    return insn.opcode == 0xBF and insn.off == 1


def reserved_problem(insn: Insn) -> str:
    """What the kernel says of reserved fields that are set; "" where none are."""
    row = insn.row
    if row.kind is Kind.UNKNOWN:
        return f"invalid BPF_ALU opcode {insn.opcode & 0xF0:x}"
    if row.kind is Kind.NEG:
        return "BPF_NEG uses reserved fields" if insn.src or insn.off or insn.imm else ""
    if row.kind is Kind.END:
        return "BPF_END uses reserved fields" if insn.src or insn.off or insn.imm not in (16, 32, 64) else ""
    if is_address_cast(insn):
        return "" if insn.imm in (1, 1 << 16) else _BAD_CAST
    name = "BPF_MOV" if insn.opcode & 0xF0 == 0xB0 else "BPF_ALU"
    wrong = bool(insn.imm) if row.reg else bool(insn.src)
    wrong = wrong or (bool(insn.off) and "off" not in row.uses)
    return f"{name} uses reserved fields" if wrong else ""


def _young_problem(insn: Insn) -> str:
    """The same on kernels that have no signed operation in an instruction's offset."""
    if not insn.off or insn.row.kind is not Kind.ALU:
        return ""
    return f"{'BPF_MOV' if insn.opcode & 0xF0 == 0xB0 else 'BPF_ALU'} uses reserved fields"


def operand_problem(insn: Insn) -> str:
    """A constant operand that the kernel refuses: a division by zero, a shift by the width or more."""
    row = insn.row
    if row.reg or row.kind is not Kind.ALU:
        return ""
    if row.op in _DIVISIONS and insn.imm == 0:
        return "div by zero"
    if row.op in _SHIFTS and not 0 <= insn.imm < row.width:
        return f"invalid shift {insn.imm}"
    return ""


def make_step(m: Machine, idx: int, insn: Insn) -> Step:
    """The transfer function of an arithmetic instruction; it returns the next slot."""
    row = insn.row
    problem = reserved_problem(insn) or ("" if m.ways.signed_instructions else _young_problem(insn))
    if problem:
        return m.failing(problem)
    if row.reg and insn.src > 10:
        return m.failing(f"R{insn.src} is invalid")
    if insn.dst > 10:
        return m.failing(f"R{insn.dst} is invalid", after=insn.src if row.reg else -1)
    if row.kind is Kind.NEG:
        return _neg(m, idx, insn)
    if row.kind is Kind.END:
        return _byte_order(m, idx, insn)
    if is_address_cast(insn):
        return _address_cast(m, idx, insn)
    if row.op is Op.MOV or row.op in _SEXT_BITS:
        return _mov(m, idx, insn)
    return _binary(m, idx, insn)


def _neg(m: Machine, idx: int, insn: Insn) -> Step:
    dst, width, then = insn.dst, insn.row.width, idx + 1

    def step() -> int:
        regs = m.frame.regs
        reg = m.readable(dst)
        m.writable(dst)
        if reg.type == r.SCALAR:
            num = m.domain.neg(width, reg.num)
            regs[dst] = scalar_reg(num)
        else:
            regs[dst] = UNKNOWN_REG
        return then

    return step


def _byte_order(m: Machine, idx: int, insn: Insn) -> Step:
    dst, op, bits, then = insn.dst, insn.row.op, insn.imm, idx + 1

    def step() -> int:
        reg = m.readable(dst)
        m.writable(dst)
        num = m.domain.byte_swap(op, bits, reg.num) if reg.type == r.SCALAR else None
        m.frame.regs[dst] = UNKNOWN_REG if num is None else scalar_reg(num)
        return then

    return step


def _address_cast(m: Machine, idx: int, insn: Insn) -> Step:
    loads = m.layout.loaded.values()
    has_arena = any(m.maps[one.map].type == "arena" for one in loads if one.kind in ("map", "map_value"))

    def step() -> int:
        if not has_arena:
            m.fail("addr_space_cast insn can only be used in a program that has an associated arena")
        m.readable(insn.src)
        m.writable(insn.dst)
        m.frame.regs[insn.dst] = Reg(r.PTR_ARENA, 0, UNKNOWN_REG.num) if insn.imm == 1 else UNKNOWN_REG
        return idx + 1

    return step


def _mov(m: Machine, idx: int, insn: Insn) -> Step:
    dst, src, then = insn.dst, insn.src, idx + 1
    row = insn.row
    if dst == 10:
        return m.failing("frame pointer is read only", after=src if row.reg else -1)
    if not row.reg:
        value = const_reg(insn.imm if row.width == 64 else insn.imm & 0xFFFFFFFF)

        def load_constant() -> int:
            m.frame.regs[dst] = value
            return then

        return load_constant
    if row.op is Op.MOV:
        return _copy64(m, dst, src, then) if row.width == 64 else _copy32(m, dst, src, then)
    return _sign_extend(m, dst, src, then, _SEXT_BITS[row.op], row.width)


def _copy64(m: Machine, dst: int, src: int, then: int) -> Step:
    if not m.ways.constants_get_no_id:
        return _copy64_with_id(m, dst, src, then)

    def step() -> int:
        frame = m.frame
        regs = frame.regs
        reg = regs[src]
        if reg.type == r.SCALAR:
            if reg.id & ADD_CONST or (not reg.id and reg.num.mask):
                reg = give_id(m, frame, src)
        elif reg.type == r.NOT_INIT:
            m.fail(f"R{src} !read_ok")
        regs[dst] = reg
        return then

    return step


def _copy64_with_id(m: Machine, dst: int, src: int, then: int) -> Step:
    """A copy on kernels that give an identity to every number that is copied, known or not."""

    def step() -> int:
        regs = m.frame.regs
        reg = m.readable(src)
        if reg.type == r.SCALAR and not reg.id:
            reg = regs[src] = Reg(r.SCALAR, 0, reg.num, m.new_id())
        regs[dst] = reg
        return then

    return step


def _copy32(m: Machine, dst: int, src: int, then: int) -> Step:
    links = m.ways.moves_of_32_bits_keep_id

    def step() -> int:
        frame = m.frame
        reg = m.readable(src)
        if reg.type != r.SCALAR:
            frame.regs[dst] = scalar_reg(m.domain.mov32(UNKNOWN_REG.num))
            return then
        keeps = links and width_of(reg) <= 32
        if keeps:
            reg = give_id(m, frame, src)
        num = m.domain.mov32(reg.num)
        frame.regs[dst] = Reg(r.SCALAR, reg.off, num, reg.id) if keeps and reg.id else scalar_reg(num)
        return then

    return step


def _sign_extend(m: Machine, dst: int, src: int, then: int, bits: int, width: int) -> Step:
    def step() -> int:
        frame = m.frame
        reg = m.readable(src)
        if reg.type != r.SCALAR:
            frame.regs[dst] = UNKNOWN_REG if width == 64 else scalar_reg(m.domain.mov32(UNKNOWN_REG.num))
            return then
        keeps = reg.num.umax < 1 << (bits - 1)
        if keeps:
            reg = give_id(m, frame, src)
        num = m.domain.sext(reg.num, bits, width)
        if width == 32:
            num = m.domain.mov32(num)
        frame.regs[dst] = Reg(r.SCALAR, reg.off, num, reg.id) if keeps and reg.id else scalar_reg(num)
        return then

    return step


def _binary(m: Machine, idx: int, insn: Insn) -> Step:
    row, dst, src, then = insn.row, insn.dst, insn.src, idx + 1
    problem = operand_problem(insn)
    if problem:
        return m.failing(problem, after=dst)
    memo = m.domain.alu_memo(row.op, row.width)
    imm = const_reg(insn.imm) if not row.reg else None
    links = _links(m, row)
    link = _link if m.ways.linked_scalars_negative else _link_sum
    forks = row.op in (Op.AND, Op.OR)
    known: dict[Scalar, Reg] = {}
    imm_num = const(insn.imm & M64)

    def with_constant() -> int:
        regs = m.frame.regs
        reg = regs[dst]
        if reg.type == r.SCALAR and dst != 10:
            num = reg.num
            if forks and (num.smin == -1 or num.smin32 == -1):
                num = _fork(m, idx, dst, num, imm_num, row.op)
            result = known.get(num)
            if result is None:
                result = known[num] = scalar_reg(memo[num, imm_num])
            regs[dst] = link(row, reg, result, insn.imm) if links and reg.id else result
            return then
        _general(m, insn, idx, imm)
        return then

    def with_register() -> int:
        regs = m.frame.regs
        reg, other = regs[dst], regs[src]
        if reg.type == r.SCALAR and other.type == r.SCALAR and dst != 10:
            num = reg.num
            if forks and other.num.is_const and (num.smin == -1 or num.smin32 == -1):
                num = _fork(m, idx, dst, num, other.num, row.op)
            result = scalar_reg(memo[num, other.num])
            addend = other.num.const if row.width == 64 else other.num.const32
            if links and reg.id and addend is not None and src != dst:
                result = link(row, reg, result, addend)
            regs[dst] = result
            return then
        _general(m, insn, idx, None)
        return then

    return with_constant if imm is not None else with_register


def _links(m: Machine, row: Row) -> bool:
    """Whether an operation with a constant may leave a number linked to what it was."""
    if m.ways.linked_scalars_negative:
        return row.op in (Op.ADD, Op.SUB)
    return m.ways.linked_scalars_delta and row.op is Op.ADD and row.width == 64


def _link_sum(row: Row, reg: Reg, result: Reg, addend: int) -> Reg:
    """A number plus a positive constant of 31 bits stays linked to what it came from, once."""
    if reg.id & ADD_CONST or not 0 <= addend < 1 << 31:
        return result
    return Reg(r.SCALAR, addend, result.num, reg.id | ADD_CONST64)


def _link(row: Row, reg: Reg, result: Reg, addend: int) -> Reg:
    """A number plus or minus a constant of 32 bits stays linked to what it came from, once."""
    if reg.id & ADD_CONST:
        return result
    if row.width == 64:
        addend = signed(addend, 64)
        if not _fits_s32(addend):
            return result
    else:
        if reg.num.umax > 0xFFFFFFFF:
            return result
        addend = signed(addend, 32)
    if row.op is Op.SUB:
        addend = -addend
        if addend == 1 << 31:
            return result
    flag = ADD_CONST64 if row.width == 64 else ADD_CONST32
    return Reg(r.SCALAR, addend, result.num, reg.id | flag)


def _fork(m: Machine, idx: int, dst: int, num: Scalar, other: Scalar, op: Op) -> Scalar:
    """A number that is 0 or -1 is looked at in two states, so that what is masked by it stays exact."""
    pair = m.domain.fork(op, num, other)
    if pair is None:
        return num
    ones, zero = pair
    frame = m.push_state(idx, idx).frame
    old = frame.regs[dst]
    frame.regs[dst] = Reg(r.SCALAR, old.off, zero, old.id) if old.id else scalar_reg(zero)
    return ones


def _general(m: Machine, insn: Insn, idx: int, imm: Reg | None) -> None:
    """The checks in the kernel's order, where an operand is no number or may not be used."""
    dst, src, row = insn.dst, insn.src, insn.row
    other = imm if imm is not None else m.readable(src)
    reg = m.readable(dst)
    m.writable(dst)
    regs = m.frame.regs
    if reg.type == r.PTR_ARENA or other.type == r.PTR_ARENA:
        if reg.type != r.PTR_ARENA:
            regs[dst] = other
        return
    if other.type != r.SCALAR:
        if reg.type != r.SCALAR:
            if row.op is Op.SUB:
                regs[dst] = UNKNOWN_REG
                return
            m.fail(f"R{dst} pointer {_OPERATORS[row.op]} pointer prohibited")
        m.mark_precise(dst)
        _pointer(m, insn, other, reg, from_dst=False)
    else:
        if imm is None:
            m.mark_precise(src)
        _pointer(m, insn, reg, other, from_dst=True)


def _check_sane(m: Machine, num: Scalar, off: int, kind: int) -> None:
    name = type_name(kind)
    if num.is_const and (num.smin >= MAX_VAR_OFFSET or num.smin <= -MAX_VAR_OFFSET):
        m.fail(f"math between {name} pointer and {num.smin} is not allowed")
    if off >= MAX_VAR_OFFSET or off <= -MAX_VAR_OFFSET:
        m.fail(f"{name} pointer offset {off} is not allowed")
    if num.smin == S64_MIN:
        m.fail(f"math between {name} pointer and register with unbounded min value is not allowed")
    if num.smin >= MAX_VAR_OFFSET or num.smin <= -MAX_VAR_OFFSET:
        m.fail(f"value {num.smin} makes {name} pointer be out of bounds")


def _check_movable(m: Machine, insn: Insn, ptr: Reg, known: bool, addend: int) -> None:
    kind = ptr.type
    name = type_name(kind)
    if kind & r.MAYBE_NULL:
        m.fail(f"R{insn.dst} pointer arithmetic on {name} prohibited, null-check it first")
    base = kind & r.BASE_MASK
    if base in _MOVABLE or (base == r.PTR_FLOW_KEYS and known):
        return
    if base == r.PTR_MAP and known and addend == 0 and insn.row.op is Op.ADD:
        return
    m.fail(f"R{insn.dst} pointer arithmetic on {name} prohibited")


def _pointer(m: Machine, insn: Insn, ptr: Reg, other: Reg, from_dst: bool) -> None:
    """`ptr op other` into the destination; `from_dst` where the pointer was there."""
    op, dst = insn.row.op, insn.dst
    regs = m.frame.regs
    num = other.num
    if num.smin > num.smax or num.umin > num.umax:
        regs[dst] = UNKNOWN_REG
        return
    if insn.opcode & 7 == ALU32:
        if op is Op.SUB:
            regs[dst] = UNKNOWN_REG
            return
        m.fail(f"R{dst} 32-bit pointer arithmetic prohibited")
    _check_movable(m, insn, ptr, num.is_const, num.smin)
    _check_sane(m, num, other.off if other.id & ADD_CONST else 0, ptr.type)
    _check_sane(m, ptr.num, ptr.off, ptr.type)
    if op is Op.ADD:
        result = _add(m, ptr, num)
    elif op is Op.SUB:
        if not from_dst:
            m.fail(f"R{dst} tried to subtract pointer from scalar")
        if ptr.type == r.PTR_STACK:
            m.fail(f"R{dst} subtraction from stack pointer prohibited")
        result = _subtract(m, ptr, num)
    elif op in (Op.AND, Op.OR, Op.XOR):
        m.fail(f"R{dst} bitwise operator {_OPERATORS[op]} on pointer prohibited")
    else:
        m.fail(f"R{dst} pointer arithmetic with {_OPERATORS[op]} operator prohibited")
    _check_sane(m, result.num, result.off, ptr.type)
    regs[dst] = result if from_dst or m.ways.sums_are_the_pointer else _as_number_plus(m, result)


def _as_number_plus(m: Machine, result: Reg) -> Reg:
    """A pointer that was added to a number, by kernels that copy into the number what they think of: neither the
    reference, nor the frame, so that a called function's own stack is taken for that of the first function. The code
    for its frame is then made too small, and what is stored may overwrite the registers that it saved.
    """
    if result.type == r.PTR_STACK and result.data:
        m.astray.add(m.idx)
        return result.but(ref=0, data=0)
    return result.but(ref=0) if result.ref else result


def _fits_s32(number: int) -> bool:
    return -(1 << 31) <= number < 1 << 31


def _synced(m: Machine, value: int, mask: int, smin: int, smax: int, umin: int, umax: int) -> Scalar:
    rules = m.domain.rules
    return checked(sync((value, mask, smin, smax, umin, umax, *_UNBOUNDED32), rules))


def _same_sum(m: Machine, ptr: Reg) -> Scalar:
    """The variable part of a pointer that moves by a constant: unchanged, its low half deduced anew."""
    num = ptr.num
    return num if num.is_const else _synced(m, num.value, num.mask, num.smin, num.smax, num.umin, num.umax)


def _add(m: Machine, ptr: Reg, num: Scalar) -> Reg:
    if num.is_const and _fits_s32(ptr.off + num.smin):
        return Reg(ptr.type, ptr.off + num.smin, _same_sum(m, ptr), ptr.id, ptr.ref, ptr.data)
    base = ptr.num
    smin, smax = base.smin + num.smin, base.smax + num.smax
    if smin < S64_MIN or smin > S64_MAX or smax > S64_MAX or smax < S64_MIN:
        smin, smax = S64_MIN, S64_MAX
    umin, umax = base.umin + num.umin, base.umax + num.umax
    if umin > M64 or umax > M64:
        umin, umax = 0, M64
    value, mask = tnum.add((base.value, base.mask), (num.value, num.mask))
    total = _synced(m, value, mask, smin, smax, umin, umax)
    if r.is_packet(ptr.type):
        return Reg(ptr.type, ptr.off, total, m.new_id(), ptr.ref, 0)
    return Reg(ptr.type, ptr.off, total, ptr.id, ptr.ref, ptr.data)


def _subtract(m: Machine, ptr: Reg, num: Scalar) -> Reg:
    if num.is_const and _fits_s32(ptr.off - num.smin):
        return Reg(ptr.type, ptr.off - num.smin, _same_sum(m, ptr), ptr.id, ptr.ref, ptr.data)
    base = ptr.num
    smin, smax = base.smin - num.smax, base.smax - num.smin
    if smin < S64_MIN or smin > S64_MAX or smax > S64_MAX or smax < S64_MIN:
        smin, smax = S64_MIN, S64_MAX
    if base.umin < num.umax:
        umin, umax = 0, M64
    else:
        umin, umax = base.umin - num.umax, base.umax - num.umin
    value, mask = tnum.sub((base.value, base.mask), (num.value, num.mask))
    total = _synced(m, value, mask, smin, smax, umin, umax)
    if r.is_packet(ptr.type):
        return Reg(ptr.type, ptr.off, total, m.new_id(), ptr.ref, 0 if num.smin < 0 else ptr.data)
    return Reg(ptr.type, ptr.off, total, ptr.id, ptr.ref, ptr.data)
