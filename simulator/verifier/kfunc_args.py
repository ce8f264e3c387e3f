"""Arguments of kernel functions: each by its type in the kernel's BTF, and by the suffix of its name.

Source: check_kfunc_args and get_kfunc_ptr_arg_type of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.lean import dataclass, field
from bpflisp.spec.btf import Btf, BtfError, BtfKind, BtfParam, BtfType
from simulator.managed import NODES
from simulator.verifier import access, dynptrs, graphs, irqflags, iterators, locks, structs, workqueues
from simulator.verifier import regs as r
from simulator.verifier.branches import not_null
from simulator.verifier.globals import CONTEXT_NAMES
from simulator.verifier.helper_args import check_argument_offset, check_const_string, check_size
from simulator.verifier.iterators import Place
from simulator.verifier.maps import MapInfo
from simulator.verifier.refusal import Refused, Unsupported
from simulator.verifier.regs import Reg, is_null, type_name

if TYPE_CHECKING:
    from simulator.verifier.machine import Machine

SCALARS: Final = frozenset({BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64})
COMPOSITE: Final = frozenset({BtfKind.STRUCT, BtfKind.UNION})
_FLAGS: Final = ~r.BASE_MASK

SOCKET_STRUCTS: Final = {
    r.PTR_SOCKET: "sock",
    r.PTR_SOCK_COMMON: "sock_common",
    r.PTR_TCP_SOCK: "tcp_sock",
    r.PTR_MAP: "bpf_map",
}
"""The verifier's own kinds of pointers -> the kernel structure that they are as arguments of a kernel function."""

_PROJECTIONS: Final = frozenset({("__sk_buff", "sk_buff"), ("xdp_md", "xdp_buff")})
"""What a kernel function names as its argument, and the structure behind it, which it may be given as well."""

_DYNPTR_SOURCES: Final = {
    "bpf_dynptr_from_skb": "skb", "bpf_dynptr_from_xdp": "xdp", "bpf_dynptr_from_skb_meta": "skb_meta",
}  # fmt: skip


@dataclass(slots=True)
class KfuncCall:
    """What is gathered from one call."""

    name: str
    id: int
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
    counted: Reg | None = None
    owned: bool = False
    subprog: int = -1
    map: tuple[MapInfo, int] | None = None
    skip: set[int] = field(default_factory=set)

    @property
    def trusted(self) -> bool:
        """Whether it wants pointers that are known to be alive."""
        return "TRUSTED_ARGS" in self.flags or "RELEASE" in self.flags


def _has_suffix(param: BtfParam, suffix: str) -> bool:
    return param.name.endswith(suffix)


def check_arguments(m: Machine, made: KfuncCall, idx: int) -> None:
    """That each argument of a call is what the function takes; gathers what the call means in `made`."""
    if len(made.params) > 5:
        m.fail(f"Function {made.name} has {len(made.params)} > 5 args")
    for index, param in enumerate(made.params):
        if index in made.skip or _has_suffix(param, "__ign") or _has_suffix(param, "__prog"):
            continue
        type_id, head = structs.resolve(made.btf, param.type)
        reg = m.frame.regs[index + 1]
        if head is not None and head.kind in SCALARS:
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
    if reg.type & r.BASE_MASK in SOCKET_STRUCTS and not reg.type & _FLAGS & ~r.TRUST:
        return True
    return bool(reg.type & r.TRUST) and not reg.type & _FLAGS & ~r.TRUST


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
    if kind == "map" and not _passes_for_map(reg):
        m.fail(f"pointer in R{register} isn't map pointer")
    if kind in ("object", "map", "allocated") and checked:
        _check_trust(m, made, register, reg)
    check_argument_offset(m, register, reg, bool("RELEASE" in made.flags and reg.ref))
    if kind == "context":
        if reg.type != r.PTR_CTX:
            m.fail(f"arg#{index} expected pointer to ctx, but got {type_name(reg.type)}")
    elif kind in _ALLOCATED:
        _allocated(m, made, index, reg, kind)
    elif kind in _SECTIONS:
        _section(m, made, register, reg, kind, idx)
    elif kind in ("bpf_wq", "bpf_task_work"):
        made.map = workqueues.place(m, index, reg, kind)
    elif kind == "callback":
        if reg.type != r.PTR_FUNC:
            m.fail(f"arg{index} expected pointer to func")
        made.subprog = reg.data
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


def _passes_for_map(reg: Reg) -> bool:
    """Whether the kernel takes a register for a map at first sight: it keeps something else where a map would be."""
    base = reg.type & r.BASE_MASK
    if base in (r.PTR_MEM, r.PTR_FUNC) or r.is_packet(base):
        return bool(reg.data[0] if base == r.PTR_MEM else reg.data)
    return base in _KEEP_A_FACT


_KEEP_A_FACT: Final = (r.PTR_MAP, r.PTR_MAP_VALUE, r.PTR_MAP_KEY, r.PTR_BTF_ID, r.PTR_DYNPTR)
_ALLOCATED: Final = frozenset({"allocated", "counted", "bpf_list_head", "bpf_list_node", "bpf_rb_root", "bpf_rb_node"})
_SECTIONS: Final = frozenset({"irq", "bpf_res_spin_lock"})


