"""What each argument of a helper may be: its type, its offset, the memory that it points to, the size beside it.

Source: check_func_arg and check_reg_type of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.lean import dataclass
from bpflisp.spec.helpers import Arg, ArgType, Proto
from simulator.managed import Field
from simulator.verifier import access, stack
from simulator.verifier import regs as r
from simulator.verifier.maps import MapInfo
from simulator.verifier.refusal import Unsupported
from simulator.verifier.regs import Reg, is_null, type_name

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

MAX_SIZE: Final = 1 << 29


_MEMORY: Final = (
    r.PTR_STACK, r.PTR_PACKET, r.PTR_PACKET_META, r.PTR_MAP_KEY, r.PTR_MAP_VALUE, r.PTR_MEM,
    r.PTR_MEM | r.MEM_RINGBUF, r.PTR_BUF, r.PTR_BTF_ID | r.TRUSTED,
)  # fmt: skip
_OLD_MEMORY: Final = (r.PTR_STACK, r.PTR_PACKET, r.PTR_PACKET_META, r.PTR_MAP_KEY, r.PTR_MAP_VALUE)
"""Where a map's key and value may be, up to 6.1."""
_SOCKS: Final = (r.PTR_SOCK_COMMON, r.PTR_SOCKET, r.PTR_TCP_SOCK, r.PTR_XDP_SOCK)

_ACCEPTS: Final[dict[ArgType, tuple[int, ...]]] = {
    ArgType.PTR_TO_MAP_KEY: _MEMORY,
    ArgType.PTR_TO_MAP_VALUE: _MEMORY,
    ArgType.PTR_TO_MEM: _MEMORY,
    ArgType.CONST_SIZE: (r.SCALAR,),
    ArgType.CONST_SIZE_OR_ZERO: (r.SCALAR,),
    ArgType.CONST_ALLOC_SIZE_OR_ZERO: (r.SCALAR,),
    ArgType.SCALAR: (r.SCALAR,),
    ArgType.CONST_MAP_PTR: (r.PTR_MAP,),
    ArgType.PTR_TO_CTX: (r.PTR_CTX,),
    ArgType.PTR_TO_SOCK_COMMON: _SOCKS,
    ArgType.PTR_TO_BTF_ID_SOCK_COMMON: (*_SOCKS, r.PTR_BTF_ID, r.PTR_BTF_ID | r.TRUSTED),
    ArgType.PTR_TO_SOCKET: (r.PTR_SOCKET,),
    ArgType.PTR_TO_BTF_ID: (r.PTR_BTF_ID, r.PTR_BTF_ID | r.TRUSTED, r.PTR_BTF_ID | r.MEM_RCU),
    ArgType.PTR_TO_SPIN_LOCK: (r.PTR_MAP_VALUE, r.PTR_BTF_ID | r.MEM_ALLOC),
    ArgType.PTR_TO_RINGBUF_MEM: (r.PTR_MEM | r.MEM_RINGBUF,),
    ArgType.PTR_TO_PERCPU_BTF_ID: (
        r.PTR_BTF_ID | r.MEM_PERCPU,
        r.PTR_BTF_ID | r.MEM_PERCPU | r.MEM_RCU,
        r.PTR_BTF_ID | r.MEM_PERCPU | r.TRUSTED,
    ),
    ArgType.PTR_TO_FUNC: (r.PTR_FUNC,),
    ArgType.PTR_TO_STACK: (r.PTR_STACK,),
    ArgType.PTR_TO_CONST_STR: (r.PTR_MAP_VALUE,),
    ArgType.PTR_TO_TIMER: (r.PTR_MAP_VALUE,),
    ArgType.KPTR_XCHG_DEST: (
        r.PTR_MAP_VALUE,
        r.PTR_BTF_ID | r.MEM_ALLOC,
    ),
    ArgType.PTR_TO_DYNPTR: (r.PTR_STACK, r.PTR_DYNPTR),
}

_SIZED: Final = frozenset({ArgType.CONST_SIZE, ArgType.CONST_SIZE_OR_ZERO})


