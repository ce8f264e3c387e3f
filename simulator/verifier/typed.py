"""Pointers to kernel objects, typed by BTF, and kernel functions.

Source: check_ptr_to_btf_access, check_kfunc_call of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpflisp.spec.btf import Btf, BtfError, BtfKind
from bpflisp.spec.helpers import Arg, ArgType, RetType
from bpflisp.spec.insn import Insn
from simulator.verifier import access, attach, graphs, hookargs, kfuncs, kptrs, netfilter, structs
from simulator.verifier import regs as r
from simulator.verifier.kfunc_args import is_trusted
from simulator.verifier.maps import MapInfo
from simulator.verifier.regs import ZERO, Reg, type_name
from simulator.verifier.resolve import Loaded, percpu_names
from simulator.verifier.stack import UNKNOWN_REG, num_text
from simulator.verifier.state import Frame
from simulator.verifier.structs import Reached

if TYPE_CHECKING:
    from simulator.verifier.calls import Setup
    from simulator.verifier.helper_args import Call
    from simulator.verifier.machine import Machine

_SOCKET_OPTIONS: Final = frozenset({49, 57})
"""bpf_setsockopt and bpf_getsockopt, which a congestion control that is let go may not call."""

_SOCKET_ITERATORS: Final = frozenset({"tcp", "unix", "bpf_iter_tcp", "bpf_iter_unix"})

_MEMORY_ARGUMENTS = frozenset({ArgType.PTR_TO_MAP_KEY, ArgType.PTR_TO_MAP_VALUE, ArgType.PTR_TO_MEM})

_MAP_STRUCTS: Final = {
    kind: struct
    for struct, kinds in {
        "bpf_array": "array percpu_array prog_array perf_event_array cgroup_array array_of_maps",
        "bpf_htab": "hash percpu_hash lru_hash lru_percpu_hash hash_of_maps",
        "lpm_trie": "lpm_trie",
        "bpf_stack_map": "stack_trace",
        "bpf_stab": "sockmap",
        "bpf_shtab": "sockhash",
        "bpf_dtab": "devmap devmap_hash",
        "bpf_cpu_map": "cpumap",
        "xsk_map": "xskmap",
        "bpf_queue_stack": "queue stack",
        "bpf_ringbuf_map": "ringbuf user_ringbuf",
        "reuseport_array": "reuseport_sockarray",
        "bpf_cgroup_storage_map": "cgroup_storage percpu_cgroup_storage",
        "bpf_local_storage_map": "sk_storage task_storage inode_storage cgrp_storage",
        "bpf_bloom_filter": "bloom_filter",
        "bpf_arena": "arena",
    }.items()
    for kind in kinds.split()
}
"""Map type -> the kernel's structure for maps of that type (map_btf_id of each type's operations)."""


class Typed:
    """The rules for typed pointers, with the kernel's BTF where it was given."""

    def __init__(self, kernel_btf: Btf | None) -> None:
        self.kernel_btf = kernel_btf
        self._hook: hookargs.Hook | None = None

    def access(self, m: Machine, register: int, reg: Reg, off: int, size: int, writes: bool, value: int) -> None:
        """A load or store through a typed pointer; a load gives a number or another pointer."""
        btf, type_id = reg.data
        name = btf.type(type_id).name
        is_kernel = btf is self.kernel_btf
        if is_kernel and not m.gpl_compatible:
            m.fail(f"Cannot access kernel 'struct {name}' from non-GPL compatible program")
        where = f"R{register} is ptr_{name}"
        if off < 0:
            m.fail(f"{where} invalid negative access: off={off}")
        if reg.num.mask or reg.num.value:
            m.fail(f"{where} invalid variable offset: off={off}, var_off={num_text(reg)}")
        if reg.type & r.MEM_USER:
            m.fail(f"{where} access user memory: off={off}")
        if reg.type & r.MEM_PERCPU:
            m.fail(f"{where} access percpu memory: off={off}")
        if writes and reg.type & r.UNTRUSTED:
            m.fail("only read is supported")
        if reg.type & r.MEM_ALLOC:
            self._allocated(m, reg, off, size, writes, value)
            return
        if writes and m.program_type == "struct_ops":
            hookargs.check_store(m, btf, type_id, off, size)
            return
        if writes:
            if m.program_type not in netfilter.WRITERS:
                m.fail("only read is supported")
            netfilter.check_write(m, btf, type_id, off, size)
            return
        found = structs.access(m, btf, type_id, off, size, False)
        if value >= 0:
            m.frame.regs[value] = self._loaded(m, reg, found)

    def _allocated(self, m: Machine, reg: Reg, off: int, size: int, writes: bool, value: int) -> None:
        """An access to an object of the program's own: numbers alone, and nothing that the kernel manages."""
        btf, type_id = reg.data
        if not reg.ref and not reg.type & (r.NON_OWN_REF | r.MEM_RCU):
            m.fail("verifier bug: ref_obj_id for allocated object must be non-zero")
        graphs.check_direct(m, reg, off, size)
        found = structs.access(m, btf, type_id, off, size, True)
        if value >= 0 and not writes:
            m.frame.regs[value] = self._plain(m, btf, found) if found.kind == "untrusted" else UNKNOWN_REG

    def _loaded(self, m: Machine, reg: Reg, found: Reached) -> Reg:
        if found.kind == "number":
            return UNKNOWN_REG
        if found.kind == "untrusted":
            return Reg(r.PTR_MEM | r.MEM_RDONLY | r.UNTRUSTED, 0, ZERO, data=(0, 0))
        flags = self._trust(m, reg, found)
        identity = m.new_id() if flags & r.MAYBE_NULL else 0
        return Reg(r.PTR_BTF_ID | flags, 0, ZERO, identity, data=(reg.data[0], found.target))

    def _trust(self, m: Machine, reg: Reg, found: Reached) -> int:
        """How far a pointer that was loaded out of a structure may be trusted."""
        if reg.type & r.UNTRUSTED:
            return r.UNTRUSTED
        flags = found.flags
        if not is_trusted(reg) and not reg.type & r.MEM_RCU:
            return flags & ~(r.TRUSTED | r.MEM_RCU)

        def listed(suffix: str) -> bool:
            btf, type_id = reg.data
            return structs.is_listed(btf, type_id, found.field, found.target, suffix)

        if listed("__safe_trusted"):
            return flags | r.TRUSTED
        if listed("__safe_trusted_or_null"):
            return flags | r.TRUSTED | r.MAYBE_NULL
        if not m.in_rcu_section() or reg.type & r.MAYBE_NULL:
            return r.UNTRUSTED
        if listed("__safe_rcu"):
            return flags | r.MEM_RCU
        or_null = listed("__safe_rcu_or_null")
        if flags & r.MEM_RCU or or_null:
            flags |= r.MEM_RCU | r.MAYBE_NULL
            return flags & ~r.UNTRUSTED if or_null else flags
        if flags & (r.MEM_PERCPU | r.MEM_USER):
            return flags
        return flags & ~(r.TRUSTED | r.MEM_RCU)

    def map_pointer_access(
        self, m: Machine, register: int, reg: Reg, off: int, size: int, writes: bool, value: int
    ) -> None:
        """A load from the kernel's own map structure."""
        target: MapInfo = reg.data[0]
        name = _MAP_STRUCTS.get(target.type)
        btf = self.kernel_btf
        if btf is None:
            m.unsupported("loads from a map's own structure without the kernel's BTF")
        found = btf.find(name, BtfKind.STRUCT) if name is not None else None
        if found is None:
            m.unsupported(f"the structure of a map of type {target.type}")
        if off < 0:
            m.fail(f"R{register} is {name} invalid negative access: off={off}")
        if writes:
            m.fail(f"only read from {name} is supported")
        reached = structs.access(m, btf, found, off, size, False)
        if value < 0:
            return
        m.frame.regs[value] = self._plain(m, btf, reached)

    def _plain(self, m: Machine, btf: Btf, reached: Reached) -> Reg:
        """What was reached, as trusted as the place it was found in says."""
        if reached.kind == "number":
            return UNKNOWN_REG
        if reached.kind == "untrusted":
            return Reg(r.PTR_MEM | r.MEM_RDONLY | r.UNTRUSTED, 0, ZERO, data=(0, 0))
        identity = m.new_id() if reached.flags & r.MAYBE_NULL else 0
        return Reg(r.PTR_BTF_ID | reached.flags, 0, ZERO, identity, data=(btf, reached.target))

    def allows_helper(self, m: Machine, number: int) -> bool:
        """Whether a helper that the program type has may be called in this member of its structure."""
        if m.attach_type == "trace_iter" and number in _SOCKET_OPTIONS and m.program.attach_target in _SOCKET_ITERATORS:
            m.unsupported("socket options in an iterator over sockets")
        if m.program_type != "struct_ops":
            return True
        target = m.program.attach_target
        if target == "bpf_dummy_ops":
            return False  # it has no helpers at all
        if target != "tcp_congestion_ops":
            m.unsupported(f"helpers in struct_ops programs for {target}")
        member = None if self.kernel_btf is None else attach.struct_ops_member(m.program, self.kernel_btf)
        return not (number in _SOCKET_OPTIONS and member is not None and member[0] == "release")

    def check_argument(self, m: Machine, made: Call, register: int, reg: Reg, arg: Arg, kind: ArgType) -> None:
        """A typed pointer given to a helper, whose kind was found to be one that the helper takes."""
        if kind in _MEMORY_ARGUMENTS:
            if "MEM_RDONLY" not in arg.flags:
                m.fail(f"{made.name}() may write into memory pointed by R{register} type={type_name(reg.type)}")
            return
        if reg.type & r.MEM_ALLOC:
            self._check_object(m, made, register, reg)
            return
        if reg.type & r.MEM_PERCPU:
            return
        releases = "OBJ_RELEASE" in arg.flags
        if reg.type & r.MAYBE_NULL and (releases or not arg.maybe_null):
            word = "R" if m.layout.profile.since("7.1") else "arg"
            m.fail(f"Possibly NULL pointer passed to helper {word}{register}")
        if made.name == "bpf_kptr_xchg":
            assert made.kptr is not None  # the first argument was checked
            kptrs.check_fits(m, made.kptr, register, reg)
            return
        self._check_structure(m, made, register, reg, arg, kind)

    def _check_object(self, m: Machine, made: Call, register: int, reg: Reg) -> None:
        """An object that the program allocated: it holds a lock, keeps a pointer, or is given away to be kept."""
        if reg.type & ~r.MEM_PERCPU != graphs.ALLOCATED:
            m.fail("verifier bug: invalid PTR_TO_BTF_ID register for type match")
        if made.name == "bpf_kptr_xchg" and register == 2:
            assert made.kptr is not None  # the first argument was checked
            kptrs.check_fits(m, made.kptr, register, reg)

    def _check_structure(self, m: Machine, made: Call, register: int, reg: Reg, arg: Arg, kind: ArgType) -> None:
        """That it points to the structure that the helper is written for."""
        name = "sock_common" if kind is ArgType.PTR_TO_BTF_ID_SOCK_COMMON else arg.btf
        wanted = self._structure(m, name)
        access.check_offset_free(m, register, reg, fixed_ok=True)
        strict = "OBJ_RELEASE" in arg.flags and made.name != "bpf_sk_release"
        btf, type_id = reg.data
        assert self.kernel_btf is not None  # a typed pointer came from it
        if not structs.matches(m, btf, type_id, reg.off, self.kernel_btf, wanted, strict):
            m.fail(f"R{register} is of type {btf.type(type_id).name} but {name} is expected")

    def _structure(self, m: Machine, name: str) -> int:
        """The id of a kernel structure that a helper's prototype names."""
        found = self.kernel_btf.find(name, BtfKind.STRUCT) if self.kernel_btf is not None and name else None
        if found is None:
            m.unsupported(f"a pointer to struct {name} without the kernel's BTF")
        return found

    def result(self, m: Machine, made: Call, kind: RetType, flags: int) -> Reg:
        """A typed pointer that a helper gives."""
        if kind is RetType.PTR_TO_MEM_OR_BTF_ID:
            return self._variable_of_cpu(m, made, flags)
        if kind is not RetType.PTR_TO_BTF_ID:
            m.unsupported(f"what the helper {made.name} returns")
        if made.name == "bpf_kptr_xchg":
            assert made.kptr is not None  # its first argument was checked
            return kptrs.taken(m, made.kptr, flags)
        return Reg(r.PTR_BTF_ID | flags, 0, ZERO, data=(self.kernel_btf, self._structure(m, made.proto.ret.btf)))

    def _variable_of_cpu(self, m: Machine, made: Call, flags: int) -> Reg:
        """What bpf_per_cpu_ptr and bpf_this_cpu_ptr give: a structure, or memory of the variable's size."""
        assert made.returned is not None  # its first argument was checked
        btf, type_id = made.returned
        assert isinstance(btf, Btf)
        resolved, head = structs.resolve(btf, type_id)
        if made.of_object:
            return Reg(graphs.ALLOCATED | r.MEM_RCU, 0, ZERO, data=(btf, type_id))
        if head is not None and head.kind in (BtfKind.STRUCT, BtfKind.UNION):
            return Reg(r.PTR_BTF_ID | flags & ~r.MEM_RDONLY, 0, ZERO, data=(btf, type_id))
        return Reg(r.PTR_MEM | flags, 0, ZERO, data=(self._size(m, btf, resolved), 0))

    def _size(self, m: Machine, btf: Btf, type_id: int) -> int:
        try:
            return btf.size_of(type_id)
        except BtfError:
            m.unsupported("a kernel variable without a size")

    def special(self, m: Machine, made: Call) -> None:
        """bpf_per_cpu_ptr and bpf_this_cpu_ptr: what each CPU's copy of an allocated object is."""
        made.of_object = bool(m.frame.regs[1].type & r.MEM_RCU)

    def trusted(self, m: Machine, name: str) -> Reg:
        """A context field that points to a kernel structure."""
        found = self.kernel_btf.find(name, BtfKind.STRUCT) if self.kernel_btf is not None else None
        if found is None:
            m.unsupported(f"a pointer to struct {name} in the context without the kernel's BTF")
        return Reg(r.PTR_BTF_ID | r.TRUSTED, 0, ZERO, data=(self.kernel_btf, found))

    def context_access(self, m: Machine, off: int, size: int, writes: bool, signed: bool) -> Reg | None:
        """An access to a context that the kernel's BTF types."""
        if self.kernel_btf is None:
            m.unsupported(f"the context of program type {m.program_type} without the kernel's BTF")
        if m.program_type not in ("tracing", "lsm", "struct_ops"):
            m.unsupported(f"the context of program type {m.program_type}")
        if self._hook is None:
            self._hook = hookargs.hook_of(m, self.kernel_btf)
        reg = hookargs.access(m, self.kernel_btf, self._hook, off, size, writes)
        return None if reg is None else hookargs.as_struct_ops_sees_it(m, self.kernel_btf, reg)

    def variable(self, m: Machine, loaded: Loaded) -> Reg:
        """The address of a kernel variable or function."""
        btf = self.kernel_btf
        assert btf is not None  # the load was resolved with it
        if btf.type(loaded.type_id).kind is BtfKind.FUNC:
            return Reg(r.PTR_MEM | r.MEM_RDONLY, 0, ZERO, data=(0, 0))
        type_id = btf.type(loaded.type_id).target
        if loaded.symbol in percpu_names(btf):
            return Reg(r.PTR_BTF_ID | r.MEM_PERCPU, 0, ZERO, data=(btf, type_id))
        resolved, head = structs.resolve(btf, type_id)
        if head is not None and head.kind in (BtfKind.STRUCT, BtfKind.UNION):
            return Reg(r.PTR_BTF_ID, 0, ZERO, data=(btf, type_id))
        return Reg(r.PTR_MEM | r.MEM_RDONLY, 0, ZERO, data=(self._size(m, btf, resolved), 0))

    def vma_callback(self, m: Machine) -> Setup:
        """The callback of bpf_find_vma: it is given the task, the area found, and what the program handed on."""
        area = Reg(r.PTR_BTF_ID, 0, ZERO, data=(self.kernel_btf, self._structure(m, "vm_area_struct")))

        def setup(_: Machine, caller: Frame, callee: Frame) -> None:
            callee.regs[1] = caller.regs[1]
            callee.regs[2] = area
            callee.regs[3] = caller.regs[4]
            callee.in_callback = True

        return setup

    def calls_nothing(self, m: Machine, insn: Insn) -> bool:
        """Whether a call of a kernel function is one that loaders left empty, so that no register is looked at."""
        return kfuncs.is_empty(m, m.idx, insn)

    def kfunc_call(self, m: Machine, idx: int, insn: Insn) -> int:
        """A call of a kernel function."""
        return kfuncs.call(m, idx, insn)
