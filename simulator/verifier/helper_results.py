"""What a helper gives back: a number and its bounds, or a pointer to what it found, perhaps to be given back in turn.

Source: the end of check_helper_call, and do_refine_retval_range, of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.spec import maps as map_spec
from bpflisp.spec.helpers import RetType
from simulator.verifier import hookrules
from simulator.verifier import regs as r
from simulator.verifier.regs import NOTHING, ZERO, Reg, scalar_reg
from simulator.verifier.stack import UNKNOWN_REG

if TYPE_CHECKING:
    from simulator.verifier.helper_args import Call
    from simulator.verifier.machine import Machine


MAX_ERRNO: Final = 4095

_CASTS: Final = frozenset({"bpf_tcp_sock", "bpf_sk_fullsock", "bpf_skc_to_tcp_sock", "bpf_skc_to_tcp6_sock",
    "bpf_skc_to_udp6_sock", "bpf_skc_to_mptcp_sock", "bpf_skc_to_tcp_timewait_sock",
    "bpf_skc_to_tcp_request_sock"})  # fmt: skip
_ACQUIRES: Final = frozenset(
    {"bpf_sk_lookup_tcp", "bpf_sk_lookup_udp", "bpf_skc_lookup_tcp", "bpf_ringbuf_reserve", "bpf_kptr_xchg"}
)
_TEXT_SIZED: Final = frozenset(
    {
        "bpf_get_stack", "bpf_get_task_stack", "bpf_probe_read_str", "bpf_probe_read_kernel_str",
        "bpf_probe_read_user_str",
    }
)  # fmt: skip


def give_result(m: Machine, made: Call, idx: int) -> None:
    """What r0 holds after a call, and the reference that the call took."""
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


def check_map_kind(m: Machine, made: Call, number: int) -> None:
    """That this helper works on this type of map."""
    if made.map is None:
        return
    target = made.map[0]
    if map_spec.compatible(made.name, target.type) and hookrules.may_use_sockmap(m, made.name, target.type):
        return
    found = map_spec.by_name(target.type)
    shown = "?" if found is None else found.number
    m.fail(f"cannot pass map_type {shown} into func {made.name}#{number}")
