"""Reads and writes of the stack: spills and fills, bytes of unknown value, bytes known to be zero.

Source: check_stack_{read,write}_{fixed,var}_off and check_stack_range_initialized of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.spec.insn import Insn
from bpflisp.spec.isa import Kind
from simulator.verifier.backtrack import Masks, mark_precise
from simulator.verifier.regs import (
    ADD_CONST,
    PTR_STACK,
    SCALAR,
    Reg,
    const_reg,
    is_null,
    is_spillable,
    number_text,
    scalar_reg,
)  # fmt: skip
from simulator.verifier.scalar import UNKNOWN
from simulator.verifier.state import (
    ALL_SPILL,
    DYNPTR_BYTE,
    INVALID,
    MISC,
    SPILL,
    ZEROED,
    Frame,
    Slot,
    is_spilled_scalar,
    plain_slot,
)  # fmt: skip
from simulator.verifier.tnum import text as tnum_text

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

MAX_STACK: Final = 512
MAX_VAR_OFFSET: Final = 1 << 29
UNKNOWN_REG: Final = scalar_reg(UNKNOWN)
NO_SLOT: Final = Slot(bytes(8))
"""What is read of stack below all that the frame ever used, on kernels where a read does not grow it."""


def num_text(reg: Reg) -> str:
    """The variable part of a pointer as messages print it."""
    if reg.num.is_const:
        return str(reg.num.value) if reg.num.value <= 0xFFFF else number_text(reg.num.smin)
    return tnum_text((reg.num.value, reg.num.mask))


def without_id(reg: Reg) -> Reg:
    """The same number, no longer linked to others."""
    return scalar_reg(reg.num) if reg.id else reg


def width_of(reg: Reg) -> int:
    """How many low bits can be set in a number."""
    return reg.num.umax.bit_length()


def give_id(m: Machine, frame: Frame, register: int) -> Reg:
    """Gives an unknown number an identity before it is copied, so that what is learnt of one is learnt of both."""
    reg = frame.regs[register]
    if reg.type != SCALAR:
        return reg
    if reg.id & ADD_CONST:
        reg = frame.regs[register] = scalar_reg(reg.num)
    if not reg.id and reg.num.mask:
        reg = frame.regs[register] = Reg(SCALAR, 0, reg.num, m.new_id())
    return reg


def _misc_below(types: bytes, count: int) -> bytes:
    """`count` low entries become unknown bytes, unless they are known to be zero or were never written."""
    return bytes(kind if kind in (ZEROED, INVALID) else MISC for kind in types[:count]) + types[count:]


def _spill(frame: Frame, spi: int, reg: Reg, size: int) -> None:
    """Stores a value of `size` bytes at the low end of a slot."""
    frame.stack[spi] = Slot(spilled_over(frame.stack[spi].types, size), reg)


def spilled_over(types: bytes, size: int) -> bytes:
    """What a slot's bytes are once a value of `size` bytes was stored at its low end."""
    rest = 8 - size
    return _misc_below(types, rest)[:rest] + bytes([SPILL] * size) if rest else ALL_SPILL


def _scrubbed(slot: Slot) -> bytes:
    """The bytes of a slot after the value that lived there is gone."""
    if not slot.is_special:
        return slot.types
    return bytes(INVALID if kind == INVALID else MISC for kind in slot.types)


def write(m: Machine, ptr: Reg, off: int, size: int, value: int, insn_idx: int) -> None:
    """A store through a stack pointer; `value` is the register stored, -1 for an immediate or an unknown value."""
    frame = m.state.frames[ptr.data]
    if ptr.num.mask == 0:
        write_fixed(m, frame, off + ptr.num.smin, size, value, insn_idx)
    else:
        _write_variable(m, frame, ptr, off, size, value, insn_idx)


