"""Pointers to kernel objects, typed by BTF, and kernel functions.

Source: check_ptr_to_btf_access, check_kfunc_call of kernel/bpf/verifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpflisp.spec.btf import Btf
from bpflisp.spec.helpers import Arg, ArgType, RetType
from bpflisp.spec.insn import Insn
from simulator.verifier.regs import Reg
from simulator.verifier.resolve import Loaded

if TYPE_CHECKING:
    from simulator.verifier.calls import Setup
    from simulator.verifier.helper_calls import Call
    from simulator.verifier.machine import Machine

_POINTERS = "pointers to kernel objects"


class Typed:
    """The rules for typed pointers, with the kernel's BTF where it was given."""

    def __init__(self, kernel_btf: Btf | None) -> None:
        self.kernel_btf = kernel_btf

    def access(self, m: Machine, register: int, reg: Reg, off: int, size: int, writes: bool, value: int) -> None:
        """A load or store through a typed pointer."""
        m.unsupported(_POINTERS)

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
        m.unsupported(f"a pointer to struct {name} in the context")

    def context_access(self, m: Machine, off: int, size: int, writes: bool, signed: bool) -> Reg | None:
        """An access to a context that the kernel's BTF types."""
        m.unsupported(f"the context of program type {m.program_type}")

    def variable(self, m: Machine, loaded: Loaded) -> Reg:
        """The address of a kernel variable."""
        m.unsupported(f"the kernel variable {loaded.symbol}")

    def vma_callback(self, m: Machine) -> Setup:
        """The callback of bpf_find_vma."""
        m.unsupported(_POINTERS)

    def kfunc_call(self, m: Machine, idx: int, insn: Insn) -> int:
        """A call of a kernel function."""
        m.unsupported(f"the kernel function {m.layout.kfuncs.get(idx, insn.imm)}")
