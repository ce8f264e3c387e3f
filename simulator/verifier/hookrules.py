"""What the kind of a program allows: its context, socket maps, and helpers that belong to some hooks alone.

Source: the is_valid_access of each program type (net/core/filter.c, kernel/trace/bpf_trace.c, kernel/bpf/cgroup.c), and
may_update_sockmap, check_get_func_ip and check_helper_call of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.spec import programs
from simulator.verifier import regs as r
from simulator.verifier.regs import ZERO, Reg

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

_POINTER_KINDS: Final = {
    "pkt": r.PTR_PACKET,
    "pkt_end": r.PTR_PACKET_END,
    "pkt_meta": r.PTR_PACKET_META,
    "flow_keys": r.PTR_FLOW_KEYS,
    "sock": r.PTR_SOCKET,
    "sock_or_null": r.PTR_SOCKET | r.MAYBE_NULL,
    "sock_common": r.PTR_SOCK_COMMON,
    "sock_common_or_null": r.PTR_SOCK_COMMON | r.MAYBE_NULL,
    "tp_buffer": r.PTR_TP_BUFFER,
}
_SOCKMAP_CHANGERS: Final = frozenset(
    {"socket_filter", "sched_cls", "sched_act", "xdp", "sk_reuseport", "flow_dissector", "sk_lookup"}
)
UNCONVERTED_CONTEXTS: Final = frozenset(
    {
        "syscall", "kprobe", "tracepoint", "raw_tracepoint", "raw_tracepoint_writable", "tracing", "lsm", "struct_ops",
        "cgroup_device", "netfilter", "lirc_mode2",
    }
)  # fmt: skip
"""Types whose context is read as it lies in memory (no convert_ctx_access), so that functions may be given it."""


def context_access(m: Machine, off: int, size: int, writes: bool, signed: bool) -> Reg | None:
    """What a load from the context gives, None for a number. Refuses an access that the context does not have."""
    if m.context_table is None:
        return m.typed.context_access(m, off, size, writes, signed)
    found = m.context_table.access(off, size, writes)
    if found is not None and signed and found.kind in ("pkt", "pkt_end", "pkt_meta"):
        found = None
    if found is None:
        m.fail_at_line(f"invalid bpf_context access off={off} size={size}")
    if found.kind == "scalar":
        return None
    if found.kind == "trusted_ptr":
        return m.typed.trusted(m, found.btf)
    kind = _POINTER_KINDS[found.kind]
    length = 0 if kind in (r.PTR_PACKET, r.PTR_PACKET_META) else None
    return Reg(kind, 0, ZERO, m.new_id() if kind & r.MAYBE_NULL else 0, data=length)


def may_use_sockmap(m: Machine, helper: str, kind: str) -> bool:
    """Whether this program type may change a socket map."""
    if kind not in ("sockmap", "sockhash") or helper not in ("bpf_map_update_elem", "bpf_map_delete_elem"):
        return True
    if m.program_type == "tracing":
        return m.attach_type == "trace_iter"
    if m.program_type == "sock_ops":
        allowed = helper == "bpf_map_delete_elem"
    else:
        few = m.ways.sockmaps_changed_by_few and m.program_type in ("socket_filter", "flow_dissector", "xdp")
        allowed = m.program_type in _SOCKMAP_CHANGERS and not few
    if not allowed:
        m.log_line("cannot update sockmap in this context")
    return allowed


def check_get_func_ip(m: Machine, number: int) -> None:
    """bpf_get_func_ip needs a program that is attached to a function."""
    kind = m.program_type
    name = f"func bpf_get_func_ip#{number}"
    if kind == "tracing" and m.attach_type not in ("trace_fentry", "trace_fexit", "modify_return"):
        m.fail(f"{name} supported only for fentry/fexit/fmod_ret programs")
    if kind not in ("tracing", "kprobe"):
        known = programs.by_name(kind)
        m.fail(f"{name} not supported for program type {known.number if known is not None else -1}")


def check_set_retval(m: Machine) -> None:
    """bpf_set_retval in a hook that returns nothing is refused; the hook is known from the kernel's BTF."""
    if m.program_type == "lsm" and m.returns_void:
        m.fail("BPF_LSM_CGROUP that attach to void LSM hooks can't modify return value!")
