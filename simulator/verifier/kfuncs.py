"""Calls of kernel functions: arguments by their BTF and the suffixes of their names, sections that they open and close.

Prototypes come from the kernel's BTF, flags and who may call from the tables. What is not modelled says so by name.
Source: check_kfunc_call and check_kfunc_args of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from bpflisp.spec.alu import signed
from bpflisp.spec.btf import BtfError, BtfKind, BtfType
from bpflisp.spec.insn import Insn
from simulator.verifier import access, calls, graphs, iterators, structs, workqueues
from simulator.verifier import regs as r
from simulator.verifier.branches import may_hold_lock
from simulator.verifier.callfacts import kfunc_flags
from simulator.verifier.globals import CONTEXT_NAMES
from simulator.verifier.helper_calls import release
from simulator.verifier.helper_results import MAX_ERRNO
from simulator.verifier.kfunc_args import COMPOSITE, SCALARS, KfuncCall, check_arguments
from simulator.verifier.regs import ZERO, Reg, const_reg, scalar_reg
from simulator.verifier.stack import UNKNOWN_REG
from simulator.verifier.state import SPILL, Slot

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

_LOCKED: Final = ("bpf_list_", "bpf_rbtree_", "bpf_refcount_acquire", "bpf_iter_num_", "bpf_res_spin_")
"""Kernel functions that may be called while a lock is held, by what their names begin with."""

_SLICE_FLAGS: Final = {
    "local": r.DYNPTR_LOCAL, "ringbuf": r.DYNPTR_RINGBUF, "skb": r.DYNPTR_SKB, "xdp": r.DYNPTR_XDP,
    "skb_meta": r.DYNPTR_SKB_META,
}  # fmt: skip


def call(m: Machine, idx: int, insn: Insn) -> int:
    """A call of a kernel function; returns the next slot, or EXIT where it ends the path."""
    name = m.layout.kfuncs.get(idx, "")
    if not name and insn.imm:
        m.unsupported("a kernel function without a name")
    if is_empty(m, idx, insn):
        m.unresolved.add(idx)  # it may stand in code that is taken out as dead; `finish` asks
        return idx + 1
    made = _described(m, name)
    m.liveness.begin(idx)
    _check_sections_first(m, made)
    check_arguments(m, made, idx)
    _push_callback(m, made, idx)
    _sections(m, made)
    if made.release and not release(m, m.frame.regs[made.release].ref):
        m.fail(f"kfunc {name}#{made.id} reference has not been acquired before")
    if name.startswith(("bpf_list_push", "bpf_rbtree_add")):
        graphs.put(m, m.frame.regs[2].ref)
    if name == "bpf_throw":
        return _throw(m)
    calls.clobber(m.frame)
    _result(m, made, idx)
    if name == "bpf_xdp_pull_data":
        m.forget_packet()
    if "ITER_NEXT" in made.flags:
        assert made.iterator is not None  # its first argument was checked
        iterators.advance(m, made.iterator, idx)
    m.liveness.commit()
    return idx + 1


def is_empty(m: Machine, idx: int, insn: Insn) -> bool:
    """Whether a call names no function, or one that loaders do not find."""
    name = m.layout.kfuncs.get(idx, "")
    return not insn.imm if not name else _is_lacking(m, name)


def _is_lacking(m: Machine, name: str) -> bool:
    """Whether the kernel whose BTF was given has no such function: loaders then leave the call empty."""
    return m.kernel_btf is not None and m.kernel_btf.find(name, BtfKind.FUNC) is None


def _described(m: Machine, name: str) -> KfuncCall:
    if m.state.holds.locks and not name.startswith(_LOCKED):
        m.fail("function calls are not allowed while holding a lock")
    flags = kfunc_flags(name, m.program_type, m.attach_type)
    if flags is None:
        m.fail(f"calling kernel function {name} is not allowed")
    btf = m.kernel_btf
    if btf is None:
        m.unsupported(f"the kernel function {name} without the kernel's BTF")
    func = btf.find(name, BtfKind.FUNC)
    if func is None:
        m.unsupported(f"the kernel function {name}, which the kernel's BTF does not have")
    if name == "__bpf_trap":
        m.fail("unexpected __bpf_trap() due to uninitialized variable?")
    proto = btf.func_proto(func)
    return KfuncCall(name, func, flags, btf, proto, btf.params(proto))


def _check_sections_first(m: Machine, made: KfuncCall) -> None:
    if made.name in ("bpf_res_spin_lock", "bpf_res_spin_lock_irqsave"):
        _leave_failure(m)
    if "SLEEPABLE" in made.flags and not m.state.sleepable:
        m.fail(f"program must be sleepable to call sleepable kfunc {made.name}")


def _leave_failure(m: Machine) -> None:
    """A lock may not be had: the way on which it is not is left for later."""
    failed = m.push_state(m.idx + 1, m.idx)
    calls.clobber(failed.frame)
    failed.frame.regs[0] = scalar_reg(m.domain.set_range(smin=-MAX_ERRNO, smax=-1, smin32=-MAX_ERRNO, smax32=-1))


def _push_callback(m: Machine, made: KfuncCall, idx: int) -> None:
    """The function of the program that was given is looked at as the kernel calls it."""
    if made.subprog < 0:
        return
    if made.name == "bpf_rbtree_add_impl":
        assert made.root is not None  # the tree is the first argument
        calls.push_callback(m, idx, made.subprog, graphs.less_callback(made.root))
    elif made.name.startswith(("bpf_wq_set_callback", "bpf_task_work_schedule")):
        # bpf_wq_set_callback is given the work alone, and so knows its map; task work is given both
        assert made.map is not None
        setup = workqueues.callback(made.map, made.name.startswith("bpf_task_work"))
        calls.push_callback(m, idx, made.subprog, setup, asynchronous=True, sleepable=True)
    else:
        m.unsupported(f"the kernel function {made.name}, which takes a callback")


def _sections(m: Machine, made: KfuncCall) -> None:
    """RCU read-side and non-preemptible sections that a call opens, closes, or may not be in."""
    name, holds = made.name, m.state.holds
    sleeps = "SLEEPABLE" in made.flags
    if holds.rcu:
        if name in ("bpf_rcu_read_lock", "bpf_rcu_read_unlock") and graphs.in_tree_callback(m):
            m.fail("Calling bpf_rcu_read_{lock,unlock} in unnecessary rbtree callback")
        if name == "bpf_rcu_read_lock":
            m.fail(f"nested rcu read lock (kernel function {name})")
        if name == "bpf_rcu_read_unlock":
            _leave_rcu(m)
        elif sleeps:
            m.fail(f"kernel func {name} is sleepable within rcu_read_lock region")
    elif name == "bpf_rcu_read_lock":
        m.state.holds = replace(holds, rcu=1)
    elif name == "bpf_rcu_read_unlock":
        m.fail(f"unmatched rcu read unlock (kernel function {name})")
    holds = m.state.holds
    if name == "bpf_preempt_disable":
        m.state.holds = replace(holds, preempt=holds.preempt + 1)
    elif name == "bpf_preempt_enable":
        if not holds.preempt:
            m.fail(f"unmatched attempt to enable preemption (kernel function {name})")
        m.state.holds = replace(holds, preempt=holds.preempt - 1)
    elif holds.preempt and sleeps:
        m.fail(f"kernel func {name} is sleepable within non-preemptible region")
    if holds.irq_id and sleeps:
        m.fail(f"kernel func {name} is sleepable within IRQ-disabled region")
    if "RCU_PROTECTED" in made.flags and not m.in_rcu_section():
        m.fail(f"kernel func {name} requires RCU critical section protection")


def _leave_rcu(m: Machine) -> None:
    """What was safe to follow inside the section no longer is."""
    m.state.holds = replace(m.state.holds, rcu=0)

    def change(reg: Reg) -> Reg:
        if reg.type & r.MEM_RCU:
            return reg.but(type=reg.type & ~(r.MEM_RCU | r.MAYBE_NULL) | r.UNTRUSTED)
        return reg

    m.state.replace_regs(change)
    for frame in m.state.frames:
        for spi, slot in enumerate(frame.stack):
            if slot.types[7] != SPILL and slot.reg.type & r.MEM_RCU:
                frame.stack[spi] = Slot(slot.types, change(slot.reg))


def _throw(m: Machine) -> int:
    if m.layout.exception_callback < 0:
        calls.check_return(m, 1)
    calls.check_leaks(m, True, True, "bpf_throw")
    m.liveness.commit()
    return calls.EXIT


def _result(m: Machine, made: KfuncCall, idx: int) -> None:
    result = made.btf.result(made.proto)
    head = structs.resolve(made.btf, result)[1]
    if head is None:
        return
    if head.kind in SCALARS:
        taken = made.name in ("bpf_res_spin_lock", "bpf_res_spin_lock_irqsave")
        m.frame.regs[0] = const_reg(0) if taken else UNKNOWN_REG
        return
    if head.kind is not BtfKind.PTR:
        m.unsupported(f"what the kernel function {made.name} returns")
    target, pointee = structs.resolve(made.btf, head.target)
    reg = _special_result(m, made) or _pointer_result(m, made, target, pointee)
    if reg.type == r.SCALAR:
        m.frame.regs[0] = reg
        return
    null = ("RET_NULL" in made.flags and not made.owned) or "ITER_NEXT" in made.flags
    if null:
        reg = reg.but(type=reg.type | r.MAYBE_NULL, id=m.new_id())
    if "ACQUIRE" in made.flags:
        identity = m.acquire(idx)
        reg = reg.but(id=identity if null else reg.id, ref=identity)
    elif pointee is not None and pointee.name in ("bpf_rb_node", "bpf_list_node"):
        reg = graphs.non_owning(reg)
    if not reg.id and may_hold_lock(reg):
        reg = reg.but(id=m.new_id())
    m.frame.regs[0] = reg


def _special_result(m: Machine, made: KfuncCall) -> Reg | None:
    """Functions whose result depends on their arguments."""
    if made.name in ("bpf_dynptr_slice", "bpf_dynptr_slice_rdwr"):
        return _slice(m, made)
    if made.name == "bpf_rdonly_cast":
        return _readonly_cast(m, made)
    if made.name == "bpf_cast_to_kern_ctx":
        return _kernel_context(m, made)
    if made.name in ("bpf_obj_new_impl", "bpf_percpu_obj_new_impl"):
        return graphs.made(m, made.constant, made.name == "bpf_percpu_obj_new_impl")
    if made.counted is not None:
        return Reg(graphs.ALLOCATED, 0, ZERO, data=made.counted.data)
    if made.root is not None:
        return made.root.reg()
    return None


def _slice(m: Machine, made: KfuncCall) -> Reg:
    assert made.dynptr is not None  # both were checked as arguments
    assert made.constant is not None
    kind = r.PTR_MEM | _SLICE_FLAGS[made.dynptr.data[0]]
    if made.name == "bpf_dynptr_slice":
        kind |= r.MEM_RDONLY
    elif not access.may_touch_packet(m, True):
        m.fail("the prog does not allow writes to packet data")
    return Reg(kind, 0, ZERO, data=(made.constant & 0xFFFFFFFF, made.dynptr.id))


def _readonly_cast(m: Machine, made: KfuncCall) -> Reg:
    wanted = made.constant or 0
    if wanted >= len(made.btf):
        m.fail(f"Unknown type ID {signed(wanted, 32)} passed to kfunc bpf_rdonly_cast")
    head = made.btf.type(wanted) if wanted else None
    if head is not None and head.kind in COMPOSITE:
        return Reg(r.PTR_BTF_ID | r.UNTRUSTED, 0, ZERO, data=(made.btf, wanted))
    if head is None:
        return Reg(r.PTR_MEM | r.MEM_RDONLY | r.UNTRUSTED, 0, ZERO, data=(0, 0))
    insn = m.code[m.idx]
    if insn is not None and insn.imm not in (0, -1, made.id):
        m.unsupported("the number of a type, which another build of the kernel has elsewhere, given to bpf_rdonly_cast")
    m.fail("kfunc bpf_rdonly_cast type ID argument must be of a struct or void")


_KERNEL_CONTEXTS: Final = {
    "__sk_buff": "sk_buff", "xdp_md": "xdp_buff", "bpf_sock": "sock", "bpf_sock_addr": "bpf_sock_addr_kern",
    "bpf_sock_ops": "bpf_sock_ops_kern", "sk_msg_md": "sk_msg", "bpf_user_pt_regs_t": "pt_regs",
    "bpf_perf_event_data": "bpf_perf_event_data_kern", "bpf_sysctl": "bpf_sysctl_kern",
    "bpf_sockopt": "bpf_sockopt_kern", "sk_reuseport_md": "sk_reuseport_kern", "bpf_sk_lookup": "bpf_sk_lookup_kern",
    "bpf_cgroup_dev_ctx": "bpf_cgroup_dev_ctx", "bpf_nf_ctx": "bpf_nf_ctx",
}  # fmt: skip


def _kernel_context(m: Machine, made: KfuncCall) -> Reg:
    name = _KERNEL_CONTEXTS.get(CONTEXT_NAMES.get(m.program_type, ""), "")
    found = made.btf.find(name, BtfKind.STRUCT) if name else None
    if found is None:
        m.unsupported(f"the kernel's own context of program type {m.program_type}")
    return Reg(r.PTR_BTF_ID | r.TRUSTED, 0, ZERO, data=(made.btf, found))


def _pointer_result(m: Machine, made: KfuncCall, target: int, pointee: BtfType | None) -> Reg:
    if pointee is None:
        return UNKNOWN_REG
    if pointee.kind not in COMPOSITE:
        # the prototype of the cookie alone does not say that it may be written
        size = 8 if made.name == "bpf_session_cookie" else made.size
        readonly = made.readonly
        if not size:
            try:
                size, readonly = made.btf.size_of(target), True
            except BtfError:
                m.fail(
                    f"kernel function {made.name} returns pointer type {pointee.kind.name} {pointee.name} "
                    "is not supported"
                )
        kind = r.PTR_MEM | (r.MEM_RDONLY if readonly else 0)
        return Reg(kind, 0, ZERO, 0, made.ref, (size, 0))
    kind = r.PTR_BTF_ID
    if "ITER_NEXT" in made.flags:
        assert made.iterator is not None  # its first argument was checked
        kind |= r.MEM_RCU if made.iterator.reg(m.state).type & r.MEM_RCU else r.TRUSTED
    elif made.name == "bpf_get_kmem_cache":
        kind |= r.UNTRUSTED
    elif "RCU_PROTECTED" in made.flags:
        kind |= r.MEM_RCU
    return Reg(kind, 0, ZERO, data=(made.btf, target))
