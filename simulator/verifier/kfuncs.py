"""Calls of kernel functions: arguments by their BTF and the suffixes of their names, sections that they open and close.

Prototypes come from the kernel's BTF, flags and who may call from the tables. What is not modelled says so by name.
Source: check_kfunc_call and check_kfunc_args of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from bpflisp.spec.btf import Btf, BtfError, BtfKind, BtfParam, BtfType
from bpflisp.spec.insn import Insn
from simulator.verifier import access, calls, dynptrs, graphs, iterators, structs
from simulator.verifier import regs as r
from simulator.verifier.branches import not_null
from simulator.verifier.callfacts import kfunc_flags
from simulator.verifier.globals import CONTEXT_NAMES
from simulator.verifier.helper_calls import check_argument_offset, check_const_string, check_size, release
from simulator.verifier.iterators import Place
from simulator.verifier.refusal import Refused, Unsupported
from simulator.verifier.regs import ZERO, Reg, is_null, type_name
from simulator.verifier.stack import UNKNOWN_REG
from simulator.verifier.state import SPILL, Slot

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

_SCALARS: Final = frozenset({BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64})
_COMPOSITE: Final = frozenset({BtfKind.STRUCT, BtfKind.UNION})
_TRUST: Final = r.MEM_ALLOC | r.TRUSTED | r.NON_OWN_REF
_FLAGS: Final = ~r.BASE_MASK

SOCKET_STRUCTS: Final = {
    r.PTR_SOCKET: "sock",
    r.PTR_SOCK_COMMON: "sock_common",
    r.PTR_TCP_SOCK: "tcp_sock",
    r.PTR_MAP: "bpf_map",
}
"""The verifier's own kinds of pointers -> the kernel structure that they are as arguments of a kernel function."""

_UNMODELLED: Final = (
    "bpf_percpu_obj_", "bpf_refcount_acquire", "bpf_list_front", "bpf_list_back", "bpf_rbtree_", "bpf_wq_",
    "bpf_local_irq_", "bpf_res_spin_", "bpf_task_work_", "bpf_stream_",
)  # fmt: skip

_LOCKED: Final = frozenset(
    {
        "bpf_list_push_front_impl", "bpf_list_push_back_impl", "bpf_list_pop_front", "bpf_list_pop_back",
        "bpf_iter_num_new", "bpf_iter_num_next", "bpf_iter_num_destroy",
    }
)  # fmt: skip
"""Kernel functions that may be called while a lock is held."""

_PROJECTIONS: Final = frozenset({("__sk_buff", "sk_buff"), ("xdp_md", "xdp_buff")})
"""What a kernel function names as its argument, and the structure behind it, which it may be given as well."""

_DYNPTR_SOURCES: Final = {
    "bpf_dynptr_from_skb": "skb", "bpf_dynptr_from_xdp": "xdp", "bpf_dynptr_from_skb_meta": "skb_meta",
}  # fmt: skip
_SLICE_FLAGS: Final = {
    "local": r.DYNPTR_LOCAL, "ringbuf": r.DYNPTR_RINGBUF, "skb": r.DYNPTR_SKB, "xdp": r.DYNPTR_XDP,
    "skb_meta": r.DYNPTR_SKB_META,
}  # fmt: skip


@dataclass(slots=True)
class KfuncCall:
    """What is gathered from one call."""

    name: str
    flags: frozenset[str]
    btf: Btf
    proto: int
    params: tuple[BtfParam, ...]
    ref: int = 0
    release: int = 0
    constant: int | None = None
    size: int = 0
    readonly: bool = False
    dynptr: Reg | None = None
    iterator: Place | None = None
    iterator_slots: int = 0
    root: graphs.Root | None = None
    skip: set[int] = field(default_factory=set)

    @property
    def trusted(self) -> bool:
        """Whether it wants pointers that are known to be alive."""
        return "TRUSTED_ARGS" in self.flags or "RELEASE" in self.flags