@dataclass(slots=True)
class Call:
    """What is gathered from the arguments of one call."""

    name: str
    proto: Proto
    map: tuple[MapInfo, int] | None = None
    raw: tuple[int, int] | None = None
    raw_mode: bool = False
    release: int = 0
    ref: int = 0
    subprog: int = -1
    mem_size: int = 0
    size_limit: int = 0
    key: int | None = None
    dynptr_id: int = 0
    dynptr: Reg | None = None
    returned: tuple[object, int] | None = None
    kptr: Field | None = None
    of_object: bool = False


def _flags(arg: Arg) -> frozenset[str]:
    return arg.flags


def check_argument(m: Machine, made: Call, register: int, arg: Arg, idx: int) -> None:
    """That a register may be what the helper's prototype wants there; what it tells of the call is kept in `made`."""
    reg = m.readable(register)
    if arg.type is ArgType.ANYTHING or (made.name == "bpf_loop" and arg.type is ArgType.SCALAR and not m.loop_counts):
        return
    if r.is_packet(reg.type) and not access.may_touch_packet(m, False, made.proto.pkt_access):
        m.fail("helper access to the packet is not allowed")
    arg = _resolved(made, arg)
    kind = arg.type
    # a null here decides what is checked, and yet 6.18 does not want the number precise
    if not (is_null(reg) and arg.maybe_null):
        _check_type(m, made, register, reg, arg, kind)
        _check_offset(m, register, reg, arg)
    if "OBJ_RELEASE" in arg.flags:
        _check_release(m, made, register, reg, kind)
    if reg.ref and kind is not ArgType.KPTR_XCHG_DEST:
        made.ref = reg.ref
    handler = _HANDLERS.get(kind)
    if handler is not None:
        handler(m, made, register, reg, arg, idx)


_SOCKET: Final = Arg(ArgType.PTR_TO_BTF_ID_SOCK_COMMON)
_READ_VALUE: Final = Arg(ArgType.PTR_TO_MAP_VALUE)


def _resolved(made: Call, arg: Arg) -> Arg:
    """What a map's value argument is for maps that keep sockets, and for a peek at a bloom filter, which reads it."""
    if arg.type is not ArgType.PTR_TO_MAP_VALUE or made.map is None:
        return arg
    kind = made.map[0].type
    if kind in ("sockmap", "sockhash") and made.name == "bpf_map_update_elem":
        return _SOCKET
    if kind == "bloom_filter" and made.name == "bpf_map_peek_elem":
        return _READ_VALUE
    return arg


def _check_type(m: Machine, made: Call, register: int, reg: Reg, arg: Arg, kind: ArgType) -> None:
    accepted = _ACCEPTS.get(kind)
    if accepted is _MEMORY and kind is not ArgType.PTR_TO_MEM and not m.ways.keys_in_any_memory:
        accepted = _OLD_MEMORY
    if accepted is None:
        raise Unsupported(f"helper argument of kind {kind}", m.idx)
    seen = reg.type
    if "MEM_RDONLY" in arg.flags:
        seen &= ~r.MEM_RDONLY
    if arg.maybe_null:
        seen &= ~r.MAYBE_NULL
    if kind is ArgType.PTR_TO_MEM:
        seen &= ~r.DYNPTR_FLAGS
    if made.name == "bpf_kptr_xchg" and register == 2 and seen & r.MEM_ALLOC:
        seen &= ~(r.MEM_ALLOC | r.MEM_PERCPU)
    if seen not in accepted:
        expected = ", ".join(type_name(one) for one in accepted)
        m.fail(f"R{register} type={type_name(reg.type)} expected={expected}")
    if reg.type & r.BASE_MASK == r.PTR_BTF_ID:
        m.typed.check_argument(m, made, register, reg, arg, kind)


_ANY_FIXED_OFFSET: Final = frozenset(
    {
        r.PTR_STACK, r.PTR_PACKET, r.PTR_PACKET_META, r.PTR_MAP_KEY, r.PTR_MAP_VALUE, r.PTR_MEM,
        r.PTR_MEM | r.MEM_RDONLY, r.PTR_MEM | r.MEM_RINGBUF, r.PTR_BUF, r.PTR_BUF | r.MEM_RDONLY, r.PTR_ARENA, r.SCALAR,
    }
)  # fmt: skip
_FIXED_OFFSET: Final = frozenset(
    {
        r.PTR_BTF_ID, r.PTR_BTF_ID | r.MEM_ALLOC, r.PTR_BTF_ID | r.TRUSTED, r.PTR_BTF_ID | r.MEM_RCU,
        r.PTR_BTF_ID | r.MEM_ALLOC | r.NON_OWN_REF, r.PTR_BTF_ID | r.MEM_ALLOC | r.NON_OWN_REF | r.MEM_RCU,
    }
)  # fmt: skip


