"""Objects that a program allocates, and the lists and red-black trees that hold them.

Invariant: an object is owned (its pointers hold a reference), or it is in a list or tree and may be looked at until the
lock is given back: non-owning pointers, which hold none. An object that counts its references can be both.
Source: the KF_ARG_PTR_TO_{LIST,RB,REFCOUNTED,ALLOC}_* and bpf_obj_* parts of check_kfunc_args and check_kfunc_call of
kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.lean import dataclass
from bpflisp.spec.btf import Btf, BtfKind
from simulator.managed import NODES, Field, managed_fields
from simulator.verifier import regs as r
from simulator.verifier import structs
from simulator.verifier.branches import drop_ref
from simulator.verifier.maps import MapInfo
from simulator.verifier.regs import ZERO, Reg
from simulator.verifier.state import LOCK_KINDS, Frame

if TYPE_CHECKING:
    from simulator.verifier.calls import Setup
    from simulator.verifier.machine import Machine

ALLOCATED: Final = r.PTR_BTF_ID | r.MEM_ALLOC
_SHOWN: Final = {"kptr_unref": "kptr", "kptr_ref": "kptr", "kptr_percpu": "percpu_kptr"}
_NO_LOCK: Final = -22
"""Where the kernel says that a lock is when there is none: -EINVAL."""


@dataclass(frozen=True, slots=True)
class Root:
    """A list's head or a tree's root: what its objects are, and where in them their node lies."""

    kind: str
    btf: Btf
    object: int
    node: int

    def reg(self) -> Reg:
        """A pointer to the node of one of its objects."""
        return Reg(ALLOCATED, self.node, ZERO, data=(self.btf, self.object))


def is_object(kind: int) -> bool:
    """Whether a type is that of a pointer to an allocated object, owned or not; 6.18 asks no more of it."""
    return kind & r.BASE_MASK == r.PTR_BTF_ID and bool(kind & r.MEM_ALLOC)


def is_non_owning(kind: int) -> bool:
    """Whether a type is that of a pointer to an object which the program does not own."""
    return is_object(kind) and bool(kind & r.NON_OWN_REF)


def made(m: Machine, constant: int | None, percpu: bool) -> Reg:
    """What bpf_obj_new and bpf_percpu_obj_new give, before it is known not to be null."""
    wanted = constant or 0
    if wanted >> 32:
        m.fail("local type ID argument must be in range [0, U32_MAX]")
    btf = m.program.btf
    if btf is None:
        m.fail("bpf_obj_new/bpf_percpu_obj_new requires prog BTF")
    if not 0 < wanted < len(btf) or btf.type(wanted).kind is not BtfKind.STRUCT:
        m.fail("bpf_obj_new/bpf_percpu_obj_new type ID argument must be of a struct")
    if percpu:
        _check_percpu(m, btf, wanted)
    return Reg(ALLOCATED | (r.MEM_PERCPU if percpu else 0), 0, ZERO, data=(btf, wanted))


LARGEST_PERCPU: Final = 512


def _check_percpu(m: Machine, btf: Btf, type_id: int) -> None:
    size = btf.size_of(type_id)
    if size > LARGEST_PERCPU:
        m.fail(f"bpf_percpu_obj_new type size ({size}) is greater than {LARGEST_PERCPU}")
    if not structs.only_numbers(btf, type_id):
        m.fail("bpf_percpu_obj_new type ID argument must be of a struct of scalars")
    if managed_fields(btf, type_id):
        m.fail("bpf_percpu_obj_new type ID argument must not contain special fields")


def check_dropped(m: Machine, index: int, reg: Reg, function: str) -> None:
    """The argument of bpf_obj_drop or bpf_percpu_obj_drop."""
    if reg.type == ALLOCATED:
        wanted = "bpf_obj_drop_impl"
    elif reg.type == ALLOCATED | r.MEM_PERCPU:
        wanted = "bpf_percpu_obj_drop_impl"
    else:
        m.fail(f"arg#{index} expected pointer to allocated object")
    if function != wanted:
        m.fail(f"arg#{index} expected for {wanted}()")
    if not reg.ref:
        m.fail("allocated object must be referenced")


def check_counted(m: Machine, index: int, reg: Reg) -> bool:
    """The argument of bpf_refcount_acquire; whether the program owns it, so that the result is not null."""
    if not is_object(reg.type):
        m.fail(f"arg#{index} is neither owning or non-owning ref")
    if not _is_counted(reg):
        m.fail(f"arg#{index} doesn't point to a type with bpf_refcount field")
    return not is_non_owning(reg.type) and bool(reg.ref)


def _is_counted(reg: Reg) -> bool:
    return any(field.kind == "bpf_refcount" for field in managed_fields(*reg.data))


def check_direct(m: Machine, reg: Reg, off: int, size: int) -> None:
    """That a load or store of an object does not touch what the kernel manages."""
    for field in managed_fields(*reg.data):
        if off < field.offset + field.size and field.offset < off + size:
            m.fail(f"direct access to {_SHOWN.get(field.kind, field.kind)} is disallowed")


def _constant_offset(m: Machine, register: int, reg: Reg, what: str) -> int:
    if reg.num.mask:
        m.fail(f"R{register} doesn't have constant offset. {what} has to be at the constant offset")
    return reg.off + reg.num.smin


def root(m: Machine, index: int, reg: Reg, what: str) -> Root:
    """The list or tree that an argument points to; its lock has to be held."""
    if reg.type not in (r.PTR_MAP_VALUE, ALLOCATED):
        m.fail(f"arg#{index} expected pointer to map value or allocated object")
    if reg.type == ALLOCATED and not reg.ref:
        m.fail("allocated object must be referenced")
    offset = _constant_offset(m, index + 1, reg, what)
    fields = fields_of(reg)
    found = next((field for field in fields if field.kind == what and field.offset == offset), None)
    if found is None:
        m.fail(f"{what} not found at offset={offset}")
    _check_locked(m, fields, reg, what)
    return _root(m, found)


def fields_of(reg: Reg) -> tuple[Field, ...]:
    """The managed fields of what a register points to: a map's value or an object."""
    if reg.type & r.BASE_MASK == r.PTR_MAP_VALUE:
        target: MapInfo = reg.data[0]
        return target.fields
    return managed_fields(*reg.data)