def call(m: Machine, idx: int, insn: Insn) -> int:
    """A call of a kernel function; returns the next slot, or EXIT where it ends the path."""
    name = m.layout.kfuncs.get(idx, "")
    if not name and insn.imm:
        m.unsupported("a kernel function without a name")
    if not name or _is_lacking(m, name):
        m.unresolved.add(idx)  # it may stand in code that is taken out as dead; `finish` asks
        return idx + 1
    made = _described(m, name)
    m.liveness.begin(idx)
    _check_sections_first(m, made)
    _check_arguments(m, made, idx)
    _sections(m, made)
    if made.release and not release(m, m.frame.regs[made.release].ref):
        m.fail(f"kfunc {name}#{insn.imm} reference has not been acquired before")
    if name.startswith("bpf_list_push"):
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


def _is_lacking(m: Machine, name: str) -> bool:
    """Whether the kernel whose BTF was given has no such function: loaders then leave the call empty."""
    return m.kernel_btf is not None and m.kernel_btf.find(name, BtfKind.FUNC) is None


def _described(m: Machine, name: str) -> KfuncCall:
    if m.state.holds.locks and name not in _LOCKED:
        if name.startswith(_UNMODELLED):
            m.unsupported(f"the kernel function {name}")
        m.fail("function calls are not allowed while holding a lock")
    if name.startswith(_UNMODELLED):
        m.unsupported(f"the kernel function {name}")
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
    return KfuncCall(name, flags, btf, proto, btf.params(proto))


def _check_sections_first(m: Machine, made: KfuncCall) -> None:
    if "SLEEPABLE" in made.flags and not m.state.sleepable:
        m.fail(f"program must be sleepable to call sleepable kfunc {made.name}")


def _has_suffix(param: BtfParam, suffix: str) -> bool:
    return param.name.endswith(suffix)


def _check_arguments(m: Machine, made: KfuncCall, idx: int) -> None:
    if len(made.params) > 5:
        m.fail(f"Function {made.name} has {len(made.params)} > 5 args")
    for index, param in enumerate(made.params):
        if index in made.skip or _has_suffix(param, "__ign") or _has_suffix(param, "__prog"):
            continue
        type_id, head = structs.resolve(made.btf, param.type)
        reg = m.frame.regs[index + 1]
        if head is not None and head.kind in _SCALARS:
            _number(m, made, index, param, reg)
        elif head is not None and head.kind is BtfKind.PTR:
            _pointer(m, made, index, param, reg, type_id, idx)
        else:
            m.fail(f"Unrecognized arg#{index} type {'VOID' if head is None else head.kind.name}")
    if "RELEASE" in made.flags and not made.release:
        m.fail(f"release kernel function {made.name} expects refcounted PTR_TO_BTF_ID")


def _known_constant(m: Machine, register: int, reg: Reg, text: str) -> int:
    if not reg.num.is_const:
        m.fail(f"R{register} {text}")
    m.mark_precise(register)
    return reg.num.value


def _number(m: Machine, made: KfuncCall, index: int, param: BtfParam, reg: Reg) -> None:
    register = index + 1
    if reg.type != r.SCALAR:
        m.fail(f"R{register} is not a scalar")
    if _has_suffix(param, "__k"):
        made.constant = _known_constant(m, register, reg, "must be a known constant")
    elif param.name in ("rdonly_buf_size", "rdwr_buf_size"):
        made.readonly = param.name == "rdonly_buf_size"
        made.size = _known_constant(m, register, reg, "is not a const")


def is_trusted(reg: Reg) -> bool:
    """Whether what a pointer points to is known to stay alive."""
    if reg.ref:
        return True
    if reg.type & r.BASE_MASK in SOCKET_STRUCTS and not reg.type & _FLAGS & ~_TRUST:
        return True
    return bool(reg.type & _TRUST) and not reg.type & _FLAGS & ~_TRUST


