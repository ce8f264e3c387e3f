"""Loads and stores: which memory an instruction may touch through which pointer, and what it then knows.

Source: check_mem_access and what it calls in kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from simulator.verifier import hookrules, sockets, stack
from simulator.verifier import regs as r
from simulator.verifier.maps import RDONLY_PROG, WRONLY_PROG, MapInfo
from simulator.verifier.regs import Reg, const_reg, is_null, scalar_reg, type_name
from simulator.verifier.stack import MAX_VAR_OFFSET, UNKNOWN_REG, num_text

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

S64_MIN: Final = -(1 << 63)
MAX_PACKET_OFFSET: Final = 0xFFFF

_POINTER_WORDS: Final = {
    r.PTR_FLOW_KEYS: "flow keys ",
    r.PTR_MAP_KEY: "key ",
    r.PTR_MAP_VALUE: "value ",
    r.PTR_CTX: "context ",
    r.PTR_STACK: "stack ",
    r.PTR_SOCKET: "sock ",
    r.PTR_SOCK_COMMON: "sock_common ",
    r.PTR_TCP_SOCK: "tcp_sock ",
    r.PTR_XDP_SOCK: "xdp_sock ",
}

_PACKET_READERS: Final = frozenset(
    {"lwt_in", "lwt_out", "lwt_seg6local", "sk_reuseport", "flow_dissector", "cgroup_skb"}
)
_PACKET_WRITERS: Final = frozenset({"sched_cls", "sched_act", "xdp", "lwt_xmit", "sk_skb", "sk_msg"})


def may_touch_packet(m: Machine, writes: bool, helper_allows: bool | None = None) -> bool:
    """Whether this program type may access packet bytes directly, or pass them to this helper."""
    kind = m.program_type
    if kind in _PACKET_READERS and writes:
        return False
    if kind in _PACKET_READERS or kind in _PACKET_WRITERS:
        return True if helper_allows is None else helper_allows
    return kind == "cgroup_sockopt"


def check_alignment(m: Machine, reg: Reg, off: int, size: int, strict: bool) -> None:
    """That an access is aligned, where that is asked: the stack always, others under strict alignment."""
    kind = reg.type
    if kind == r.PTR_STACK:
        strict = True
    strict = strict or m.strict_alignment
    if not strict or size == 1 or kind == r.PTR_ARENA:
        return
    packet = r.is_packet(kind)
    total = (2 if packet else 0) + reg.off + off
    num = reg.num
    if ((num.value + total) | num.mask) & (size - 1) == 0:
        return
    if packet:
        m.fail(f"misaligned packet access off 2+{num_text(reg)}+{reg.off}+{off} size {size}")
    word = _POINTER_WORDS.get(kind, "")
    m.fail(f"misaligned {word}access off {num_text(reg)}+{reg.off}+{off} size {size}")


def check_region(m: Machine, register: int, reg: Reg, off: int, size: int, limit: int, zero_ok: bool) -> None:
    """That every place that a pointer with a variable offset may reach lies inside a region of `limit` bytes."""
    num = reg.num
    if num.smin < 0 and (num.smin == S64_MIN or not -(1 << 31) <= off + num.smin < 1 << 31 or num.smin + off < 0):
        m.fail(f"R{register} min value is negative, either use unsigned index or do a if (index >=0) check.")
    _check_inside(m, register, reg, num.smin + off, size, limit, zero_ok, "min value is")
    if num.umax >= MAX_VAR_OFFSET:
        m.fail(f"R{register} unbounded memory access, make sure to bounds check any such access")
    _check_inside(m, register, reg, num.umax + off, size, limit, zero_ok, "max value is")


def _check_inside(
    m: Machine, register: int, reg: Reg, off: int, size: int, limit: int, zero_ok: bool, which: str
) -> None:
    if off >= 0 and (size > 0 or (size == 0 and zero_ok)) and off + size <= limit:
        return
    m.fail(_outside_text(register, reg, off, size, limit), f"R{register} {which} outside of the allowed memory range")


def _outside_text(register: int, reg: Reg, off: int, size: int, limit: int) -> str:
    if reg.type == r.PTR_MAP_KEY:
        return f"invalid access to map key, key_size={limit} off={off} size={size}"
    if reg.type == r.PTR_MAP_VALUE:
        return f"invalid access to map value, value_size={limit} off={off} size={size}"
    if r.is_packet(reg.type) or reg.type == r.PTR_PACKET_END:
        return f"invalid access to packet, off={off} size={size}, R{register}(id={reg.id},off={off},r={limit})"
    return f"invalid access to memory, mem_size={limit} off={off} size={size}"


def check_packet(m: Machine, register: int, reg: Reg, off: int, size: int, zero_ok: bool) -> None:
    """That packet bytes were compared with the packet's end."""
    if reg.num.smin < 0:
        m.fail(f"R{register} min value is negative, either use unsigned index or do a if (index >=0) check.")
    limit = reg.data
    if limit < 0:
        m.fail(f"R{register} offset is outside of the packet")
    if not (off >= 0 and (size > 0 or (size == 0 and zero_ok)) and off + size <= limit):
        m.fail(_outside_text(register, reg, off, size, limit), f"R{register} offset is outside of the packet")


