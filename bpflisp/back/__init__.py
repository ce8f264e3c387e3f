"""From SSA to machine code: `compile_function`."""

from bpflisp.back.compile import compile_function
from bpflisp.back.machine import BackError, Code, CoreRelocation, Relocation

__all__ = ["BackError", "Code", "CoreRelocation", "Relocation", "compile_function"]