def _pointer(m: Machine, made: KfuncCall, index: int, param: BtfParam, reg: Reg, type_id: int, idx: int) -> None:
    register = index + 1
    nullable = _has_suffix(param, "__nullable")
    checked = made.trusted or "RCU" in made.flags
    if checked and (is_null(reg) or reg.type & r.MAYBE_NULL) and not nullable:
        m.fail(f"Possibly NULL pointer passed to trusted arg{index}")
    if reg.ref:
        made.ref = reg.ref
        if "RELEASE" in made.flags:
            made.release = register
    target, head = structs.resolve(made.btf, made.btf.type(type_id).target)
    kind = _kind(m, made, index, param, reg, target, head)
    if kind == "null":
        return
    if kind in ("object", "map", "allocated") and checked:
        _check_trust(m, made, register, reg)
    check_argument_offset(m, register, reg, bool("RELEASE" in made.flags and reg.ref))
    if kind == "context":
        if reg.type != r.PTR_CTX:
            m.fail(f"arg#{index} expected pointer to ctx, but got {type_name(reg.type)}")
    elif kind == "allocated":
        graphs.check_dropped(m, index, reg)
    elif kind == "bpf_list_head":
        made.root = graphs.head(m, index, reg)
    elif kind == "bpf_list_node":
        assert made.root is not None  # the list is the argument before
        graphs.check_node(m, index, reg, made.root)
    elif kind == "dynptr":
        _dynptr(m, made, register, reg, param, idx)
    elif kind == "iterator":
        _iterator(m, made, register, reg, target, head, idx)
    elif kind == "string":
        if reg.type != r.PTR_MAP_VALUE:
            m.fail(f"arg#{index} doesn't point to a const string")
        check_const_string(m, register, reg)
    elif kind in ("object", "map"):
        _object(m, made, index, reg, target, head, kind == "map")
    elif kind == "memory":
        _memory(m, made, index, register, reg, target, head)
    else:
        _sized_memory(m, made, index, register, reg, param)


def _check_trust(m: Machine, made: KfuncCall, register: int, reg: Reg) -> None:
    if is_trusted(reg):
        return
    if "RCU" not in made.flags:
        m.fail(f"R{register} must be referenced or trusted")
    if not reg.type & r.MEM_RCU:
        m.fail(f"R{register} must be a rcu pointer")


def _is_context(m: Machine, head: BtfType | None) -> bool:
    wanted = CONTEXT_NAMES.get(m.program_type, "")
    kernel_twin = {"__sk_buff": "sk_buff", "xdp_md": "xdp_buff"}.get(wanted, "")
    return head is not None and bool(wanted) and head.name in (wanted, kernel_twin) and head.name == wanted


def _kind(m: Machine, made: KfuncCall, index: int, param: BtfParam, reg: Reg, target: int, head: BtfType | None) -> str:
    """What a pointer argument is, in the order in which the kernel asks."""
    if made.name == "bpf_cast_to_kern_ctx" or _is_context(m, head):
        return "context"
    if _has_suffix(param, "__nullable") and is_null(reg):
        return "null"
    name = "" if head is None else head.name
    if _has_suffix(param, "__alloc"):
        return "allocated"
    if _has_suffix(param, "__refcounted_kptr") or _has_suffix(param, "__irq_flag"):
        m.unsupported(f"the kernel function {made.name}")
    if name in ("bpf_dynptr_kern", "bpf_dynptr"):
        return "dynptr"
    if name.startswith("bpf_iter_") and index == 0 and made.flags & {"ITER_NEW", "ITER_NEXT", "ITER_DESTROY"}:
        return "iterator"
    if name in ("bpf_list_head", "bpf_list_node"):
        return name
    if name in ("bpf_rb_root", "bpf_rb_node", "bpf_wq", "bpf_res_spin_lock"):
        m.unsupported(f"the kernel function {made.name}")
    if _has_suffix(param, "__str"):
        return "string"
    if _has_suffix(param, "__map"):
        return "map"
    base = reg.type & r.BASE_MASK
    if base == r.PTR_BTF_ID or base in SOCKET_STRUCTS:
        if head is None or head.kind not in _COMPOSITE:
            shown = "UNKNOWN" if head is None else head.kind.name
            m.fail(f"kernel function {made.name} args#{index} pointer type {shown} {name} is not supported")
        return "object"
    if head is not None and head.kind is BtfKind.FUNC_PROTO:
        m.unsupported(f"the kernel function {made.name}, which takes a callback")
    return _memory_kind(m, made, index, reg, target, head)