def check_map_flags(m: Machine, target: MapInfo, off: int, size: int, writes: bool) -> None:
    """That the map's flags let programs read or write it."""
    if writes and target.flags & RDONLY_PROG:
        m.fail(f"write into map forbidden, value_size={target.value_size} off={off} size={size}")
    if not writes and target.flags & WRONLY_PROG:
        m.fail(f"read from map forbidden, value_size={target.value_size} off={off} size={size}")


def check_map_value(m: Machine, register: int, reg: Reg, off: int, size: int, zero_ok: bool, direct: bool) -> None:
    """That an access stays in the value and does not touch what only helpers may touch."""
    target: MapInfo = reg.data[0]
    check_region(m, register, reg, off, size, target.value_size, zero_ok)
    for field in target.fields:
        if reg.num.smin + off < field.offset + field.size and field.offset < reg.num.umax + off + size:
            m.objects.check_field_access(m, reg, field, off, size, direct)


def check_offset_free(m: Machine, register: int, reg: Reg, fixed_ok: bool = False) -> None:
    """That a pointer was not moved, or by a fixed offset alone where `fixed_ok`."""
    name = type_name(reg.type)
    if reg.off < 0:
        m.fail(f"negative offset {name} ptr R{register} off={reg.off} disallowed")
    if not fixed_ok and reg.off:
        m.fail(f"dereference of modified {name} ptr R{register} off={reg.off} disallowed")
    if reg.num.mask or reg.num.value:
        m.fail(f"variable {name} access var_off={num_text(reg)} disallowed")


def _load_map_value(m: Machine, reg: Reg, off: int, size: int, dst: int, signed: bool) -> None:
    target: MapInfo = reg.data[0]
    if reg.num.mask == 0 and target.contents is not None:
        start = off + reg.num.smin
        number = int.from_bytes(target.contents[start : start + size], "little", signed=signed)
        m.frame.regs[dst] = const_reg(number)
        return
    m.frame.regs[dst] = UNKNOWN_REG


def _map_value(
    m: Machine, register: int, reg: Reg, off: int, size: int, writes: bool, value: int, signed: bool
) -> None:
    check_map_flags(m, reg.data[0], off, size, writes)
    check_map_value(m, register, reg, off, size, False, True)
    if reg.num.mask == 0 and m.objects.kptr_access(m, register, reg, off, value):
        return
    if not writes and value >= 0:
        _load_map_value(m, reg, off, size, value, signed)


def _map_key(m: Machine, register: int, reg: Reg, off: int, size: int, writes: bool, value: int, signed: bool) -> None:
    if writes:
        m.fail(f"write to change key R{register} not allowed")
    check_region(m, register, reg, off, size, reg.data[0].key_size, False)
    if value >= 0:
        m.frame.regs[value] = UNKNOWN_REG


def _memory(m: Machine, register: int, reg: Reg, off: int, size: int, writes: bool, value: int, signed: bool) -> None:
    if reg.type & r.MAYBE_NULL:
        m.fail(f"R{register} invalid mem access '{type_name(reg.type)}'")
    if writes and reg.type & r.MEM_RDONLY:
        m.fail(f"R{register} cannot write into {type_name(reg.type)}")
    if not reg.type & r.UNTRUSTED:  # reads of memory that may be gone are caught when they run
        check_region(m, register, reg, off, size, reg.data[0], False)
    if value >= 0 and (not writes or reg.type & r.MEM_RDONLY):
        m.frame.regs[value] = UNKNOWN_REG