def check_argument_offset(m: Machine, register: int, reg: Reg, releases: bool, dynptr: bool = False) -> None:
    """That a pointer given to a call points where it may: an object to be released at its very start."""
    if releases:
        if dynptr and reg.type == r.PTR_STACK:
            return
        if not m.ways.records_given_back_whole and reg.type == r.PTR_MEM | r.MEM_RINGBUF:
            return
        if reg.off:
            m.fail(f"R{register} must have zero offset when passed to release func or trusted arg to kfunc")
        access.check_offset_free(m, register, reg)
        return
    if reg.type in _ANY_FIXED_OFFSET:
        return
    if reg.type == r.NOT_INIT:
        # a kernel function's argument that nobody wrote: its offset could be anything
        m.fail("variable ? access var_off=(0x0; 0xffffffffffffffff) disallowed")
    access.check_offset_free(m, register, reg, fixed_ok=reg.type in _FIXED_OFFSET)


def _check_offset(m: Machine, register: int, reg: Reg, arg: Arg) -> None:
    check_argument_offset(m, register, reg, "OBJ_RELEASE" in arg.flags, arg.type is ArgType.PTR_TO_DYNPTR)


def _check_release(m: Machine, made: Call, register: int, reg: Reg, kind: ArgType) -> None:
    if kind is ArgType.PTR_TO_DYNPTR:
        m.objects.check_dynptr_release(m, register, reg)
    elif not reg.ref and not is_null(reg):
        m.fail(f"R{register} must be referenced when passed to release function")
    made.release = register


def _map_pointer(m: Machine, made: Call, register: int, reg: Reg, arg: Arg, idx: int) -> None:
    if made.map is not None and (made.map[0] is not reg.data[0] or made.map[1] != reg.data[1]):
        m.fail(f"timer pointer in R1 map_uid={made.map[1]} doesn't match map pointer in R2 map_uid={reg.data[1]}")
    made.map = reg.data


def _map_key(m: Machine, made: Call, register: int, reg: Reg, arg: Arg, idx: int) -> None:
    if made.map is None:
        m.fail("invalid map_ptr to access map->key")
    target = made.map[0]
    access.check_helper_memory(m, register, target.key_size, False, False)
    if m.elides_null and target.type in ("array", "percpu_array") and not target.flags & (1 << 12):
        made.key = stack.constant_at(m, reg, target.key_size)


def _map_value(m: Machine, made: Call, register: int, reg: Reg, arg: Arg, idx: int) -> None:
    if arg.maybe_null and is_null(reg):
        return
    if made.map is None:
        m.fail("invalid map_ptr to access map->value")
    writes, raw = "MEM_WRITE" in arg.flags, "MEM_UNINIT" in arg.flags
    if access.check_helper_memory(m, register, made.map[0].value_size, writes, False, raw):
        made.raw = (register, made.map[0].value_size)


def _memory(m: Machine, made: Call, register: int, reg: Reg, arg: Arg, idx: int) -> None:
    made.raw_mode = "MEM_UNINIT" in arg.flags
    if "MEM_FIXED_SIZE" not in arg.flags:
        return
    writes = "MEM_WRITE" in arg.flags
    if "MEM_ALIGNED" in arg.flags and not m.ways.results_need_no_value:
        writes = made.raw_mode = False
    if access.check_helper_memory(m, register, arg.size, writes, False, made.raw_mode):
        made.raw = (register, arg.size)
    if "MEM_ALIGNED" in arg.flags:
        access.check_alignment(m, reg, 0, arg.size, True)