def _memory_kind(m: Machine, made: KfuncCall, index: int, reg: Reg, target: int, head: BtfType | None) -> str:
    sized = False
    if index + 1 < len(made.params):
        after = made.params[index + 1]
        number = m.frame.regs[index + 2].type == r.SCALAR
        sized = number and (_has_suffix(after, "__sz") or _has_suffix(after, "__szk"))
    plain = head is not None and (head.kind in _SCALARS or _only_numbers(made.btf, target, 0))
    if not plain and not (sized and head is None):
        kind, name = ("UNKNOWN", "") if head is None else (head.kind.name, head.name)
        m.fail(
            f"arg#{index} pointer type {kind} {name} must point to {'void, ' if sized else ''}scalar, "
            "or struct with scalar"
        )
    return "sized" if sized else "memory"


def _only_numbers(btf: Btf, type_id: int, depth: int) -> bool:
    """Whether a structure holds numbers alone, four levels deep."""
    head = btf.type(type_id)
    if head.kind not in _COMPOSITE or depth > 3:
        return False
    for member in btf.members(type_id):
        inner, inner_head = structs.resolve(btf, member.type)
        if inner_head is not None and inner_head.kind in _COMPOSITE:
            if not _only_numbers(btf, inner, depth + 1):
                return False
            continue
        if inner_head is not None and inner_head.kind is BtfKind.ARRAY:
            _, inner_head = structs.resolve(btf, btf.array(inner).element)
        if inner_head is None or inner_head.kind not in _SCALARS:
            return False
    return True


def _dynptr(m: Machine, made: KfuncCall, register: int, reg: Reg, param: BtfParam, idx: int) -> None:
    if _has_suffix(param, "__uninit"):
        kind, clone = _DYNPTR_SOURCES.get(made.name, ""), 0
        if made.name == "bpf_dynptr_clone":
            assert made.dynptr is not None  # the one that is cloned came first
            kind, clone = made.dynptr.data[0], made.dynptr.ref
        if not kind:
            m.unsupported(f"the kernel function {made.name}")
        dynptrs.make(m, register, reg, kind, idx, clone)
        return
    made.dynptr = dynptrs.check(m, register, reg, "", reg.type == r.PTR_DYNPTR)


def _iterator(
    m: Machine, made: KfuncCall, register: int, reg: Reg, target: int, head: BtfType | None, idx: int
) -> None:
    assert head is not None  # an iterator is known by its structure's name
    name = head.name.removeprefix("bpf_iter_")
    slots = made.btf.size_of(target) // 8
    made.iterator_slots = slots
    if "ITER_NEW" in made.flags:
        iterators.make(m, register, reg, name, slots, idx, "RCU_PROTECTED" in made.flags)
        return
    made.iterator = iterators.use(m, register, reg, name, slots, made.name)
    made.ref = made.iterator.reg(m.state).ref
    if "ITER_DESTROY" in made.flags:
        iterators.destroy(m, made.iterator, slots)


def _object(m: Machine, made: KfuncCall, index: int, reg: Reg, target: int, head: BtfType | None, is_map: bool) -> None:
    register = index + 1
    base = reg.type & r.BASE_MASK
    if is_map:
        if base != r.PTR_MAP:
            m.fail(f"pointer in R{register} isn't map pointer")
        return
    unsafe = bool(reg.type & _FLAGS & ~_TRUST) and not reg.type & r.MEM_RCU
    if (base != r.PTR_BTF_ID or unsafe) and base not in SOCKET_STRUCTS:
        expected = type_name(base | (reg.type & _TRUST))
        m.fail(f"arg#{index} is {type_name(reg.type)} expected {expected} or socket")
    if base == r.PTR_BTF_ID:
        btf, type_id = reg.data
    else:
        btf = made.btf
        found = btf.find(SOCKET_STRUCTS[base], BtfKind.STRUCT)
        if found is None:
            raise Unsupported(f"struct {SOCKET_STRUCTS[base]}, which the kernel's BTF does not have", m.idx)
        type_id = found
    assert head is not None  # `_kind` said that it is a structure
    strict = bool("RELEASE" in made.flags and reg.ref) or _alias(btf.type(type_id).name, head.name)
    if structs.matches(m, btf, type_id, reg.off, made.btf, target, strict):
        return
    had = btf.type(type_id)
    if (head.name, had.name) in _PROJECTIONS:
        return
    m.fail(
        f"kernel function {made.name} args#{index} expected pointer to {head.kind.name} {head.name} "
        f"but R{register} has a pointer to {had.kind.name} {had.name}"
    )