def write_fixed(m: Machine, frame: Frame, off: int, size: int, value: int, insn_idx: int) -> None:
    """A store at a fixed offset that is known to be inside the frame's stack."""
    low = -off - 1
    spi = low // 8
    current = m.frame
    reg = current.regs[value] if value >= 0 else None
    insn = m.code[insn_idx]
    assert insn is not None
    imm = insn.imm if insn.row.kind is Kind.STORE_IMM else None
    if frame.stack[spi].types[0] == DYNPTR_BYTE:
        m.objects.destroy_dynptr(m, frame, spi)
    m.check_fastcall_contract(frame.subprog, insn_idx, off)
    m.scratched_slots |= 1 << spi
    aligned = off % 8 == 0
    if aligned and size == 8:
        m.liveness.write(frame.number, 1 << spi)
    if not m.ways.spilled_constants and aligned and _spill_bounded(m, frame, spi, insn, size, value, imm):
        pass
    elif reg is not None and aligned and reg.type == SCALAR and m.ways.spilled_constants:
        fits = width_of(reg) <= 8 * size
        if fits and m.ways.spills_get_id:
            reg = give_id(m, current, value)
        _spill(frame, spi, reg if fits else Reg(SCALAR, reg.off, reg.num, 0), size)
    elif reg is None and aligned and imm is not None and m.ways.spilled_constants:
        _spill(frame, spi, const_reg(imm), size)
    elif reg is not None and is_spillable(reg.type):
        if size != 8:
            m.fail_at_line("invalid size of register spill")
        if frame is not current and reg.type == PTR_STACK:
            m.fail("cannot spill pointers to stack into stack frame of the caller")
        _spill(frame, spi, reg, size)
    else:
        _write_bytes(m, frame, spi, low, size, reg, imm, value)
        return
    m.remember(stack=(frame.number, spi))


def _spill_bounded(m: Machine, frame: Frame, spi: int, insn: Insn, size: int, value: int, imm: int | None) -> bool:
    """A spill on kernels that keep bounded numbers and constants but 0; the rest of the slot is unknown bytes."""
    if imm is not None:
        reg = const_reg(imm)
    elif value >= 0:
        reg = m.frame.regs[value]
    else:
        return False
    if reg.type != SCALAR or is_null(reg) or reg.num is UNKNOWN:
        return False
    if imm is None and insn.dst != 10:
        m.mark_precise(value)  # the walk back finds a spill by its address from r10 alone
    rest = 8 - size
    types = bytes(kind if kind == INVALID else MISC for kind in frame.stack[spi].types[:rest])
    narrowed = Reg(SCALAR, reg.off, reg.num, 0) if width_of(reg) > 8 * size else reg
    frame.stack[spi] = Slot(types + bytes([SPILL] * size), narrowed)
    return True


def _write_bytes(
    m: Machine, frame: Frame, spi: int, low: int, size: int, reg: Reg | None, imm: int | None, value: int
) -> None:
    old = frame.stack[spi]
    watched = m.ways.dynptrs_are_watched
    types = bytearray(_scrubbed(old) if watched or old.types[7] == SPILL else old.types)
    kind = MISC
    if (reg is not None and is_null(reg)) or (reg is None and imm == 0):
        if value >= 0:
            m.mark_precise(value)
        kind = ZEROED
    for i in range(size):
        types[(low - i) % 8] = kind
    left = bytes(types)
    frame.stack[spi] = plain_slot(left) if DYNPTR_BYTE not in left else Slot(left, old.reg)