def check_size(m: Machine, register: int, reg: Reg, writes: bool, zero_ok: bool, raw: bool) -> int | None:
    """That the memory before a size argument has so many bytes; its size where the call fills it, else None."""
    num = reg.num
    if num.smin < 0:
        m.fail(f"R{register} min value is negative, either use unsigned or 'var &= const'")
    if num.umin == 0 and not m.ways.empty_reads_are_named:
        access.check_helper_memory(m, register - 1, 0, writes, zero_ok, raw and num.is_const)
    elif num.umin == 0 and not zero_ok:
        m.fail(f"R{register} invalid zero-sized read: u64=[{num.umin},{num.umax}]")
    if num.umax >= MAX_SIZE:
        m.fail(f"R{register} unbounded memory access, use 'var &= const' or 'if (var < const)'")
    fills = access.check_helper_memory(m, register - 1, num.umax, writes, zero_ok, raw and num.is_const)
    m.mark_precise(register)
    return num.umax if fills else None


def _size(m: Machine, made: Call, register: int, reg: Reg, arg: Arg, idx: int) -> None:
    before = made.proto.args[register - 2]
    made.size_limit = reg.num.umax
    zero_ok = arg.type is ArgType.CONST_SIZE_OR_ZERO
    filled = check_size(m, register, reg, "MEM_WRITE" in before.flags, zero_ok, made.raw_mode)
    if filled is not None:
        made.raw = (register - 1, filled)


def _alloc_size(m: Machine, made: Call, register: int, reg: Reg, arg: Arg, idx: int) -> None:
    if not reg.num.is_const:
        m.fail(f"R{register} is not a known constant'")
    made.mem_size = reg.num.value & 0xFFFFFFFF
    m.mark_precise(register)


def _function(m: Machine, made: Call, register: int, reg: Reg, arg: Arg, idx: int) -> None:
    made.subprog = reg.data


def _const_string(m: Machine, made: Call, register: int, reg: Reg, arg: Arg, idx: int) -> None:
    check_const_string(m, register, reg)


def check_const_string(m: Machine, register: int, reg: Reg) -> bytes:
    """The known text that a pointer into a read-only map names, without its final zero."""
    target: MapInfo = reg.data[0]
    if target.contents is None:
        m.fail(f"R{register} does not point to a readonly map'")
    if reg.num.mask:
        m.fail(f"R{register} is not a constant address'")
    start = reg.off + reg.num.smin
    access.check_map_value(m, register, reg, reg.off, target.value_size - start, False, False)
    text, found, _ = target.contents[start:].partition(b"\0")
    if not found:
        m.fail("string is not zero-terminated")
    return text


def _percpu(m: Machine, made: Call, register: int, reg: Reg, arg: Arg, idx: int) -> None:
    made.returned = reg.data


def _spin_lock(m: Machine, made: Call, register: int, reg: Reg, arg: Arg, idx: int) -> None:
    m.objects.spin_lock(m, register, reg, made.name == "bpf_spin_lock")


def _timer(m: Machine, made: Call, register: int, reg: Reg, arg: Arg, idx: int) -> None:
    made.map = m.objects.timer(m, register, reg, made.map)


def _dynptr(m: Machine, made: Call, register: int, reg: Reg, arg: Arg, idx: int) -> None:
    m.objects.dynptr_argument(m, made, register, reg, arg, idx)


def _kptr(m: Machine, made: Call, register: int, reg: Reg, arg: Arg, idx: int) -> None:
    kept_in, made.kptr = m.objects.kptr_argument(m, register, reg)
    made.map = kept_in or made.map


_HANDLERS: Final = {
    ArgType.CONST_MAP_PTR: _map_pointer,
    ArgType.PTR_TO_MAP_KEY: _map_key,
    ArgType.PTR_TO_MAP_VALUE: _map_value,
    ArgType.PTR_TO_MEM: _memory,
    ArgType.CONST_SIZE: _size,
    ArgType.CONST_SIZE_OR_ZERO: _size,
    ArgType.CONST_ALLOC_SIZE_OR_ZERO: _alloc_size,
    ArgType.PTR_TO_FUNC: _function,
    ArgType.PTR_TO_CONST_STR: _const_string,
    ArgType.PTR_TO_PERCPU_BTF_ID: _percpu,
    ArgType.PTR_TO_SPIN_LOCK: _spin_lock,
    ArgType.PTR_TO_TIMER: _timer,
    ArgType.PTR_TO_DYNPTR: _dynptr,
    ArgType.KPTR_XCHG_DEST: _kptr,
}