def _alias(had: str, wanted: str) -> bool:
    """Whether one name is the other with ___init: types that may not stand for each other."""
    return had == wanted + "___init" or wanted == had + "___init"


def _memory(
    m: Machine, made: KfuncCall, index: int, register: int, reg: Reg, target: int, head: BtfType | None
) -> None:
    try:
        size = made.btf.size_of(target)
    except BtfError:
        kind, name = ("UNKNOWN", "") if head is None else (head.kind.name, head.name)
        m.fail(f"arg#{index} reference type('{kind} {name}') size cannot be determined: -22")
    if is_null(reg):
        return
    with_value = not_null(reg) if reg.type & r.MAYBE_NULL else reg
    m.frame.regs[register] = with_value
    access.check_helper_memory(m, register, size, False, True)
    access.check_helper_memory(m, register, size, True, True)
    m.frame.regs[register] = reg


def _sized_memory(m: Machine, made: KfuncCall, index: int, register: int, reg: Reg, param: BtfParam) -> None:
    size_reg = m.frame.regs[register + 1]
    if not is_null(reg) or not _has_suffix(param, "__opt"):
        m.frame.regs[register] = not_null(reg) if reg.type & r.MAYBE_NULL else reg
        try:
            check_size(m, register + 1, size_reg, False, True, False)
            check_size(m, register + 1, size_reg, True, True, False)
        except Unsupported:
            raise
        except Refused as refusal:
            line = f"arg#{index} arg#{index + 1} memory, len pair leads to invalid memory access"
            m.log_line(line)
            raise Refused(line, insn=m.idx, log=[*refusal.log, line]) from refusal
        m.frame.regs[register] = reg
    if _has_suffix(made.params[index + 1], "__szk"):
        if not size_reg.num.is_const:
            m.fail(f"R{register + 1} must be a known constant")
        made.constant = size_reg.num.value
    made.skip.add(index + 1)


def _sections(m: Machine, made: KfuncCall) -> None:
    """RCU read-side and non-preemptible sections that a call opens, closes, or may not be in."""
    name, holds = made.name, m.state.holds
    sleeps = "SLEEPABLE" in made.flags
    if holds.rcu:
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
    if head.kind in _SCALARS:
        m.frame.regs[0] = UNKNOWN_REG
        return
    if head.kind is not BtfKind.PTR:
        m.unsupported(f"what the kernel function {made.name} returns")
    target, pointee = structs.resolve(made.btf, head.target)
    reg = _special_result(m, made) or _pointer_result(m, made, target, pointee)
    if reg.type == r.SCALAR:
        m.frame.regs[0] = reg
        return
    null = bool(made.flags & {"RET_NULL"}) or "ITER_NEXT" in made.flags
    if null:
        reg = reg.but(type=reg.type | r.MAYBE_NULL, id=m.new_id())
    if "ACQUIRE" in made.flags:
        identity = m.acquire(idx)
        reg = reg.but(id=identity if null else reg.id, ref=identity)
    m.frame.regs[0] = reg


def _special_result(m: Machine, made: KfuncCall) -> Reg | None:
    """Functions whose result depends on their arguments."""
    if made.name in ("bpf_dynptr_slice", "bpf_dynptr_slice_rdwr"):
        return _slice(m, made)
    if made.name == "bpf_rdonly_cast":
        return _readonly_cast(m, made)
    if made.name == "bpf_cast_to_kern_ctx":
        return _kernel_context(m, made)
    if made.name == "bpf_obj_new_impl":
        return graphs.made(m, made.constant)
    if made.root is not None:
        return graphs.popped(made.root)
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
        m.fail(f"Unknown type ID {wanted} passed to kfunc bpf_rdonly_cast")
    head = made.btf.type(wanted) if wanted else None
    if head is not None and head.kind in _COMPOSITE:
        return Reg(r.PTR_BTF_ID | r.UNTRUSTED, 0, ZERO, data=(made.btf, wanted))
    if head is None:
        return Reg(r.PTR_MEM | r.MEM_RDONLY | r.UNTRUSTED, 0, ZERO, data=(0, 0))
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
    if pointee.kind not in _COMPOSITE:
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
    return Reg(kind, 0, ZERO, data=(made.btf, target))