def _allocated(m: Machine, made: KfuncCall, index: int, reg: Reg, kind: str) -> None:
    """An object of the program's own, or the list or tree that holds such."""
    if kind == "allocated":
        graphs.check_dropped(m, index, reg, made.name)
    elif kind == "counted":
        made.owned, made.counted = graphs.check_counted(m, index, reg), reg
    elif kind in NODES:
        made.root = graphs.root(m, index, reg, kind)
    else:
        assert made.root is not None  # the list or tree is the argument before
        if kind == "bpf_list_node" or made.name == "bpf_rbtree_add_impl":
            graphs.check_added(m, index, reg, made.root)
        else:
            graphs.check_inner(m, index, reg, made.root, made.name)


def _section(m: Machine, made: KfuncCall, register: int, reg: Reg, kind: str, idx: int) -> None:
    """A lock, or the slot that interrupt flags are saved in."""
    of_lock = made.name.startswith("bpf_res_spin_")
    if kind == "irq":
        origin = irqflags.LOCK if of_lock else irqflags.NATIVE
        if made.name in ("bpf_local_irq_save", "bpf_res_spin_lock_irqsave"):
            irqflags.save(m, register, reg, origin, idx)
        else:
            irqflags.restore(m, register, reg, origin)
        return
    if reg.type not in (r.PTR_MAP_VALUE, graphs.ALLOCATED):
        m.fail(f"arg#{register - 1} doesn't point to map value or allocated object")
    takes = made.name.startswith("bpf_res_spin_lock")
    locks.change(m, register, reg, locks.RESILIENT_IRQ if "irq" in made.name else locks.RESILIENT, takes)


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
    if _has_suffix(param, "__refcounted_kptr"):
        return "counted"
    if name in ("bpf_dynptr_kern", "bpf_dynptr"):
        return "dynptr"
    if name.startswith("bpf_iter_") and index == 0 and made.flags & {"ITER_NEW", "ITER_NEXT", "ITER_DESTROY"}:
        return "iterator"
    if name in _ALLOCATED:
        return name
    if _has_suffix(param, "__str"):
        return "string"
    if _has_suffix(param, "__map"):
        return "map"
    if name in ("bpf_wq", "bpf_task_work"):
        return name
    if _has_suffix(param, "__irq_flag"):
        return "irq"
    if name == "bpf_res_spin_lock":
        return name
    base = reg.type & r.BASE_MASK
    if base == r.PTR_BTF_ID or base in SOCKET_STRUCTS:
        if head is None or head.kind not in COMPOSITE:
            shown = "UNKNOWN" if head is None else head.kind.name
            m.fail(f"kernel function {made.name} args#{index} pointer type {shown} {name} is not supported")
        return "object"
    if head is not None and head.kind is BtfKind.FUNC_PROTO:
        return "callback"
    return _memory_kind(m, made, index, reg, target, head)


def _memory_kind(m: Machine, made: KfuncCall, index: int, reg: Reg, target: int, head: BtfType | None) -> str:
    sized = False
    if index + 1 < len(made.params):
        after = made.params[index + 1]
        number = m.frame.regs[index + 2].type == r.SCALAR
        sized = number and (_has_suffix(after, "__sz") or _has_suffix(after, "__szk"))
    plain = head is not None and (head.kind in SCALARS or structs.only_numbers(made.btf, target))
    if not plain and not (sized and head is None):
        kind, name = ("UNKNOWN", "") if head is None else (head.kind.name, head.name)
        m.fail(
            f"arg#{index} pointer type {kind} {name} must point to {'void, ' if sized else ''}scalar, "
            "or struct with scalar"
        )
    return "sized" if sized else "memory"


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
    if made.name == "bpf_iter_css_task_new" and not _may_lock_css(m):
        m.fail("css_task_iter is only allowed in bpf_lsm, bpf_iter and sleepable progs")
    if "ITER_NEW" in made.flags:
        iterators.make(m, register, reg, name, slots, idx, "RCU_PROTECTED" in made.flags)
        return
    made.iterator = iterators.use(m, register, reg, name, slots, made.name)
    made.ref = made.iterator.reg(m.state).ref
    if "ITER_DESTROY" in made.flags:
        iterators.destroy(m, made.iterator, slots)


def _may_lock_css(m: Machine) -> bool:
    """Whether a lock on the tasks of control groups cannot be held already where such a program runs."""
    return m.state.sleepable or m.program_type == "lsm" or m.attach_type == "trace_iter"


def _object(m: Machine, made: KfuncCall, index: int, reg: Reg, target: int, head: BtfType | None, is_map: bool) -> None:
    register = index + 1
    base = reg.type & r.BASE_MASK
    if is_map and base == r.PTR_MAP:
        if made.map is not None:
            workqueues.check_same_map(m, made.map, reg)
        made.map = reg.data
        return
    if is_map:  # the kernel's own structure will do as well
        found = made.btf.find("bpf_map", BtfKind.STRUCT)
        if found is None:
            raise Unsupported("struct bpf_map, which the kernel's BTF does not have", m.idx)
        target, head = found, made.btf.type(found)
    unsafe = bool(reg.type & _FLAGS & ~r.TRUST) and not reg.type & r.MEM_RCU
    if (base != r.PTR_BTF_ID or unsafe) and base not in SOCKET_STRUCTS:
        expected = type_name(base | (reg.type & r.TRUST))
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
