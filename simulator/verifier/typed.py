"""Pointers to kernel objects, typed by BTF, and kernel functions.

Source: check_ptr_to_btf_access, check_kfunc_call of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpflisp.spec.btf import Btf, BtfKind
from bpflisp.spec.helpers import Arg, ArgType, RetType
from bpflisp.spec.insn import Insn
from simulator.verifier import hookargs, kfuncs, structs
from simulator.verifier import regs as r
from simulator.verifier.regs import ZERO, Reg
from simulator.verifier.resolve import Loaded
from simulator.verifier.stack import UNKNOWN_REG, num_text
from simulator.verifier.structs import Reached

if TYPE_CHECKING:
    from simulator.verifier.calls import Setup
    from simulator.verifier.helper_calls import Call
    from simulator.verifier.machine import Machine

_WRITERS = frozenset({"sched_cls", "sched_act", "xdp"})
_POINTERS = "pointers to kernel objects"


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
            m.unsupported("objects that the program allocates")
        if writes and m.program_type == "struct_ops":
            hookargs.check_store(m, btf, type_id, off, size)
            return
        if writes:
            if m.program_type in _WRITERS:
                m.unsupported(f"a write to struct {name}")
            m.fail("only read is supported")
        found = structs.access(m, btf, type_id, off, size, False)
        if value >= 0:
            m.frame.regs[value] = self._loaded(m, reg, found)

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
        if not kfuncs.is_trusted(reg) and not reg.type & r.MEM_RCU:
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
        m.unsupported("loads from a map's own structure")

    def check_argument(self, m: Machine, made: Call, register: int, reg: Reg, arg: Arg, kind: ArgType) -> None:
        """A typed pointer given to a helper."""
        m.unsupported(_POINTERS)

    def result(self, m: Machine, made: Call, kind: RetType, flags: int) -> Reg:
        """A typed pointer that a helper gives."""
        m.unsupported(_POINTERS)

    def special(self, m: Machine, made: Call) -> None:
        """bpf_per_cpu_ptr and bpf_this_cpu_ptr."""
        m.unsupported(_POINTERS)

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
        """The address of a kernel variable."""
        m.unsupported(f"the kernel variable {loaded.symbol}")

    def vma_callback(self, m: Machine) -> Setup:
        """The callback of bpf_find_vma."""
        m.unsupported(_POINTERS)

    def kfunc_call(self, m: Machine, idx: int, insn: Insn) -> int:
        """A call of a kernel function."""
        return kfuncs.call(m, idx, insn)