def allocation(reg: Reg) -> object:
    """What tells the locks of one map, or of the program's objects, from all others."""
    return reg.data[0]


def _check_locked(m: Machine, fields: tuple[Field, ...], reg: Reg, what: str) -> None:
    lock = next((field.offset for field in fields if field.kind == "bpf_spin_lock"), _NO_LOCK)
    must = f"bpf_spin_lock at off={lock} must be held for {what}"
    if not m.state.holds.locks:
        m.fail(must)
    held = any(ref.kind in LOCK_KINDS and ref.id == reg.id and ref.ptr is allocation(reg) for ref in m.state.holds.refs)
    if not held:
        m.fail("held lock and object are not in the same allocation", must)


def _root(m: Machine, field: Field) -> Root:
    """What a list or tree holds: objects of the program's, since its BTF is the map's."""
    assert field.target is not None  # fields of other kinds have none
    btf, type_id = field.target
    assert isinstance(btf, Btf)
    own = m.program.btf
    return Root(field.kind, own if own is not None and own == btf else btf, type_id, field.node)


def check_added(m: Machine, index: int, reg: Reg, held_by: Root) -> None:
    """The node of an object that is put into a list or tree: the program has to own it."""
    if reg.type != ALLOCATED:
        m.fail(f"arg#{index} expected pointer to allocated object")
    if not reg.ref:
        m.fail("allocated object must be referenced")
    _check_node(m, index, reg, held_by)


def check_inner(m: Machine, index: int, reg: Reg, held_by: Root, function: str) -> None:
    """The node of an object that is in a tree already, or may be: it is taken out, or stepped on from."""
    if not is_non_owning(reg.type) and not reg.ref:
        m.fail(f"{function} can only take non-owning or refcounted bpf_rb_node pointer")
    if in_tree_callback(m):
        m.fail(f"{function} not allowed in rbtree cb")
    _check_node(m, index, reg, held_by)


def _check_node(m: Machine, index: int, reg: Reg, held_by: Root) -> None:
    what = NODES[held_by.kind]
    offset = _constant_offset(m, index + 1, reg, what)
    if not is_object(reg.type) or not any(
        field.kind == what and field.offset == offset for field in managed_fields(*reg.data)
    ):
        m.fail(f"{what} not found at offset={offset}")
    btf, type_id = reg.data
    wanted = held_by.btf.type(held_by.object).name
    if not structs.matches(m, btf, type_id, 0, held_by.btf, held_by.object, True):
        m.fail(
            f"operation on {held_by.kind} expects arg#1 {what} at offset={held_by.node} in struct {wanted}, "
            f"but arg is at offset={offset} in struct {btf.type(type_id).name}"
        )
    if offset != held_by.node:
        m.fail(f"arg#1 offset={offset}, but expected {what} at offset={held_by.node} in struct {wanted}")


def non_owning(reg: Reg) -> Reg:
    """The same pointer, owning nothing: RCU keeps an object that counts its references."""
    return reg.but(type=reg.type | r.NON_OWN_REF | (r.MEM_RCU if _is_counted(reg) else 0))


def put(m: Machine, identity: int) -> None:
    """An object is in a list or tree now: what points to it owns it no longer."""

    def change(reg: Reg) -> Reg:
        return non_owning(reg.but(ref=0)) if reg.ref == identity else reg

    m.state.replace_regs(change)
    drop_ref(m, m.state, identity)


def less_callback(held_by: Root) -> Setup:
    """The callback of bpf_rbtree_add: it is given the nodes of two objects of the tree."""

    def setup(_: Machine, caller: Frame, callee: Frame) -> None:
        callee.regs[1] = callee.regs[2] = non_owning(held_by.reg())
        callee.in_callback = True

    return setup


def in_tree_callback(m: Machine) -> bool:
    """Whether the function under way is the one that orders a tree: its lock is held all the while."""
    frame = m.frame
    return frame.in_callback and m.layout.kfuncs.get(frame.callsite, "").startswith("bpf_rbtree_")