def _write_variable(m: Machine, frame: Frame, ptr: Reg, off: int, size: int, value: int, insn_idx: int) -> None:
    start = ptr.num.smin + off
    end = ptr.num.smax + off + size
    insn = m.code[insn_idx]
    assert insn is not None
    reg = m.frame.regs[value] if value >= 0 else None
    from_imm = insn.row.kind is Kind.STORE_IMM and insn.imm == 0 and m.ways.spilled_constants
    zero = is_null(reg) if reg is not None else from_imm
    zero_used = False
    for at in range(start, end):
        m.objects.destroy_dynptr(m, frame, (-at - 1) // 8)
    m.check_fastcall_contract(frame.subprog, insn_idx, start)
    for at in range(start, end):
        low = -at - 1
        spi, byte = low // 8, low % 8
        m.scratched_slots |= 1 << spi
        slot = frame.stack[spi]
        old = slot.types[byte]
        if zero and old == SPILL and is_spilled_scalar(slot) and is_null(slot.reg):
            zero_used = True
            continue
        scrubs = m.ways.scrubbed_by_variable_store
        types = bytearray(_scrubbed(slot) if scrubs else slot.types)
        new = MISC
        if zero and types[byte] == ZEROED:
            new = ZEROED
            zero_used = True
        types[byte] = new
        # without the scrubbing, bytes go on to say that a value was spilled which is there no more
        left = bytes(types)
        frame.stack[spi] = plain_slot(left) if DYNPTR_BYTE not in left else Slot(left, slot.reg)
    if zero_used and value >= 0:
        m.mark_precise(value)


def read(m: Machine, ptr: Reg, off: int, size: int, dst: int, register: int) -> None:
    """A load through a stack pointer into register `dst`; -1 where only the access is checked."""
    frame = m.state.frames[ptr.data]
    if ptr.num.mask == 0:
        read_fixed(m, frame, off + ptr.num.smin, size, dst)
        return
    if dst < 0:
        m.fail(
            "variable offset stack pointer cannot be passed into helper function; "
            f"var_off={num_text(ptr)} off={off} size={size}"
        )
    check_initialized(m, register, off, size, zero_ok=False, writes=False, helper=False)
    start = ptr.num.smin + off
    m.frame.regs[dst] = _bytes_read(m, frame, start, ptr.num.smax + off + size)
    m.check_fastcall_contract(frame.subprog, m.idx, start)


def _bytes_read(m: Machine, frame: Frame, start: int, end: int) -> Reg:
    """What a load of these bytes gives: 0 where every byte is known to be zero, else anything."""
    for at in range(start, end):
        low = -at - 1
        m.scratched_slots |= 1 << (low // 8)
        if frame.stack[low // 8].types[low % 8] != ZEROED:
            return UNKNOWN_REG
    return const_reg(0)


def _check_bytes(m: Machine, types: bytes, low: int, off: int, size: int) -> None:
    for i in range(size):
        kind = types[(low - i) % 8]
        if kind in (MISC, ZEROED) or (kind == INVALID and m.uninit_stack_ok):
            continue
        m.fail(f"invalid read from stack off {off}+{i} size {size}")


def read_fixed(m: Machine, frame: Frame, off: int, size: int, dst: int) -> None:
    """A load at a fixed offset that is known to be inside the frame's stack."""
    low = -off - 1
    spi = low // 8
    slot = frame.stack[spi]
    m.scratched_slots |= 1 << spi
    m.check_fastcall_contract(m.frame.subprog, m.idx, off)
    m.liveness.read(frame.number, m.idx, 1 << spi)
    types = slot.types
    if types == ALL_SPILL and size == 8 and dst >= 0:
        m.frame.regs[dst] = slot.reg
        m.remember(stack=(frame.number, spi))
        return
    if types[7] != SPILL:
        _check_bytes(m, types, low, off, size)
        if dst >= 0:
            m.frame.regs[dst] = _bytes_read(m, frame, off, off + size)
        return
    spilled = len(types) - len(types.rstrip(b"\x01"))
    if size != 8 or spilled != 8:
        if slot.reg.type != SCALAR:
            m.fail_at_line("invalid size of register fill")
        if dst < 0:
            return
        if not _fill_part(m, slot, low, off, size, spilled, dst):
            return
    elif dst >= 0:
        m.frame.regs[dst] = slot.reg
    m.remember(stack=(frame.number, spi))


def _fill_part(m: Machine, slot: Slot, low: int, off: int, size: int, spilled: int, dst: int) -> bool:
    """A narrow load, or one from a narrow spill; whether the register's value came from the spilled number."""
    reg, types = slot.reg, slot.types
    # A narrow load sees the number's low bytes where it begins at the spill's own low end.
    if off % 8 == 0 and (size == spilled or (size < spilled and m.ways.narrow_fills)):
        m.frame.regs[dst] = without_id(reg) if width_of(reg) > size * 8 else reg
        return True
    if not m.ways.spilled_constants:
        _check_bytes(m, bytes(MISC if kind == SPILL else kind for kind in types), low, off, size)
        m.frame.regs[dst] = UNKNOWN_REG
        return False
    spills = zeros = 0
    for i in range(size):
        kind = types[(low - i) % 8]
        if kind == SPILL:
            spills += 1
        elif kind == ZEROED:
            zeros += 1
        elif kind == MISC or (kind == INVALID and m.uninit_stack_ok):
            continue
        else:
            m.fail(f"invalid read from stack off {off}+{i} size {size}")
    if spills == size and is_null(reg):
        m.frame.regs[dst] = const_reg(0)
        return True
    m.frame.regs[dst] = const_reg(0) if zeros == size else UNKNOWN_REG
    return False


def check_bounds(m: Machine, register: int, off: int, size: int, writes: bool, extra: str = "") -> None:
    """That an access through a stack pointer stays in its frame; grows the frame's known stack to it.

    `extra` is how a refusal calls the access, where it is not the instruction's own.
    """
    ptr = m.frame.regs[register]
    frame = m.state.frames[ptr.data]
    extra = extra or (" write to" if writes else " read from")
    if ptr.num.mask == 0:
        start = ptr.num.smin + off
        end = start + size
    else:
        if ptr.num.smax >= MAX_VAR_OFFSET or ptr.num.smin <= -MAX_VAR_OFFSET:
            m.fail(f"invalid unbounded variable-offset{extra} stack R{register}")
        start = ptr.num.smin + off
        end = ptr.num.smax + off + size
    grows = writes or m.ways.reads_grow_stack
    lowest = -MAX_STACK if grows else -8 * len(frame.stack)
    if start < lowest or start > -1 or end > 0 or size < 0:
        if ptr.num.mask == 0:
            m.fail(f"invalid{extra} stack R{register} off={off} size={size}")
        m.fail(f"invalid variable-offset{extra} stack R{register} var_off={num_text(ptr)} off={off} size={size}")
    reach(m, frame, start, grows=m.ways.reads_grow_stack or (writes and not extra.startswith(" indirect")))


def reach(m: Machine, frame: Frame, off: int, grows: bool = True) -> None:
    """A frame's stack is used down to an offset; what is known of it grows to there, where the access lets it."""
    needed = (-off + 7) // 8
    if grows and needed > len(frame.stack):
        frame.grow(needed)
    if needed * 8 > m.stack_depth[frame.subprog]:
        m.stack_depth[frame.subprog] = needed * 8


def is_own_place(register: int, off: int, size: int) -> bool:
    """Whether an access is one of the running function's own stack, inside it and aligned: nothing else to check."""
    return register == 10 and off >= -MAX_STACK and off + size <= 0 and off % size == 0


def check_initialized(
    m: Machine,
    register: int,
    off: int,
    size: int,
    zero_ok: bool,
    writes: bool,
    raw: bool = False,
    helper: bool = True,
) -> bool:
    """That a range of stack may be read, or given to a helper that may write it.

    True where the range need not be initialised since the helper fills it (`raw`): the caller then marks it written.
    """
    ptr = m.frame.regs[register]
    frame = m.state.frames[ptr.data]
    if size == 0 and not zero_ok:
        m.fail("invalid zero-sized read")
    indirect = helper and not m.ways.helpers_spare_stack
    if indirect:
        writes = True
        check_bounds(m, register, off, size, True, " indirect access to")
    else:
        check_bounds(m, register, off, size, writes)
    if ptr.num.mask == 0:
        start = last = ptr.num.smin + off
    else:
        raw = False
        start, last = ptr.num.smin + off, ptr.num.smax + off
    if raw and not m.ways.dynptrs_are_watched:
        return True
    if raw:
        _refuse_dynptr_bytes(m, frame, start, last + size)
        return True
    if size and not writes and _read_whole_slots(m, frame, start, last + size):
        return False
    for at in range(start, last + size):
        if not _touch_byte(m, frame, at, writes):
            read = "invalid indirect read" if indirect else "invalid read"
            where = f"off {start}" if ptr.num.mask == 0 else f"var_off {num_text(ptr)}"
            m.fail(f"{read} from stack R{register} {where}+{at - start} size {size}")
        m.liveness.read(frame.number, m.idx, 1 << ((-at - 1) // 8))
    return False


def _read_whole_slots(m: Machine, frame: Frame, start: int, end: int) -> bool:
    """Notes a read of the bytes from `start` up to `end` where all the slots that they lie in may be read."""
    first, last = (-start - 1) // 8, -end // 8
    if first >= len(frame.stack) or not all(_is_readable(m, slot) for slot in frame.stack[last : first + 1]):
        return False
    m.liveness.read(frame.number, m.idx, (2 << first) - (1 << last))
    return True


def _touch_byte(m: Machine, frame: Frame, at: int, writes: bool) -> bool:
    """Whether a byte may be read by a helper; where it may be written, what it holds is unknown afterwards."""
    low = -at - 1
    spi, byte = low // 8, low % 8
    slot = frame.stack[spi] if spi < len(frame.stack) else NO_SLOT
    kind = slot.types[byte]
    if kind == MISC:
        return True
    if kind == ZEROED or (kind == INVALID and m.uninit_stack_ok and slot is not NO_SLOT):
        if writes:
            types = bytearray(slot.types)
            types[byte] = MISC
            frame.stack[spi] = Slot(bytes(types), slot.reg) if slot.is_special else plain_slot(bytes(types))
        return True
    if slot.types[7] != SPILL:
        return False
    if writes:
        frame.stack[spi] = plain_slot(bytes(k if k == INVALID else MISC for k in slot.types))
    return True


def _is_readable(m: Machine, slot: Slot) -> bool:
    """Whether every byte of a slot may be read by a helper, whichever are asked for."""
    types = slot.types
    if types[7] == SPILL:
        return True
    known = m.readable_slots.get(types)
    if known is None:
        known = all(kind in (MISC, ZEROED) or (kind == INVALID and m.uninit_stack_ok) for kind in types)
        m.readable_slots[types] = known
    return known


def _refuse_dynptr_bytes(m: Machine, frame: Frame, start: int, end: int) -> None:
    for at in range(start, end):
        low = -at - 1
        if low // 8 < len(frame.stack) and frame.stack[low // 8].types[low % 8] == DYNPTR_BYTE:
            m.fail(f"potential write to dynptr at off={at} disallowed")


def constant_at(m: Machine, ptr: Reg, size: int) -> int | None:
    """The number that `size` bytes of stack are known to hold, marked as needed precisely; None where it is unknown."""
    if ptr.type != PTR_STACK or ptr.num.mask:
        return None
    frame = m.state.frames[ptr.data]
    low = -(ptr.off + ptr.num.smin) - 1
    spi, byte = low // 8, low % 8
    slot = frame.stack[spi]

    def run(kind: int) -> int:
        count = 0
        while byte - count >= 0 and slot.types[byte - count] == kind:
            count += 1
        return count

    if run(ZEROED) >= size:
        return 0
    if not is_spilled_scalar(slot) or run(SPILL) != size or slot.reg.num.mask:
        return None
    masks = Masks(len(m.state.frames) - 1)
    masks.slots[frame.number] |= 1 << spi
    mark_precise(m, m.state, masks)
    number: int = slot.reg.num.value
    return number
