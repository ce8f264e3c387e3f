"""Calls of helpers: what each argument may be, and what comes back.

Source: check_helper_call, check_func_arg and check_reg_type of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bpflisp.spec import helpers as spec
from bpflisp.spec import hooks
from bpflisp.spec import maps as map_spec
from bpflisp.spec.helpers import Arg, ArgType, Proto, RetType
from bpflisp.spec.insn import Insn
from simulator.managed import Field
from simulator.verifier import access, calls, formats, hookrules, stack
from simulator.verifier import regs as r
from simulator.verifier.branches import drop_ref
from simulator.verifier.callfacts import CHANGES_PACKET
from simulator.verifier.maps import RDONLY_PROG, MapInfo
from simulator.verifier.refusal import Unsupported
from simulator.verifier.regs import NOTHING, ZERO, Reg, is_null, scalar_reg, type_name
from simulator.verifier.stack import UNKNOWN_REG
from simulator.verifier.state import Frame

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

MAX_SIZE: Final = 1 << 29
MAX_ERRNO: Final = 4095

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
_CASTS: Final = frozenset({"bpf_tcp_sock", "bpf_sk_fullsock", "bpf_skc_to_tcp_sock", "bpf_skc_to_tcp6_sock",
    "bpf_skc_to_udp6_sock", "bpf_skc_to_mptcp_sock", "bpf_skc_to_tcp_timewait_sock",
    "bpf_skc_to_tcp_request_sock"})  # fmt: skip
_ACQUIRES: Final = frozenset(
    {"bpf_sk_lookup_tcp", "bpf_sk_lookup_udp", "bpf_skc_lookup_tcp", "bpf_ringbuf_reserve", "bpf_kptr_xchg"}
)
_MAP_RECORDED: Final = frozenset(
    {
        "bpf_tail_call", "bpf_map_lookup_elem", "bpf_map_update_elem", "bpf_map_delete_elem", "bpf_map_push_elem",
        "bpf_map_pop_elem", "bpf_map_peek_elem", "bpf_for_each_map_elem", "bpf_redirect_map",
        "bpf_map_lookup_percpu_elem",
    }
)  # fmt: skip
_CALLED_UNDER_LOCK: Final = frozenset({94, 194})
"""bpf_spin_unlock and bpf_kptr_xchg."""
_TEXT_SIZED: Final = frozenset(
    {
        "bpf_get_stack", "bpf_get_task_stack", "bpf_probe_read_str", "bpf_probe_read_kernel_str",
        "bpf_probe_read_user_str",
    }
)  # fmt: skip


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


class Helpers:
    """The helpers as one program may call them on one kernel; asked once a program."""

    def __init__(self, m: Machine) -> None:
        program = m.program
        sleepable = bool(program.flags & 16)
        self.kernel = m.kernel
        self.allowed = spec.allowed(m.kernel, program.type, program.attach_type, sleepable)
        self.gpl_only = spec.gpl_only(m.kernel, program.type, program.attach_type, sleepable)
        self.sleepable = sleepable
        self.compatible = m.gpl_compatible
        self.offered: dict[int, tuple[str, Proto]] = {}
        self._protos: dict[int, Proto] = {}

    def proto(self, m: Machine, number: int) -> Proto:
        """The prototype that this program type has of a helper."""
        found = self._protos.get(number)
        if found is None:
            program = m.program
            found = self._protos[number] = spec.proto(
                number, program.type, program.attach_type, self.sleepable, self.kernel
            )
        return found


def call(m: Machine, idx: int, insn: Insn) -> int:
    """A call of a helper; returns the next slot, or EXIT where the call ends the path."""
    if m.state.holds.locks and insn.imm not in _CALLED_UNDER_LOCK:
        m.fail("function calls are not allowed while holding a lock")
    offered = m.helpers.offered.get(insn.imm)
    if offered is None:
        offered = m.helpers.offered[insn.imm] = _offered(m, idx, insn.imm)
    name, proto = offered
    made = Call(name, proto)
    _check_place(m, made, insn.imm)
    m.liveness.begin(idx)
    for number, arg in enumerate(proto.args):
        _check_argument(m, made, number + 1, arg, idx)
    _check_map_use(m, made, idx)
    if made.raw is not None:
        _mark_filled(m, *made.raw)
    if made.release:
        _release(m, made, insn.imm)
    _special(m, made, idx)
    calls.clobber(m.frame)
    _result(m, made, idx)
    _check_map_kind(m, made, insn.imm)
    if made.name == "bpf_get_func_ip":
        hookrules.check_get_func_ip(m, insn.imm)
    if name == "bpf_tail_call" and m.ways.tail_calls_return:
        return _after_tail_call(m, idx)
    if insn.imm in CHANGES_PACKET:
        m.forget_packet()
    m.liveness.commit()
    return calls.run_callback(m, m.awaited) if m.awaited is not None else idx + 1


def _offered(m: Machine, idx: int, number: int) -> tuple[str, Proto]:
    """Name and prototype of a helper that this program may call; what is checked does not change from call to call."""
    if not m.typed.allows_helper(m, number) or number not in m.helpers.allowed:
        m.fail(hooks.NOT_ALLOWED if _is_refused_by_hook(m, number) else spec.refusal(number, m.kernel))
    helper = spec.by_id(number)
    if helper is None:
        raise Unsupported(f"helper number {number}", idx)
    proto = m.helpers.proto(m, number)
    if not m.gpl_compatible and number in m.helpers.gpl_only:
        m.fail("cannot call GPL-restricted function from non-GPL compatible program")
    _check_hook(m, proto)
    return helper.name, proto


def _after_tail_call(m: Machine, idx: int) -> int:
    """In a subprogram, a tail call that succeeds is a return: looked at now, its failure later."""
    if len(m.state.frames) == 1:
        m.liveness.commit()
        return idx + 1
    if m.frame.in_callback:
        m.fail("cannot tail call within callback")
    m.scratched_regs |= 1
    m.push_state(idx + 1, idx)
    m.forget_packet()
    m.frame.regs[0] = UNKNOWN_REG
    m.liveness.commit()
    return calls.leave_early(m, idx)


def _is_refused_by_hook(m: Machine, number: int) -> bool:
    """Whether a helper that no program attached there may call is offered to the type, for other attach types."""
    offered = m.program_type == "tracing" and number in spec.allowed(m.kernel, "tracing", "trace_iter")
    return offered and m.gpl_compatible and bool(m.helpers.proto(m, number).allowed_hook)


def _check_hook(m: Machine, proto: Proto) -> None:
    """That a helper for some hooks alone is called from one of those."""
    program = m.program
    try:
        allowed = hooks.allows(proto.allowed_hook, program.type, program.attach_type, program.attach_target)
    except KeyError:
        m.unsupported(f"the helper {proto.name} in this hook")
    if not allowed:
        m.fail(hooks.NOT_ALLOWED)


def _check_place(m: Machine, made: Call, number: int) -> None:
    """That the helper may be called here, where sleeping is perhaps not allowed."""
    holds = m.state.holds
    proto = made.proto
    if proto.might_sleep and not m.state.sleepable:
        m.fail("helper call might sleep in a non-sleepable prog")
    if not proto.might_sleep:
        return
    if holds.rcu:
        m.fail(f"sleepable helper {made.name}#{number} in rcu_read_lock region")
    if holds.preempt:
        m.fail(f"sleepable helper {made.name}#{number} in non-preemptible region")
    if holds.irq_id:
        m.fail(f"sleepable helper {made.name}#{number} in IRQ-disabled region")


def _flags(arg: Arg) -> frozenset[str]:
    return arg.flags


def _check_argument(m: Machine, made: Call, register: int, arg: Arg, idx: int) -> None:
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


def _check_map_use(m: Machine, made: Call, idx: int) -> None:
    if made.name not in _MAP_RECORDED:
        return
    if made.map is None:
        m.fail("kernel subsystem misconfigured verifier")
    target = made.map[0]
    if target.flags & RDONLY_PROG and made.name in (
        "bpf_map_delete_elem", "bpf_map_update_elem", "bpf_map_push_elem", "bpf_map_pop_elem",
    ):  # fmt: skip
        m.fail("write into map forbidden")
    if made.name == "bpf_tail_call":
        if target.type != "prog_array":
            m.fail("expected prog array map for tail call")
        index = m.frame.regs[3]
        if index.type == r.SCALAR and index.num.is_const and index.num.value < target.max_entries:
            m.mark_precise(3)


def _mark_filled(m: Machine, register: int, size: int) -> None:
    """The helper fills so many bytes of stack: each is written as by a store of one unknown byte."""
    for at in range(size):
        access.check_access(m, register, at, 1, True, -2)


def _release(m: Machine, made: Call, number: int) -> None:
    register = made.release
    reg = m.frame.regs[register]
    proto = made.proto
    if proto.args[register - 1].type is ArgType.PTR_TO_DYNPTR:
        m.objects.release_dynptr(m, reg)
        return
    if made.name == "bpf_kptr_xchg" and made.ref:
        m.objects.give_kptr(m, made.ref)
        return
    if made.ref:
        if not release(m, made.ref):
            m.fail(f"func {made.name}#{number} reference has not been acquired before")
    elif not is_null(reg):
        m.fail(f"func {made.name}#{number} reference has not been acquired before")


def release(m: Machine, identity: int) -> bool:
    """Gives a reference back: what pointed to it may no longer be used. False where it is not held."""
    if not drop_ref(m, m.state, identity):
        return False

    def change(reg: Reg) -> Reg:
        return UNKNOWN_REG if reg.ref == identity else reg

    m.state.replace_regs(change)
    return True


def _map_callback(m: Machine, made: Call) -> calls.Setup:
    assert made.map is not None
    target = made.map
    if target[0].type not in (
        "hash", "percpu_hash", "lru_hash", "lru_percpu_hash", "array", "percpu_array",
    ):  # fmt: skip
        m.fail("callback function not allowed for map")

    def setup(_: Machine, caller: Frame, callee: Frame) -> None:
        callee.regs[1] = caller.regs[1]
        callee.regs[2] = Reg(r.PTR_MAP_KEY, 0, ZERO, data=target)
        callee.regs[3] = Reg(r.PTR_MAP_VALUE, 0, ZERO, data=target)
        callee.regs[4] = caller.regs[3]
        callee.in_callback = True

    return setup


def _loop_callback(_: Machine, caller: Frame, callee: Frame) -> None:
    callee.regs[1] = UNKNOWN_REG
    callee.regs[2] = caller.regs[3]
    callee.in_callback = True


def _timer_callback(m: Machine, made: Call) -> calls.Setup:
    assert made.map is not None
    target = made.map

    def setup(_: Machine, caller: Frame, callee: Frame) -> None:
        callee.regs[1] = Reg(r.PTR_MAP, 0, ZERO, data=target)
        callee.regs[2] = Reg(r.PTR_MAP_KEY, 0, ZERO, data=target)
        callee.regs[3] = Reg(r.PTR_MAP_VALUE, 0, ZERO, data=target)
        callee.in_async_callback = True
        callee.callback_range = (0, 0)

    return setup


def _special(m: Machine, made: Call, idx: int) -> None:
    """What single helpers ask for besides their prototype."""
    name, regs = made.name, m.frame.regs
    if name == "bpf_tail_call":
        _tail_call(m, idx)
    elif name == "bpf_get_local_storage":
        if not is_null(regs[2]):
            m.fail("get_local_storage() doesn't support non-zero flags")
    elif name == "bpf_for_each_map_elem":
        calls.push_callback(m, idx, made.subprog, _map_callback(m, made))
    elif name == "bpf_timer_set_callback":
        calls.push_callback(m, idx, made.subprog, _timer_callback(m, made), asynchronous=True)
    elif name == "bpf_find_vma":
        calls.push_callback(m, idx, made.subprog, m.typed.vma_callback(m))
    elif name == "bpf_user_ringbuf_drain":
        calls.push_callback(m, idx, made.subprog, m.objects.drain_callback(m))
    elif name == "bpf_loop":
        _loop(m, made, idx)
    elif name == "bpf_snprintf":
        _check_format(m)
    elif name in ("bpf_dynptr_data", "bpf_dynptr_write", "bpf_dynptr_from_mem"):
        m.objects.special(m, made)
    elif name in ("bpf_per_cpu_ptr", "bpf_this_cpu_ptr"):
        m.typed.special(m, made)
    elif name == "bpf_set_retval":
        hookrules.check_set_retval(m)


def _tail_call(m: Machine, idx: int) -> None:
    calls.check_leaks(m, False, True, "tail_call")


def _loop(m: Machine, made: Call, idx: int) -> None:
    regs, frame = m.frame.regs, m.frame
    m.note_loop_flags(idx, made.subprog)
    if not m.ways.callbacks_are_loops:
        calls.push_callback(m, idx, made.subprog, _loop_callback)
        return
    if regs[1].type != r.SCALAR:
        m.fail("verifier bug: backtracking misuse")  # the kernel looks for where the count comes from
    m.mark_precise(1)
    if frame.callback_depth < regs[1].num.umax:
        calls.push_callback(m, idx, made.subprog, _loop_callback)
        return
    frame.callback_depth = 0
    if m.log.level >= 2:
        m.log.write(f"frame{len(m.state.frames) - 1} bpf_loop iteration limit reached\n")


def _check_format(m: Machine) -> None:
    regs = m.frame.regs
    length = regs[5].num
    if length.value % 8:
        m.fail_silently()
    text = check_const_string(m, 3, regs[3])
    if formats.problem(text, length.value // 8):
        m.fail("Invalid format string")


def _result(m: Machine, made: Call, idx: int) -> None:
    ret = made.proto.ret
    flags = 0
    for name, flag in (("PTR_MAYBE_NULL", r.MAYBE_NULL), ("MEM_RINGBUF", r.MEM_RINGBUF), ("MEM_RDONLY", r.MEM_RDONLY),
                       ("PTR_TRUSTED", r.TRUSTED)):  # fmt: skip
        if name in ret.flags:
            flags |= flag
    kind = ret.type
    if kind is RetType.INTEGER:
        m.frame.regs[0] = _integer(m, made)
        return
    if kind is RetType.VOID:
        m.frame.regs[0] = NOTHING
        return
    reg = _pointer(m, made, kind, flags)
    if reg.type & r.MAYBE_NULL:
        reg = reg.but(id=m.new_id())
    if made.name in _CASTS or made.name == "bpf_dynptr_data":
        reg = reg.but(ref=made.ref)
    elif _acquires(made):
        identity = m.acquire(idx)
        reg = reg.but(id=identity, ref=identity)
    m.frame.regs[0] = reg


def _acquires(made: Call) -> bool:
    if made.name in _ACQUIRES:
        return True
    return made.name == "bpf_map_lookup_elem" and made.map is not None and made.map[0].type in ("sockmap", "sockhash")


def _integer(m: Machine, made: Call) -> Reg:
    if made.name in _TEXT_SIZED and (made.name != "bpf_get_task_stack" or m.ways.task_stacks_are_sized):
        limit = made.size_limit
        signed_limit = limit - (1 << 64) if limit >> 63 else limit
        low = limit & 0xFFFFFFFF
        low_signed = low - (1 << 32) if low >> 31 else low
        return scalar_reg(m.domain.set_range(smin=-MAX_ERRNO, smax=signed_limit, smin32=-MAX_ERRNO, smax32=low_signed))
    if made.name == "bpf_get_smp_processor_id" and m.ways.processors_are_counted:
        top = m.cpus - 1
        return scalar_reg(
            m.domain.set_range(smin=0, smax=top, umin=0, umax=top, smin32=0, smax32=top, umin32=0, umax32=top)
        )
    return UNKNOWN_REG


def _pointer(m: Machine, made: Call, kind: RetType, flags: int) -> Reg:
    if kind is RetType.PTR_TO_MAP_VALUE:
        return _map_value_result(m, made, flags)
    if kind is RetType.PTR_TO_SOCKET:
        return Reg(r.PTR_SOCKET | flags, 0, ZERO)
    if kind is RetType.PTR_TO_SOCK_COMMON:
        return Reg(r.PTR_SOCK_COMMON | flags, 0, ZERO)
    if kind is RetType.PTR_TO_TCP_SOCK:
        return Reg(r.PTR_TCP_SOCK | flags, 0, ZERO)
    if kind is RetType.PTR_TO_MEM:
        return Reg(r.PTR_MEM | flags, 0, ZERO, data=(made.mem_size, made.dynptr_id))
    return m.typed.result(m, made, kind, flags)


def _map_value_result(m: Machine, made: Call, flags: int) -> Reg:
    if made.map is None:
        m.fail("kernel subsystem misconfigured verifier")
    target = made.map[0]
    if made.key is not None and 0 <= _as_signed(made.key) < target.max_entries and made.name == "bpf_map_lookup_elem":
        # not of bpf_map_lookup_percpu_elem: it finds nothing where there is no such CPU
        flags &= ~r.MAYBE_NULL
    reg = Reg(r.PTR_MAP_VALUE | flags, 0, ZERO, data=made.map)
    if not flags & r.MAYBE_NULL and target.field_of("bpf_spin_lock", "bpf_res_spin_lock") is not None:
        reg = reg.but(id=m.new_id())
    return reg


def _as_signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _check_map_kind(m: Machine, made: Call, number: int) -> None:
    """That this helper works on this type of map."""
    if made.map is None:
        return
    target = made.map[0]
    if map_spec.compatible(made.name, target.type) and hookrules.may_use_sockmap(m, made.name, target.type):
        return
    found = map_spec.by_name(target.type)
    shown = "?" if found is None else found.number
    m.fail(f"cannot pass map_type {shown} into func {made.name}#{number}")