def _context(m: Machine, register: int, reg: Reg, off: int, size: int, writes: bool, value: int, signed: bool) -> None:
    check_offset_free(m, register, reg)
    loaded = hookrules.context_access(m, off, size, writes, signed)
    if writes or value < 0:
        return
    if loaded is None:
        m.frame.regs[value] = UNKNOWN_REG
    else:
        m.frame.regs[value] = loaded


def _stack(m: Machine, register: int, reg: Reg, off: int, size: int, writes: bool, value: int, signed: bool) -> None:
    stack.check_bounds(m, register, off, size, writes)
    if writes:
        stack.write(m, reg, off, size, value, m.idx)
    else:
        stack.read(m, reg, off, size, value, register)


def _packet(m: Machine, register: int, reg: Reg, off: int, size: int, writes: bool, value: int, signed: bool) -> None:
    if writes and not may_touch_packet(m, True):
        m.fail("cannot write into packet")
    check_packet(m, register, reg, off, size, False)
    if not writes and value >= 0:
        m.frame.regs[value] = UNKNOWN_REG


def _flow_keys(
    m: Machine, register: int, reg: Reg, off: int, size: int, writes: bool, value: int, signed: bool
) -> None:
    if size < 0 or off < 0 or off + size > m.flow_keys_size:
        m.fail(f"invalid access to flow keys off={off} size={size}")
    if not writes and value >= 0:
        m.frame.regs[value] = UNKNOWN_REG


def _socket(m: Machine, register: int, reg: Reg, off: int, size: int, writes: bool, value: int, signed: bool) -> None:
    if writes:
        m.fail(f"R{register} cannot write into {type_name(reg.type)}")
    if reg.num.smin < 0:
        m.fail(f"R{register} min value is negative, either use unsigned index or do a if (index >=0) check.")
    if (off, size) not in sockets.reads(reg.type):
        m.fail(f"R{register} invalid {type_name(reg.type)} access off={off} size={size}")
    if value >= 0:
        m.frame.regs[value] = UNKNOWN_REG


def _buffer(m: Machine, register: int, reg: Reg, off: int, size: int, writes: bool, value: int, signed: bool) -> None:
    if writes and reg.type & r.MEM_RDONLY:
        m.fail(f"R{register} cannot write into {type_name(reg.type)}")
    check_buffer(m, register, reg, off, size)
    if value >= 0 and (not writes or reg.type & r.MEM_RDONLY):
        m.frame.regs[value] = UNKNOWN_REG


def check_buffer(m: Machine, register: int, reg: Reg, off: int, size: int) -> None:
    """That a buffer of unknown length is accessed at a fixed offset from its start."""
    name = "rdonly" if reg.type & r.MEM_RDONLY else "rdwr"
    if off < 0:
        m.fail(f"R{register} invalid {name} buffer access: off={off}, size={size}")
    if reg.num.mask or reg.num.value:
        m.fail(f"R{register} invalid variable buffer offset: off={off}, var_off={num_text(reg)}")


def _tracepoint_buffer(
    m: Machine, register: int, reg: Reg, off: int, size: int, writes: bool, value: int, signed: bool
) -> None:
    if off < 0:
        m.fail(f"R{register} invalid tracepoint buffer access: off={off}, size={size}")
    if reg.num.mask or reg.num.value:
        m.fail(f"R{register} invalid variable buffer offset: off={off}, var_off={num_text(reg)}")
    if not writes and value >= 0:
        m.frame.regs[value] = UNKNOWN_REG


def _arena(m: Machine, register: int, reg: Reg, off: int, size: int, writes: bool, value: int, signed: bool) -> None:
    if not writes and value >= 0:
        m.frame.regs[value] = UNKNOWN_REG


def _btf_pointer(
    m: Machine, register: int, reg: Reg, off: int, size: int, writes: bool, value: int, signed: bool
) -> None:
    m.typed.access(m, register, reg, off, size, writes, value)


def _map_pointer(
    m: Machine, register: int, reg: Reg, off: int, size: int, writes: bool, value: int, signed: bool
) -> None:
    m.typed.map_pointer_access(m, register, reg, off, size, writes, value)


_BY_TYPE: Final = {
    r.PTR_MAP_VALUE: _map_value,
    r.PTR_MAP_KEY: _map_key,
    r.PTR_CTX: _context,
    r.PTR_STACK: _stack,
    r.PTR_PACKET: _packet,
    r.PTR_PACKET_META: _packet,
    r.PTR_FLOW_KEYS: _flow_keys,
    r.PTR_SOCKET: _socket,
    r.PTR_SOCK_COMMON: _socket,
    r.PTR_TCP_SOCK: _socket,
    r.PTR_XDP_SOCK: _socket,
    r.PTR_TP_BUFFER: _tracepoint_buffer,
    r.PTR_MAP: _map_pointer,
    r.PTR_ARENA: _arena,
}


def check_access(
    m: Machine,
    register: int,
    off: int,
    size: int,
    writes: bool,
    value: int,
    strict: bool = False,
    signed: bool = False,
) -> None:
    """One access of `size` bytes at `off` from the pointer in `register`.

    `value` is the register loaded or stored, -1 for an immediate, or where only the access itself is checked.
    """
    reg = m.frame.regs[register]
    check_alignment(m, reg, off, size, strict)
    kind = reg.type
    handler = _BY_TYPE.get(kind)
    if handler is None:
        base = kind & r.BASE_MASK
        if base == r.PTR_MEM:
            handler = _memory
        elif base == r.PTR_BTF_ID and not kind & r.MAYBE_NULL:
            handler = _btf_pointer
        elif base == r.PTR_BUF and not kind & r.MAYBE_NULL:
            handler = _buffer
        else:
            m.fail(f"R{register} invalid mem access '{type_name(kind)}'")
    handler(m, register, reg, off + reg.off, size, writes, value, signed)
    if size < 8 and value >= 0 and not writes:
        narrow(m, value, size, signed)


def narrow(m: Machine, value: int, size: int, signed: bool) -> None:
    """A load of fewer than eight bytes fills the register with zeros or with the sign."""
    reg = m.frame.regs[value]
    if reg.type != r.SCALAR:
        return
    if signed:
        num = m.domain.sext(reg.num, size * 8, 64)
        keeps_id = reg.num.umax < 1 << (size * 8 - 1)
    else:
        num = m.domain.zext_to_size(reg.num, size)
        keeps_id = True
    if num is not reg.num or (reg.id and not keeps_id):
        m.frame.regs[value] = Reg(r.SCALAR, reg.off, num, reg.id) if reg.id and keeps_id else scalar_reg(num)


def check_helper_memory(m: Machine, register: int, size: int, writes: bool, zero_ok: bool, raw: bool = False) -> bool:
    """That a helper may read or write `size` bytes at the pointer in `register`.

    True where the memory is uninitialised stack that the helper fills: the caller marks it written.
    """
    reg = m.frame.regs[register]
    base = reg.type & r.BASE_MASK
    if base in (r.PTR_PACKET, r.PTR_PACKET_META):
        check_packet(m, register, reg, reg.off, size, zero_ok)
    elif base == r.PTR_MAP_KEY:
        if writes:
            m.fail(f"R{register} cannot write into {type_name(reg.type)}")
        check_region(m, register, reg, reg.off, size, reg.data[0].key_size, False)
    elif base == r.PTR_MAP_VALUE:
        check_map_flags(m, reg.data[0], reg.off, size, writes)
        check_map_value(m, register, reg, reg.off, size, zero_ok, False)
    elif base == r.PTR_MEM:
        if writes and reg.type & r.MEM_RDONLY:
            m.fail(f"R{register} cannot write into {type_name(reg.type)}")
        check_region(m, register, reg, reg.off, size, reg.data[0], zero_ok)
    elif base == r.PTR_BUF:
        if writes and reg.type & r.MEM_RDONLY:
            m.fail(f"R{register} cannot write into {type_name(reg.type)}")
        check_buffer(m, register, reg, reg.off, size)
    elif base == r.PTR_STACK:
        return stack.check_initialized(m, register, reg.off, size, zero_ok, writes, raw)
    elif base == r.PTR_BTF_ID:
        m.typed.access(m, register, reg, reg.off, size, False, -1)
    elif base == r.PTR_CTX and m.context_is_plain_memory:
        if size == 0 and not zero_ok:
            m.fail_silently()
        if size:
            check_access(m, register, size - 1, 1, writes, -1)
    elif not (zero_ok and size == 0 and is_null(reg)):
        m.fail(f"R{register} type={type_name(reg.type)} expected=fp")
    return False
